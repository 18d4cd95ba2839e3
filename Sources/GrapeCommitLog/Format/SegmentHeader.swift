import GrapeLog
import GrapeWire

/// The first bytes of a segment file. Layout: docs/data-format.md.
struct SegmentHeader: Equatable {
  /// Where the first group stands in the file: the header has a page of its own, never rewritten once groups follow it.
  static let reservedBytes = 4_096
  static let byteCount = 64
  /// Newest format this code writes and reads.
  static let version: UInt32 = 1
  private static let magic: UInt64 = 0x4752_4150_454c_4f47  // "GRAPELOG"

  /// Identity of the log, the same in all its segments.
  var identity: LogIdentity
  /// Logical position of the file's first byte.
  var base: Int64
  /// Bytes the file may grow to; the next segment's base is `base + capacity`.
  var capacity: Int64
  /// Milliseconds since 1970 UTC.
  var created: Int64

  static func fileName(base: Int64) -> String {
    let digits = String(base)
    return String(repeating: "0", count: 20 - digits.count) + digits + ".log"
  }

  /// The base that a file's name states; nil if it is not a segment's name.
  static func base(ofFile name: String) -> Int64? {
    guard name.utf8.count == 24, name.hasSuffix(".log") else { return nil }
    let digits = name.dropLast(4)
    guard digits.utf8.allSatisfy({ UInt8(ascii: "0")...UInt8(ascii: "9") ~= $0 }) else { return nil }
    return Int64(digits)
  }

  func encode(into bytes: UnsafeMutableRawBufferPointer) {
    precondition(bytes.count >= Self.byteCount)
    let to = bytes.baseAddress!
    to.store(bigEndian: Self.magic, at: 0)
    to.store(bigEndian: Self.version, at: 8)
    to.store(bigEndian: UInt32(Self.reservedBytes), at: 12)
    to.store(bigEndian: identity.high, at: 16)
    to.store(bigEndian: identity.low, at: 24)
    to.store(bigEndian: base, at: 32)
    to.store(bigEndian: capacity, at: 40)
    to.store(bigEndian: created, at: 48)
    to.store(bigEndian: UInt32(0), at: 56)
    to.store(bigEndian: CRC32C.checksum(UnsafeRawBufferPointer(bytes).part(0, 60)), at: 60)
  }

  /// Reads a header of the file `path`, whose name says that it begins at `base`.
  init(_ bytes: UnsafeRawBufferPointer, path: String, base: Int64) throws(LogError) {
    guard bytes.count >= Self.byteCount, bytes.bigEndian(at: 0) == Self.magic else {
      throw LogError(.corrupt, "\(path): not a segment of a Grape log; move it away, or restore it from a backup")
    }
    let version = bytes.bigEndian(at: 8, as: UInt32.self)
    guard version <= Self.version else {
      throw LogError(
        .unsupportedFormat,
        "\(path): format version \(version); this program reads up to \(Self.version): use a newer one")
    }
    let crc = CRC32C.checksum(bytes.part(0, 60))
    guard bytes.bigEndian(at: 60) == crc, bytes.bigEndian(at: 12) == UInt32(Self.reservedBytes) else {
      throw LogError(.corrupt, "\(path): the segment's header is damaged (CRC); restore the file from a backup")
    }
    identity = LogIdentity(high: bytes.bigEndian(at: 16), low: bytes.bigEndian(at: 24))
    self.base = bytes.bigEndian(at: 32)
    capacity = bytes.bigEndian(at: 40)
    created = bytes.bigEndian(at: 48)
    guard self.base == base, capacity >= Int64(Self.reservedBytes) else {
      throw LogError(
        .corrupt, "\(path): its header says position \(self.base), its name \(base); give the file its own name back")
    }
  }

  /// Checks that this segment is the one that begins at `expected`, of the log `identity` (nil: not known yet).
  func check(follows expected: Int64, of identity: LogIdentity?, path: String) throws(LogError) {
    if let identity, self.identity != identity {
      throw LogError(.corrupt, "\(path): this segment belongs to another log; put it back where it came from")
    }
    guard base == expected else {
      throw LogError(
        .corrupt,
        "\(path): the segment \(Self.fileName(base: expected)) before it is missing; restore it from a backup")
    }
  }

  init(identity: LogIdentity, base: Int64, capacity: Int64, created: Int64) {
    self.identity = identity
    self.base = base
    self.capacity = capacity
    self.created = created
  }
}

/// 128 random bits that tell one log from another.
struct LogIdentity: Equatable, Sendable {
  var high: UInt64
  var low: UInt64
}
