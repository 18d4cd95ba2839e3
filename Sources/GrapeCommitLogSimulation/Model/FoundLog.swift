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
  /// The end of the log was cut off. Segments before it may have been cleaned of what only the end declared dead: a topic
  /// that was deleted there is back, without records that were freed meanwhile.
  var isCut = false
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
    if groups != found.groups { return "groups' offsets \(found.groups), expected \(groups)" }
    place = 0
    for topic in topics {
      for (number, partition) in topic.partitions.enumerated() {
        let there = found.partitions[place].batches
        place += 1
        if !found.isDamaged && !found.isCut && there.count != partition.batches.count {
          return "\(topic.name)/\(number) has \(there.count) batches, expected \(partition.batches.count)"
        }
        let pieces = found.isCut ? there.indices.map { there[$0...$0] } : [there[...]]
        for piece in pieces {
          let first = found.isCut ? partition.batchNumber(of: piece.first!.baseOffset) : partition.first
          if let difference = partition.difference(from: piece, at: first) {
            return "\(topic.name)/\(number): \(difference)"
          }
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
