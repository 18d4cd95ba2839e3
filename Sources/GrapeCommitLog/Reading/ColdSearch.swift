import GrapeLog

/// Finds batches of one partition in segments whose indexes are in files. O(log segments) indexes are looked at.
struct ColdSearch {
  private let indexes: SegmentIndexes
  private let segments: ArraySlice<Segment>
  private let topic: TopicID
  private let partition: Int32

  init(_ indexes: SegmentIndexes, _ segments: ArraySlice<Segment>, topic: TopicID, partition: Int32) {
    self.indexes = indexes
    self.segments = segments
    self.topic = topic
    self.partition = partition
  }

  func record(_ place: Int) throws(SegmentIndexes.Fault) -> IndexFile.Record? {
    try indexes.index(segments, place).find(topic, partition)
  }

  /// The partition's batches in a segment.
  func run(_ place: Int) throws(SegmentIndexes.Fault) -> [PartitionIndex.Location] {
    guard let record = try record(place), record.runCount > 0 else { return [] }
    return try indexes.run(segments, place, record)
  }

  /// The first segment at whose end the partition's record satisfies `beyond`, which must hold for all later ones then;
  /// nil if none does.
  func first(where beyond: (IndexFile.Record) -> Bool) throws(SegmentIndexes.Fault) -> Int? {
    var low = segments.startIndex
    var high = segments.endIndex
    while low < high {
      let middle = low + (high - low) / 2
      if let record = try record(middle), beyond(record) { high = middle } else { low = middle + 1 }
    }
    return low < segments.endIndex ? low : nil
  }

  /// The first segment at whose end the partition went beyond `offset`: the batch with it is there or, if it was
  /// removed, later.
  func segment(endingBehind offset: Int64) throws(SegmentIndexes.Fault) -> Int? {
    try first { $0.end > offset }
  }

  /// The first batch with a maximum timestamp at or after `timestamp`; nil if there is none.
  func batch(at timestamp: Int64) throws(SegmentIndexes.Fault) -> PartitionIndex.Location? {
    guard let first = try first(where: { $0.greatestTimestamp >= timestamp }) else { return nil }
    for place in first..<segments.endIndex {
      if let found = try run(place).first(where: { $0.maxTimestamp >= timestamp }) { return found }
    }
    return nil
  }

  /// Where the batch begins in which the partition's byte number `bytes` lies, counted from its first batch ever; nil if
  /// that is behind these segments.
  func offset(after bytes: UInt64) throws(SegmentIndexes.Fault) -> Int64? {
    guard let place = try first(where: { $0.bytes >= bytes }), let record = try record(place) else { return nil }
    var sum = record.bytes - record.batchBytes
    for location in try run(place) {
      sum += UInt64(location.length)
      if sum >= bytes { return location.baseOffset }
    }
    return record.end
  }
}
