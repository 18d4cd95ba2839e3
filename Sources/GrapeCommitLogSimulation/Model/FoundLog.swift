import GrapeLog
import GrapeWire

/// Everything that a log shows to readers.
struct FoundLog {
  struct Partition {
    var bounds: PartitionBounds
    var batches: [LogBatch]
  }

  var topics: [TopicDescription]
  /// In order of topic and partition.
  var partitions: [Partition]
  var groups: [String: [TopicPartition: CommittedOffset]]
  /// Something could not be read, and readers were told that it is damaged.
  var isDamaged = false
  /// The end of the log was cut off; nil if it was not.
  var cut: CutOff?
}

/// What the end of a log that was cut off had declared dead. Segments before it may have been cleaned of that: a topic that was deleted
/// there is back without records and offsets that were freed meanwhile, as are records that were given up.
struct CutOff {
  private(set) var topics: Set<String> = []
  /// First offset that would have stayed.
  private(set) var starts: [TopicPartition: Int64] = [:]

  init(_ operations: some Sequence<LogOperation>) {
    for operation in operations {
      switch operation.request {
      case .deleteTopic(let name): topics.insert(name)
      case .deleteRecords(let partition, let offset): starts[partition] = max(starts[partition] ?? 0, offset)
      case .commit, .createTopic, .alterTopic, .deleteGroup: break
      }
    }
  }

  func covers(_ batch: ModelBatch, of partition: TopicPartition) -> Bool {
    topics.contains(partition.topic) || batch.endOffset <= starts[partition] ?? 0
  }

  /// What a state's groups may look like, to be compared with what they do.
  func groups(
    _ groups: [String: [TopicPartition: CommittedOffset]], found: [String: [TopicPartition: CommittedOffset]]
  ) -> [String: [TopicPartition: CommittedOffset]] {
    groups.reduce(into: [:]) { result, group in
      let left = group.value.filter { !topics.contains($0.key.topic) || found[group.key]?[$0.key] != nil }
      if !left.isEmpty { result[group.key] = left }
    }
  }
}

extension ModelState {
  /// The first difference between this state and what a log shows; nil if there is none.
  func difference(from found: FoundLog) -> String? {
    guard topics.elementsEqual(found.topics, by: { $0.name == $1.name && $0.configuration == $1.configuration }) else {
      return "topics \(found.topics.map(\.name)), expected \(topics.map(\.name))"
    }
    var place = 0
    for topic in topics {
      for (number, partition) in topic.partitions.enumerated() {
        let there = found.partitions[place]
        place += 1
        if partition.bounds != there.bounds {
          return "\(topic.name)/\(number) has \(there.bounds), expected \(partition.bounds)"
        }
      }
    }
    let expected = found.cut?.groups(groups, found: found.groups) ?? groups
    if expected != found.groups { return "groups' offsets \(found.groups), expected \(expected)" }
    place = 0
    for topic in topics {
      for (number, partition) in topic.partitions.enumerated() {
        let there = found.partitions[place].batches
        place += 1
        let name = TopicPartition(topic.name, Int32(number))
        if let cut = found.cut {
          if let wrong = partition.difference(from: there, cut, name, isDamaged: found.isDamaged) { return wrong }
          continue
        }
        if !found.isDamaged && there.count != partition.batches.count {
          return "\(name) has \(there.count) batches, expected \(partition.batches.count)"
        }
        if let difference = partition.difference(from: there[...], at: partition.first) {
          return "\(name): \(difference)"
        }
      }
    }
    return nil
  }

  /// Forgets what was appended behind this state, in the histories shared with others.
  func forgetTheRest() {
    for topic in topics {
      for partition in topic.partitions { partition.history.truncate(to: partition.count) }
    }
  }
}

extension ModelState.Partition {
  /// The first difference between batches that were read and those that must be there although the log's end was cut off.
  fileprivate func difference(
    from found: [LogBatch], _ cut: CutOff, _ name: TopicPartition, isDamaged: Bool
  ) -> String? {
    for place in found.indices {
      if let wrong = difference(from: found[place...place], at: batchNumber(of: found[place].baseOffset)) {
        return "\(name): \(wrong)"
      }
    }
    if isDamaged { return nil }
    let there = Set(found.map(\.baseOffset))
    for batch in batches where !there.contains(batch.baseOffset) && !cut.covers(batch, of: name) {
      return "\(name): the batch at offset \(batch.baseOffset) is gone"
    }
    return nil
  }

  /// The first difference between batches that were read, and those from number `first` on.
  func difference(from found: ArraySlice<LogBatch>, at first: Int) -> String? {
    var place = first
    for batch in found {
      guard place < count else { return "a batch at offset \(batch.baseOffset), behind the last" }
      let expected = history.batches[place]
      if batch.baseOffset != expected.baseOffset || batch.lastOffset != expected.endOffset - 1 {
        return "offsets \(batch.baseOffset) to \(batch.lastOffset), "
          + "expected \(expected.baseOffset) to \(expected.endOffset - 1)"
      }
      if batch.maxTimestamp != expected.maxTimestamp {
        return "offset \(batch.baseOffset) has timestamp \(batch.maxTimestamp), expected \(expected.maxTimestamp)"
      }
      if !expected.isSame(as: batch) { return "other bytes at offset \(batch.baseOffset) than were given" }
      place += 1
    }
    return nil
  }

  /// Number of the batch with the record at `offset`, or of the one behind the last.
  func batchNumber(of offset: Int64) -> Int {
    var low = 0
    var high = count
    while low < high {
      let middle = (low + high) / 2
      if history.batches[middle].endOffset <= offset { low = middle + 1 } else { high = middle }
    }
    return low
  }

  /// The offsets that a search by time may give: records that were given up may be found as long as they are there, and stand for
  /// the start then.
  func offsets(at timestamp: Int64) -> ClosedRange<Int64> {
    let exact = max(batches.first { $0.maxTimestamp >= timestamp }?.baseOffset ?? bounds.end, bounds.start)
    return (bounds.start > 0 ? bounds.start : exact)...exact
  }
}

extension ModelBatch {
  /// True if the log's bytes are those that were given, but for the base offset, which the log fills in, and the leader
  /// epoch, which means nothing to it and which no CRC of a batch covers.
  func isSame(as batch: LogBatch) -> Bool {
    guard batch.bytes.count == bytes.count,
      batch.bytes.unsafeBytes.loadUnaligned(as: Int64.self).bigEndian == baseOffset
    else { return false }
    return batch.bytes[8..<12] == bytes[8..<12] && batch.bytes[16..<bytes.count] == bytes[16..<bytes.count]
  }
}
