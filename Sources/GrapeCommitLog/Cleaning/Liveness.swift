import GrapeLog
import GrapeWire

/// What is still wanted of the log's records, as of one moment. Trimmed and deleted records stay dead, so that they may be
/// asked for later as well; what consumers have still to consume may change either way.
struct Liveness: Sendable {
  struct Topic: Sendable {
    var isCompacted: Bool
    var partitions: [Partition]
  }

  struct Partition: Sendable {
    /// First offset kept.
    var start: Int64
    var end: Int64
    /// Compaction leaves records from here on alone.
    var unconsumed: Int64
  }

  /// Topics that exist.
  var topics: [TopicID: Topic] = [:]

  /// Nothing is dead, whatever it is.
  static let everything: Liveness = {
    var liveness = Liveness()
    liveness.keepsAll = true
    return liveness
  }()
  private var keepsAll = false

  func exists(_ topic: TopicID) -> Bool { keepsAll || topics[topic] != nil }

  func partition(_ topic: TopicID, _ partition: Int32) -> Partition? {
    if keepsAll { return Partition(start: 0, end: .max, unconsumed: 0) }
    guard let found = topics[topic], found.partitions.indices.contains(Int(partition)) else { return nil }
    return found.partitions[Int(partition)]
  }

  func isCompacted(_ topic: TopicID) -> Bool { topics[topic]?.isCompacted ?? false }

  /// How far consumers have come in compacted topics, in one number.
  var claims: UInt64 {
    var sum: UInt64 = 0
    for topic in topics.values where topic.isCompacted {
      for partition in topic.partitions where partition.unconsumed != .max {
        sum &+= UInt64(bitPattern: min(partition.unconsumed, partition.end))
      }
    }
    return sum
  }

  /// Takes over what has come to be wanted since: compaction spares what a group has turned back to, and topics that are not
  /// compacted any more. Never the other way round: what was spared in one segment may be covered by a tombstone in the next.
  mutating func narrow(to later: Liveness) {
    for (id, topic) in later.topics where topics[id] != nil {
      if !topic.isCompacted { topics[id]!.isCompacted = false }
      for (number, partition) in topic.partitions.enumerated() {
        let unconsumed = topics[id]!.partitions[number].unconsumed
        topics[id]!.partitions[number].unconsumed = min(unconsumed, partition.unconsumed)
      }
    }
  }

  init() {}

  init(_ state: borrowing PublishedState) {
    var lowest: [TopicPartition: Int64] = [:]
    for offsets in state.groups.values {
      for (partition, committed) in offsets {
        lowest[partition] = min(lowest[partition] ?? .max, committed.offset)
      }
    }
    for id in state.topics.indices {
      guard let topic = state.topics[id] else { continue }
      let spares = !topic.configuration.dropsUnconsumed
      topics[TopicID(id)] = Topic(
        isCompacted: topic.configuration.cleanup == .compact,
        partitions: topic.partitions.enumerated().map { number, partition in
          let claimed = spares ? lowest[TopicPartition(topic.name, Int32(number))] : nil
          return Partition(
            start: partition.bounds.start, end: partition.bounds.end, unconsumed: claimed ?? .max)
        })
    }
  }
}

/// How much of a segment is wanted, as its index tells.
struct SegmentWeight: Sendable, Equatable {
  /// Bytes of batches of which nothing is wanted, and of others.
  var dead: UInt64 = 0
  var live: UInt64 = 0
  /// Of the live ones: those of compacted topics.
  var compacted: UInt64 = 0

  init() {}

  init(_ index: IndexFile, _ liveness: Liveness) {
    for place in 0..<index.count {
      let record = index.record(place)
      if record.batchBytes == 0 { continue }
      guard let partition = liveness.partition(record.topic, record.partition), record.end > partition.start else {
        dead += record.batchBytes
        continue
      }
      live += record.batchBytes
      if liveness.isCompacted(record.topic) { compacted += record.batchBytes }
    }
  }
}
