public import GrapeWire

/// How far a view of the changelog has come; stored in the same transaction as the entries (docs/data-format.md, State).
public struct StatePosition: Hashable, Sendable {
  /// The writes of all results up to this offset of the application's input are there.
  public var processed: Int64
  /// All records of the changelog below this offset are there.
  public var changelog: Int64
  /// Offset of the last record applied, -1: none.
  public var lastOffset: Int64
  /// CRC-32C of that record's key, then of its value; tells one changelog from another.
  public var fingerprint: UInt64

  /// Where an empty store stands.
  public static let start = StatePosition(processed: 0, changelog: 0, lastOffset: -1, fingerprint: 0)

  public init(processed: Int64, changelog: Int64, lastOffset: Int64, fingerprint: UInt64) {
    self.processed = processed
    self.changelog = changelog
    self.lastOffset = lastOffset
    self.fingerprint = fingerprint
  }

  /// What the fingerprint of a record is.
  public static func fingerprint(key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer?) -> UInt64 {
    UInt64(CRC32C.checksum(key)) << 32 | UInt64(value.map { CRC32C.checksum($0) } ?? 0)
  }

  /// Bytes of the stored form.
  public static let size = 40
  private static let format: UInt16 = 1

  private static func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
    CRC32C.checksum(UnsafeRawBufferPointer(rebasing: bytes[processedOffset...]))
  }

  /// Where `processed` stands in the stored form.
  public static let processedOffset = 8

  public var encoded: ByteSlice {
    var writer = ByteWriter(capacity: Self.size)
    writer.u16(Self.format)
    writer.u16(0)
    writer.u32(0)
    writer.i64(processed)
    writer.i64(changelog)
    writer.i64(lastOffset)
    writer.u64(fingerprint)
    writer.patch(Self.checksum(writer.unsafeBytes), at: 4)
    return writer.finish()
  }

  /// Reads the stored form: `corrupt`, or `unsupported` for a later one.
  public init(_ bytes: UnsafeRawBufferPointer) throws(StateError) {
    guard bytes.count == Self.size else {
      throw StateError(.corrupt, "the state's position has \(bytes.count) bytes, not \(Self.size)")
    }
    func load<Value: FixedWidthInteger>(_ offset: Int, _: Value.Type) -> Value {
      Value(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Value.self))
    }
    let format = load(0, UInt16.self)
    guard format == Self.format else {
      throw StateError(.unsupported, "the state has format \(format), this program knows \(Self.format)")
    }
    guard load(4, UInt32.self) == Self.checksum(bytes) else {
      throw StateError(.corrupt, "the state's position does not fit its checksum")
    }
    processed = load(Self.processedOffset, Int64.self)
    changelog = load(16, Int64.self)
    lastOffset = load(24, Int64.self)
    fingerprint = load(32, UInt64.self)
  }
}
