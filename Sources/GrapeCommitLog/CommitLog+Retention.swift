import GrapeLog
import Synchronization

/// Giving up records by age and by size.
extension CommitLog {
  /// A partition of a topic with limits.
  fileprivate struct Limited: Sendable {
    var partition: TopicPartition
    var topic: TopicID
    var bounds: PartitionBounds
    /// First offset that must stay for some consumer group.
    var claimed: Int64
    var limits: TopicConfiguration
    /// Bytes ever appended.
    var bytes: UInt64
    var indexedFrom: Int64
    var droppedTimestamp: Int64
    /// Bytes of the batches that memory knows.
    var knownBytes: UInt64
  }

  /// Most partitions trimmed in one commit.
  private static let trimBatch = 1_000

  /// Trims what is older or larger than its topic allows. Runs on the cleaner's thread; the trims are committed like
  /// everything else.
  func retain() {
    let (limited, cold, floor) = shared.withLock { ($0.limited(), $0.table.cold, $0.table.memoryFloor) }
    var trims: [Operation.Trim] = []
    for partition in limited {
      do throws(SegmentIndexes.Fault) {
        let start = min(try self.start(of: partition, cold, floor), partition.claimed, partition.bounds.end)
        if start > partition.bounds.start {
          trims.append(Operation.Trim(partition: partition.partition, start: start, topic: partition.topic))
        }
      } catch {
        // A segment that was replaced just now is found by the next round.
        if case .failed(let error) = error { note(error) }
      }
    }
    var first = 0
    while first < trims.count {
      let some = Array(trims[first..<min(first + Self.trimBatch, trims.count)])
      submit(
        Operation(
          .trim(some) { [weak self] result in
            // A topic deleted meanwhile needs no trimming.
            if case .failure(let error) = result, error.code != .noSuchTopic, error.code != .closed {
              self?.note(error)
            }
          }))
      first += some.count
    }
  }

  private func start(
    of limited: Limited, _ cold: ArraySlice<Segment>, _ floor: Int64
  ) throws(SegmentIndexes.Fault) -> Int64 {
    var start = limited.bounds.start
    if let age = limited.limits.retentionMilliseconds {
      start = max(start, try offset(of: limited, at: clock.wallMilliseconds() - age, cold, floor))
    }
    if let size = limited.limits.retentionBytes, limited.bytes > UInt64(size) {
      start = max(start, try offset(of: limited, after: limited.bytes - UInt64(size), cold, floor))
    }
    return start
  }

  /// First offset of a batch that is not older than `timestamp`.
  private func offset(
    of limited: Limited, at timestamp: Int64, _ cold: ArraySlice<Segment>, _ floor: Int64
  ) throws(SegmentIndexes.Fault) -> Int64 {
    if limited.droppedTimestamp >= timestamp, limited.bounds.start < limited.indexedFrom {
      let search = ColdSearch(
        indexes, cold, topic: limited.topic, partition: limited.partition.partition)
      if let found = try search.batch(at: timestamp) { return found.baseOffset }
    }
    return shared.withLock { shared in
      guard let found = shared.unmoved(limited, floor) else { return limited.bounds.start }
      return found.index.firstLocation(at: timestamp)?.baseOffset ?? limited.bounds.end
    }
  }

  /// First offset of a batch before which there are `bytes` bytes, counted from the partition's first batch ever.
  private func offset(
    of limited: Limited, after bytes: UInt64, _ cold: ArraySlice<Segment>, _ floor: Int64
  ) throws(SegmentIndexes.Fault) -> Int64 {
    let before = limited.bytes - min(limited.knownBytes, limited.bytes)
    if bytes <= before {
      let search = ColdSearch(
        indexes, cold, topic: limited.topic, partition: limited.partition.partition)
      if let found = try search.offset(after: bytes) { return found }
    }
    return shared.withLock { shared in
      guard let found = shared.unmoved(limited, floor), var place = found.index.place(of: limited.indexedFrom)
      else { return limited.bounds.start }
      var sum = before
      while let location = found.index.next(&place) {
        sum += UInt64(location.length)
        if sum >= bytes { return location.baseOffset }
      }
      return limited.bounds.end
    }
  }
}

extension CommitLog.SharedState {
  /// The partition, if memory still knows the batches that it knew when the round began: what it forgot since was not
  /// looked for in index files. The next round will.
  fileprivate func unmoved(_ limited: CommitLog.Limited, _ floor: Int64) -> PublishedState.Partition? {
    guard table.memoryFloor == floor, state.ids[limited.partition.topic] == limited.topic else { return nil }
    return try? state.partition(limited.partition)
  }

  fileprivate func limited() -> [CommitLog.Limited] {
    var limited: [CommitLog.Limited] = []
    for id in state.topics.indices {
      guard let topic = state.topics[id] else { continue }
      let limits = topic.configuration
      if limits.retentionMilliseconds == nil && limits.retentionBytes == nil { continue }
      for number in topic.partitions.indices
      where topic.partitions[number].bounds.start < topic.partitions[number].bounds.end {
        let place = TopicPartition(topic.name, Int32(number))
        let partition = topic.partitions[number]
        limited.append(
          CommitLog.Limited(
            partition: place, topic: TopicID(id), bounds: partition.bounds,
            claimed: limits.dropsUnconsumed ? .max : state.unconsumed(place) ?? .max, limits: limits,
            bytes: partition.bytes, indexedFrom: partition.indexedFrom,
            droppedTimestamp: partition.index.droppedTimestamp,
            knownBytes: limits.retentionBytes == nil ? 0 : partition.index.bytes))
      }
    }
    return limited
  }
}
