internal import GrapeCore
internal import GrapeLog
internal import GrapeWire

/// Where the reading of a partition begins.
enum SourceStart: Equatable {
  /// The group has been there.
  case committed(Int64)
  /// It has not, or what it would read next is not there any more.
  case fresh(Int64)
  /// To be asked of the log: the first record of this time or later.
  case atTime(Int64)

  /// - Parameters:
  ///   - committed: what the group has committed, in all topics.
  ///   - bounds: what the partition has now.
  static func find(
    _ place: TopicPartition, _ start: Manifest.Source.Start, committed: [TopicPartition: CommittedOffset],
    bounds: PartitionBounds
  ) -> SourceStart {
    let known = committed[place]
    if let known, (bounds.start...bounds.end).contains(known.offset) { return .committed(known.offset) }
    switch start {
    case .earliest: return .fresh(bounds.start)
    case .latest:
      // A partition that was added to a topic which is being read is read from its beginning: nothing of it was there when
      // "latest" was decided upon.
      let isAdded = known == nil && committed.keys.contains { $0.topic == place.topic }
      return .fresh(isAdded ? bounds.start : bounds.end)
    case .time(let time): return .atTime(time)
    }
  }

  /// The first record in `batches` from `offset` on that has this time or a later one: the log knows the times of whole batches.
  static func first(in batches: [LogBatch], from offset: Int64, at time: Int64, limit: Int) -> Int64 {
    for batch in batches {
      // What cannot be read is met again when it is to be translated.
      guard let unpacked = try? RecordBatch.unpack(batch.bytes, checkingCRC: false, limit: limit) else { return offset }
      defer { withExtendedLifetime(unpacked) {} }
      if unpacked.header.hasLogTimestamp { return max(offset, batch.baseOffset) }
      var reader = unpacked.reader()
      while let record = try? reader.next() {
        let found = batch.baseOffset + Int64(record.offsetDelta)
        if found >= offset, unpacked.header.baseTimestamp &+ record.timestampDelta >= time { return found }
      }
    }
    return offset
  }
}
