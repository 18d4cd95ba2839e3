import GrapeLog
import GrapeWire

/// The first bytes of a segment file. Layout: docs/data-format.md.
struct SegmentHeader: Equatable {
  /// Where the first group stands in the file: the header has a page of its own, never rewritten once groups follow it.
  static let reservedBytes = 4_096
  static let byteCount = 96
  /// Newest format this code reads, and the one it writes.
  static let version: UInt32 = 2
  private static let magic: UInt64 = 0x4752_4150_454c_4f47  // "GRAPELOG"

  /// Identity of the log, the same in all its segments.
  var identity: LogIdentity
  /// Logical position of the file's first byte.
  var base: Int64
  /// Bytes the file may grow to; the next segment's base is `base + capacity`.
  var capacity: Int64
  /// Milliseconds since 1970 UTC.
  var created: Int64
  /// What rewriting left; nil in a segment as the writer made it.
  var cleaned: Cleaned?

  /// A segment that holds what was worth keeping of one or more segments that it replaces.
  struct Cleaned: Equatable {
    /// Groups that the replaced segments held, the dropped ones included.
    var sequences: ClosedRange<UInt64>
    /// Bytes of the file in use: every one of them must check out.
    var end: Int64
    /// True if, of every compacted topic in it, only the last records of each key as of its end are left.
    var compacted: Bool
    /// How often its oldest part was rewritten.
    var generation: UInt32
  }

  /// Position behind the segment: the base of the next.
  var upperBound: Int64 { base + capacity }

  /// Differs between a segment and what it is replaced by, so that an index names exactly the file it was made from.
  var fingerprint: UInt64 {
    withUnsafeTemporaryAllocation(byteCount: Self.byteCount, alignment: 8) { bytes in
      encode(into: bytes)
      return UInt64(UnsafeRawBufferPointer(bytes).bigEndian(at: 60, as: UInt32.self)) << 32
        | UInt64(UnsafeRawBufferPointer(bytes).bigEndian(at: 92, as: UInt32.self))
    }
  }

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
    to.store(bigEndian: UInt32(cleaned == nil ? 0 : 1), at: 56)
    to.store(bigEndian: CRC32C.checksum(UnsafeRawBufferPointer(bytes).part(0, 60)), at: 60)
    to.store(bigEndian: cleaned?.sequences.lowerBound ?? 0, at: 64)
    to.store(bigEndian: cleaned?.sequences.upperBound ?? 0, at: 72)
    to.store(bigEndian: cleaned?.end ?? 0, at: 80)
    let flags = cleaned.map { $0.generation << 8 | ($0.compacted ? 1 : 0) } ?? 0
    to.store(bigEndian: flags, at: 88)
    to.store(bigEndian: CRC32C.checksum(UnsafeRawBufferPointer(bytes).part(64, 28)), at: 92)
  }

  /// Writes it where it belongs in its file.
  func write(to file: any SegmentFile) throws(LogError) {
    try withUnsafeTemporaryAllocation(byteCount: Self.byteCount, alignment: 8) { bytes throws(LogError) in
      encode(into: bytes)
      try file.write(UnsafeRawBufferPointer(bytes), at: 0)
    }
  }

  /// Reads the header of `file`, whose name says that it begins at `base`.
  static func read(_ file: any SegmentFile, base: Int64) throws(LogError) -> SegmentHeader {
    let storage = ByteStorage(capacity: byteCount)
    let bytes = UnsafeMutableRawBufferPointer(start: storage.base, count: byteCount)
    let count = try file.read(into: bytes, at: 0)
    return try SegmentHeader(UnsafeRawBufferPointer(rebasing: bytes[..<count]), path: file.path, base: base)
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
    cleaned = nil
    if version >= 2 { cleaned = try Self.cleaned(bytes, path: path) }
    guard self.base == base, base >= 0, capacity >= Int64(Self.reservedBytes), capacity <= Int64.max - base else {
      throw LogError(
        .corrupt, "\(path): its header says position \(self.base), its name \(base); give the file its own name back")
    }
  }

  private static func cleaned(_ bytes: UnsafeRawBufferPointer, path: String) throws(LogError) -> Cleaned? {
    let damaged = LogError(
      .corrupt, "\(path): the segment's header is damaged (second CRC); restore the file from a backup")
    guard bytes.count >= byteCount, bytes.bigEndian(at: 92) == CRC32C.checksum(bytes.part(64, 28)) else {
      throw damaged
    }
    switch bytes.bigEndian(at: 56, as: UInt32.self) {
    case 0: return nil
    case 1:
      let first: UInt64 = bytes.bigEndian(at: 64)
      let last: UInt64 = bytes.bigEndian(at: 72)
      let end: Int64 = bytes.bigEndian(at: 80)
      let flags: UInt32 = bytes.bigEndian(at: 88)
      guard first <= last, end >= Int64(reservedBytes) else { throw damaged }
      return Cleaned(sequences: first...last, end: end, compacted: flags & 1 != 0, generation: flags >> 8)
    case let kind:
      throw LogError(.unsupportedFormat, "\(path): a segment of kind \(kind), unknown to this program: use a newer one")
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

  init(identity: LogIdentity, base: Int64, capacity: Int64, created: Int64, cleaned: Cleaned? = nil) {
    self.cleaned = cleaned
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
