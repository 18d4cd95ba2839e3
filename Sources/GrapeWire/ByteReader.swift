/// Reads big-endian integers, strings and byte ranges one after the other from memory that outlives the reader.
///
/// Every read checks bounds and throws `WireError.truncated` past the end; nothing traps on any input.
public struct ByteReader {
  @usableFromInline let base: UnsafeRawPointer
  @usableFromInline let end: Int
  /// Bytes read so far.
  public private(set) var position: Int

  /// Reads `bytes`, which must stay valid while the reader is used.
  public init(_ bytes: UnsafeRawBufferPointer) {
    base = bytes.baseAddress ?? UnsafeRawPointer(bitPattern: 1)!
    end = bytes.count
    position = 0
  }

  /// Bytes not read yet.
  public var remaining: Int { end - position }

  private mutating func take(_ count: Int) throws(WireError) -> UnsafeRawPointer {
    guard count >= 0, count <= end - position else {
      throw WireError(.truncated, "\(count) bytes wanted at byte \(position), \(end - position) there")
    }
    defer { position += count }
    return base + position
  }

  private mutating func integer<Value: FixedWidthInteger>(_: Value.Type) throws(WireError) -> Value {
    Value(bigEndian: try take(MemoryLayout<Value>.size).loadUnaligned(as: Value.self))
  }

  public mutating func u8() throws(WireError) -> UInt8 { try integer(UInt8.self) }
  public mutating func u16() throws(WireError) -> UInt16 { try integer(UInt16.self) }
  public mutating func u32() throws(WireError) -> UInt32 { try integer(UInt32.self) }
  public mutating func u64() throws(WireError) -> UInt64 { try integer(UInt64.self) }
  public mutating func i32() throws(WireError) -> Int32 { try integer(Int32.self) }
  public mutating func i64() throws(WireError) -> Int64 { try integer(Int64.self) }

  /// The next `count` bytes, in place.
  public mutating func bytes(_ count: Int) throws(WireError) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: try take(count), count: count)
  }

  /// All that is left, in place.
  public mutating func rest() -> UnsafeRawBufferPointer {
    defer { position = end }
    return UnsafeRawBufferPointer(start: base + position, count: end - position)
  }

  /// `str16`: a length and UTF-8. `malformed` if it is not UTF-8.
  public mutating func string16() throws(WireError) -> String {
    let start = position
    let length = Int(try u16())
    let raw = try bytes(length)
    guard let text = String(validating: raw, as: UTF8.self) else {
      throw WireError(.malformed, "the string at byte \(start) is not UTF-8")
    }
    return text
  }

  /// `bytes32`: a length (-1: null) and bytes, in place.
  public mutating func bytes32() throws(WireError) -> UnsafeRawBufferPointer? {
    let start = position
    let length = try i32()
    if length == -1 { return nil }
    guard length >= 0 else { throw WireError(.malformed, "length \(length) at byte \(start): -1 or more is legal") }
    return try bytes(Int(length))
  }

  /// Zigzag varint of at most 64 bits, as in Kafka's records.
  public mutating func varint() throws(WireError) -> Int64 {
    var shift: UInt64 = 0
    var value: UInt64 = 0
    let start = position
    while position < end {
      let byte = (base + position).load(as: UInt8.self)
      position += 1
      value |= UInt64(byte & 0x7f) << shift
      if byte & 0x80 == 0 { return Int64(bitPattern: value >> 1) ^ -Int64(bitPattern: value & 1) }
      shift += 7
      if shift > 63 { throw WireError(.malformed, "the varint at byte \(start) has more than ten bytes") }
    }
    throw WireError(.truncated, "the varint at byte \(start) does not end")
  }
}
