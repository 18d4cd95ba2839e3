/// One record inside a batch, in place: its pointers are valid while the batch's memory is.
public struct Record {
  /// Added to the batch's base offset.
  public var offsetDelta: Int32
  /// Added to the batch's base timestamp, milliseconds.
  public var timestampDelta: Int64
  public var key: UnsafeRawBufferPointer?
  public var value: UnsafeRawBufferPointer?
  /// The header count and the headers, as encoded: equal bytes mean equal headers.
  public var headerSection: UnsafeRawBufferPointer

  /// Reads the headers.
  public var headers: RecordHeaders { RecordHeaders(section: headerSection) }
}

/// Walks the records of a batch that is not compressed (or was unpacked).
public struct RecordReader {
  private let base: UnsafeRawPointer
  private let end: Int
  /// Bytes read so far.
  private(set) var position = 0
  /// Records not read yet, by the header's count.
  public private(set) var remaining: Int32

  /// Reads `records`: the bytes behind a batch's header, which must stay valid while the reader is used.
  public init(records: UnsafeRawBufferPointer, count: Int32) {
    base = records.baseAddress ?? UnsafeRawPointer(bitPattern: 1)!
    end = records.count
    remaining = count
  }

  /// The next record; nil after the last. Throws if the bytes are not records, or if some are left over at the end.
  /// Never reads outside the bytes given, whatever they hold.
  public mutating func next() throws(WireError) -> Record? {
    if remaining == 0 {
      guard position == end else { throw WireError(.malformed, "\(end - position) bytes behind the last record") }
      return nil
    }
    let start = position
    let length = try varint(end)
    guard length >= 0, length <= Int64(end - position) else {
      throw WireError(.truncated, "the record at byte \(start) says \(length) bytes, \(end - position) are left")
    }
    let recordEnd = position + Int(length)
    guard position < recordEnd else { throw WireError(.malformed, "the record at byte \(start) is empty") }
    position += 1  // attributes: unused by the format
    let timestampDelta = try varint(recordEnd)
    let offsetDelta = try varint(recordEnd)
    let key = try nullable(recordEnd)
    let value = try nullable(recordEnd)
    guard position < recordEnd else { throw WireError(.malformed, "the record at byte \(start) has no header count") }
    let headers = UnsafeRawBufferPointer(start: base + position, count: recordEnd - position)
    position = recordEnd
    remaining -= 1
    guard offsetDelta >= 0, offsetDelta <= Int64(Int32.max) else {
      throw WireError(.malformed, "the record at byte \(start) has offset delta \(offsetDelta)")
    }
    return Record(
      offsetDelta: Int32(truncatingIfNeeded: offsetDelta), timestampDelta: timestampDelta, key: key, value: value,
      headerSection: headers)
  }

  @inline(__always)
  private mutating func nullable(_ limit: Int) throws(WireError) -> UnsafeRawBufferPointer? {
    let length = try varint(limit)
    if length == -1 { return nil }
    guard length >= 0, length <= Int64(limit - position) else {
      throw WireError(.malformed, "length \(length) at byte \(position), \(limit - position) are left in the record")
    }
    defer { position += Int(length) }
    return UnsafeRawBufferPointer(start: base + position, count: Int(length))
  }

  @inline(__always)
  private mutating func varint(_ limit: Int) throws(WireError) -> Int64 {
    // Nearly all lengths and deltas fit one byte or two.
    if position < limit {
      let first = (base + position).load(as: UInt8.self)
      if first & 0x80 == 0 {
        position += 1
        return Int64(first >> 1) ^ -Int64(first & 1)
      }
      if position + 1 < limit {
        let second = (base + position + 1).load(as: UInt8.self)
        if second & 0x80 == 0 {
          position += 2
          let zigzag = UInt64(first & 0x7f) | UInt64(second) << 7
          return Int64(zigzag >> 1) ^ -Int64(zigzag & 1)
        }
      }
    }
    return try longVarint(limit)
  }

  @inline(never)
  private mutating func longVarint(_ limit: Int) throws(WireError) -> Int64 {
    var reader = ByteReader(UnsafeRawBufferPointer(start: base + position, count: limit - position))
    let value = try reader.varint()
    position += reader.position
    return value
  }
}

/// Walks the headers of a record.
public struct RecordHeaders {
  private var reader: ByteReader
  private var remaining: Int64 = -1

  /// `section` as in `Record.headerSection`, valid while this is used.
  public init(section: UnsafeRawBufferPointer) { reader = ByteReader(section) }

  /// Name and value of the next header; nil after the last. Throws if the bytes are not headers.
  public mutating func next() throws(WireError) -> (name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer?)? {
    if remaining < 0 {
      remaining = try reader.varint()
      guard remaining >= 0, remaining <= Int64(reader.remaining) else {
        throw WireError(.malformed, "header count \(remaining) with \(reader.remaining) bytes left")
      }
    }
    if remaining == 0 {
      guard reader.remaining == 0 else {
        throw WireError(.malformed, "\(reader.remaining) bytes behind the last header")
      }
      return nil
    }
    let nameLength = try reader.varint()
    guard nameLength >= 0, nameLength <= Int64(reader.remaining) else {
      throw WireError(.malformed, "header name length \(nameLength)")
    }
    let name = try reader.bytes(Int(nameLength))
    let valueLength = try reader.varint()
    guard valueLength >= -1, valueLength <= Int64(reader.remaining) else {
      throw WireError(.malformed, "header value length \(valueLength)")
    }
    remaining -= 1
    return (name, valueLength < 0 ? nil : try reader.bytes(Int(valueLength)))
  }
}

/// Encodes a record's headers once, to be used for many records.
public struct HeaderSection: ~Copyable {
  private var headers = ByteWriter(capacity: 64)
  /// Number of headers.
  public private(set) var count: Int64 = 0

  public init() {}

  /// Adds a header. Names need not be unique.
  public mutating func append(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer?) {
    headers.varint(Int64(name.count))
    headers.bytes(name)
    headers.varint(value.map { Int64($0.count) } ?? -1)
    if let value { headers.bytes(value) }
    count += 1
  }

  /// Adds a header.
  public mutating func append(_ name: String, _ value: [UInt8]) {
    var name = name
    name.withUTF8 { name in value.withUnsafeBytes { append(UnsafeRawBufferPointer(name), $0) } }
  }

  /// The encoded section: count, then headers.
  public consuming func finish() -> ByteSlice {
    var section = ByteWriter(capacity: headers.count + 10)
    section.varint(count)
    section.bytes(headers.unsafeBytes)
    return section.finish()
  }

  /// A section without headers.
  public static let empty = ByteSlice([0])
}
