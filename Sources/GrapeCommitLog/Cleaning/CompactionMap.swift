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
  /// A tombstone goes only if the map knows it as the last record of its key: then all segments before it are rewritten
  /// with the same map, and nothing that it covers is left.
  ///
  /// - Parameters:
  ///   - expired: tombstones in this batch have been there long enough.
  ///   - toll: bytes that it costs elsewhere if the batch becomes smaller.
  ///   - kept: what stays although it should go.
  func compact(
    _ batch: ByteSlice, topic: TopicID, _ number: Int32, _ partition: Liveness.Partition, expired: Bool,
    toll: Int, kept: inout Kept
  ) throws(WireError) -> Outcome {
    let place = Place(topic: topic, partition: number)
    guard let keys = offsets[place] else { return .unchanged }
    var spared = false
    var superseded: [[UInt8]] = []
    let protected = kept.keys[topic]
    let filtered = try RecordBatch.filtering(batch, checkingCRC: true, limit: Self.unpackedLimit) { record in
      guard let bytes = record.key else { return true }
      // The last record of a partition marks its end, whatever it is.
      if record.offset + 1 >= partition.end { return true }
      let key = [UInt8](bytes)
      guard let last = keys[key] else { return true }
      let goes =
        last > record.offset
        || (last == record.offset && record.isTombstone && expired && protected?.contains(key) != true)
      guard goes else { return true }
      if record.offset < partition.unconsumed {
        superseded.append(key)
        return false
      }
      spared = true
      return true
    }
    if spared { kept.spared = true }
    switch filtered {
    case .unchanged: return .unchanged
    case .empty: return .empty
    case .batch(let smaller):
      if smaller.count + toll <= batch.count { return .batch(smaller) }
      // There may be no room for more bytes than there were. What stays in it must stay covered.
      if smaller.count > batch.count {
        // Compressed anew it has grown.
        kept.spared = true
      }
      kept.keys[topic, default: []].formUnion(superseded)
      return .unchanged
    }
  }

  /// What compaction had to leave.
  struct Kept: Sendable {
    /// Records stay that it would drop, had consumers had them or were there room.
    var spared = false
    /// Keys whose tombstones must stay, because something older does.
    var keys: [TopicID: Set<[UInt8]>] = [:]
  }
}
