internal import Glibc
public import GrapeLog
public import GrapeState
internal import GrapeWire

/// What a changelog says about a state, made from its records in a file of its own, and then held against a snapshot.
///
/// Compaction may have dropped a record below the snapshot's position because of one behind it. So the keys of all records behind the position, as far as
/// they are given, are noted, and nothing is said about them.
public final class StateReplay {
  private let path: String
  private let position: StatePosition
  private let batchLimit: Int
  private let environment: LMDBEnvironment
  private var mapSize: Int
  /// nil: the record that the position names was not met.
  private var fingerprint: UInt64?
  /// Records taken below the position.
  public private(set) var records = 0

  /// Marks keys of records behind the position, in the first byte, which is the length of a store's name otherwise.
  private static let mark: UInt8 = 0x80

  /// - Parameters:
  ///   - path: a file that is made for it; removed by `remove`.
  ///   - position: up to which the changelog counts.
  ///   - batchLimit: bytes of a batch, unpacked.
  public init(path: String, upTo position: StatePosition, batchLimit: Int) throws(StateError) {
    self.path = path
    self.position = position
    self.batchLimit = batchLimit
    mapSize = 64 * 1024 * 1024
    environment = try LMDBEnvironment(file: path, mapSize: mapSize)
  }

  /// Takes batches in the order of the changelog.
  public func take(_ batches: [LogBatch]) throws(StateError) {
    for batch in batches {
      let unpacked: UnpackedBatch
      do throws(WireError) {
        unpacked = try RecordBatch.unpack(batch.bytes, checkingCRC: true, limit: batchLimit)
      } catch {
        throw StateError(.corrupt, "the changelog cannot be read at offset \(batch.baseOffset): \(error.message)")
      }
      while true {
        do throws(StateError) {
          try write(unpacked, base: batch.baseOffset)
          break
        } catch {
          guard error.code == .mapFull else { throw error }
          mapSize *= 2
          try environment.setMapSize(mapSize)
        }
      }
    }
  }

  private func write(_ batch: UnpackedBatch, base: Int64) throws(StateError) {
    var writer = try StateWriter(environment)
    var reader = batch.reader()
    var taken = 0
    while true {
      let record: Record?
      do throws(WireError) { record = try reader.next() } catch {
        throw StateError(.corrupt, "the changelog cannot be read at offset \(base): \(error.message)")
      }
      guard let record else { break }
      let offset = base + Int64(record.offsetDelta)
      guard let key = record.key, !key.isEmpty else {
        throw StateError(.corrupt, "the changelog's record at offset \(offset) has no key")
      }
      if offset < position.changelog {
        try writer.set(key, record.value)
        taken += 1
        if offset == position.lastOffset { fingerprint = StatePosition.fingerprint(key: key, value: record.value) }
      } else {
        let marked = Self.marked(key)
        try writer.set(marked.unsafeBytes, Self.plain.unsafeBytes)
        withExtendedLifetime(marked) {}
      }
    }
    try writer.commit(.start)
    records += taken
    withExtendedLifetime(batch) {}
  }

  private static let plain = ByteSlice([0])

  private static func marked(_ key: UnsafeRawBufferPointer) -> ByteSlice {
    var bytes = Array(key)
    bytes[0] |= mark
    return ByteSlice(bytes)
  }

  /// Where `snapshot` differs from what was taken.
  ///
  /// - Parameters:
  ///   - limit: differences told in words; all are counted.
  ///   - progress: called now and then with the number of entries compared; false: it is broken off (`unavailable`).
  public func differences(
    of snapshot: any StateSnapshot, limit: Int, progress: (Int) -> Bool
  ) throws(StateError) -> (count: Int, lines: [String]) {
    let reader = StateReader(environment)
    try reader.begin()
    defer { reader.end() }
    let replayed: StateScan = { first, body throws(StateError) in
      let all = StateKey.allStores
      try reader.scan(max(first, all.lowerBound)..<all.upperBound) { (key, entry) throws(StateError) in
        try body(key, entry)
      }
    }
    var comparison = StateComparison(
      { (first, body) throws(StateError) in try snapshot.scan(from: first, body) }, replayed)
    var (count, lines) = (0, [String]())
    if let fingerprint, fingerprint != position.fingerprint {
      count += 1
      lines.append("the record at offset \(position.lastOffset) of the changelog is not the one that was applied last")
    }
    var told = 0
    while let difference = try comparison.next() {
      if comparison.compared >= told + 4096 {
        told = comparison.compared
        guard progress(told) else { throw StateError(.unavailable, "it was broken off") }
      }
      let marked = difference.key.withUnsafeBytes { Self.marked($0) }
      let isLater = try reader.entry(marked.unsafeBytes) != nil
      withExtendedLifetime(marked) {}
      if isLater { continue }
      count += 1
      guard lines.count < limit else { continue }
      lines.append("entry \(Self.name(difference.key)): \(Self.words(difference))")
    }
    _ = progress(comparison.compared)
    return (count, lines)
  }

  private static func name(_ key: ByteSlice) -> String {
    guard let full = try? StateKey(full: key) else { return key.withUnsafeBytes { readable($0) } }
    let store = full.store.isEmpty ? "" : " of store \(full.store)"
    return full.key.withUnsafeBytes { readable($0) } + store
  }

  private static func words(_ difference: StateComparison.Difference) -> String {
    guard let left = difference.left else { return "the changelog has it, the store does not" }
    guard let right = difference.right else { return "the store has it, the changelog does not" }
    return "\(left.count) bytes in the store, \(right.count) other bytes by the changelog"
  }

  /// Removes the file. Nothing may be asked after it.
  public func remove() { unlink(path) }
}
