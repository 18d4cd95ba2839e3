import GrapeLog
import GrapeWire

/// The last offset of every key in a stretch of the log, for compacted topics. Exact: keys, not hashes of them.
struct CompactionMap: Sendable {
  private struct Place: Hashable, Sendable {
    var topic: TopicID
    var partition: Int32
  }

  /// Roughly what a dictionary's entry takes besides the key's bytes.
  private static let entryBytes = 88
  /// A compressed batch unpacks to at most this.
  private static let unpackedLimit = 1 << 30

  private var offsets: [Place: [[UInt8]: Int64]] = [:]
  private(set) var bytes = 0

  /// Adds the keys of a batch with those before it.
  mutating func add(_ batch: ByteSlice, topic: TopicID, partition: Int32) throws(WireError) {
    let place = Place(topic: topic, partition: partition)
    var keys = offsets.removeValue(forKey: place) ?? [:]
    var added = 0
    try RecordBatch.forEachKey(batch, checkingCRC: true, limit: Self.unpackedLimit) { record in
      guard let key = record.key else { return }
      if keys.updateValue(record.offset, forKey: [UInt8](key)) == nil { added += key.count + Self.entryBytes }
    }
    offsets[place] = keys
    bytes += added
  }

  /// Adds what another map knows of later offsets.
  mutating func add(_ later: consuming CompactionMap) {
    for (place, keys) in later.offsets {
      offsets[place, default: [:]].merge(keys) { max($0, $1) }
    }
    bytes += later.bytes
  }

  /// The last offset of a key, as far as the map goes; nil if it does not know the key.
  func last(_ key: [UInt8], topic: TopicID, partition: Int32) -> Int64? {
    offsets[Place(topic: topic, partition: partition)]?[key]
  }

  /// What compaction made of a batch.
  enum Outcome {
    case unchanged
    case empty
    case batch(ByteSlice)
  }

  /// Leaves out records that later ones of the same key supersede, and old tombstones.
  ///
  /// - Parameters:
  ///   - expired: tombstones in this batch have been there long enough.
  ///   - spared: set to true if a record stays only because a consumer has not had it yet.
  func compact(
    _ batch: ByteSlice, topic: TopicID, _ number: Int32, _ partition: Liveness.Partition, expired: Bool,
    spared: inout Bool
  ) throws(WireError) -> Outcome {
    guard let keys = offsets[Place(topic: topic, partition: number)] else { return .unchanged }
    var kept = false
    let filtered = try RecordBatch.filtering(batch, checkingCRC: true, limit: Self.unpackedLimit) { record in
      guard let key = record.key else { return true }
      // The last record of a partition marks its end, whatever it is.
      if record.offset + 1 >= partition.end { return true }
      let last = keys[[UInt8](key)] ?? record.offset
      guard last > record.offset || (record.isTombstone && expired) else { return true }
      if record.offset < partition.unconsumed { return false }
      kept = true
      return true
    }
    if kept { spared = true }
    switch filtered {
    case .unchanged: return .unchanged
    case .empty: return .empty
    // Compressed anew it may have grown; what is there already is the better choice then.
    case .batch(let smaller): return smaller.count <= batch.count ? .batch(smaller) : .unchanged
    }
  }
}
