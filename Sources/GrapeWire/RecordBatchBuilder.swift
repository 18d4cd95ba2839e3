/// Builds one record batch.
public struct RecordBatchBuilder: ~Copyable {
  private var writer: ByteWriter
  private var baseTimestamp: Int64 = 0
  private var maxTimestamp: Int64 = 0
  /// Records so far.
  public private(set) var recordCount: Int32 = 0

  /// Starts an empty batch with room for `capacity` bytes.
  public init(capacity: Int = 4096) {
    writer = ByteWriter(capacity: max(capacity, RecordBatch.headerSize))
    writer.skip(RecordBatch.headerSize)
  }

  /// Bytes so far, uncompressed, header included.
  public var byteCount: Int { writer.count }
  /// Nothing was appended yet.
  public var isEmpty: Bool { recordCount == 0 }

  /// Appends a record. `headerSection` as made by `HeaderSection`; `timestamp` in milliseconds since 1970 UTC.
  /// Copies everything. Precondition: the record is smaller than 1 GiB. A timestamp outside `RecordBatch.timestamps` makes
  /// a batch that no node takes.
  public mutating func append(
    key: UnsafeRawBufferPointer?, value: UnsafeRawBufferPointer?, headerSection: UnsafeRawBufferPointer,
    timestamp: Int64
  ) {
    if recordCount == 0 {
      baseTimestamp = timestamp
      maxTimestamp = timestamp
    } else if timestamp > maxTimestamp {
      maxTimestamp = timestamp
    }
    let timestampDelta = timestamp &- baseTimestamp
    let keyLength = key.map { Int64($0.count) } ?? -1
    let valueLength = value.map { Int64($0.count) } ?? -1
    let length =
      1 + varintSize(timestampDelta) + varintSize(Int64(recordCount)) + varintSize(keyLength) + max(0, Int(keyLength))
      + varintSize(valueLength) + max(0, Int(valueLength)) + headerSection.count
    var end = writer.appendPosition(reserving: length + 10)
    end = putVarint(Int64(length), at: end)
    end.storeBytes(of: 0, as: UInt8.self)
    end = putVarint(timestampDelta, at: end + 1)
    end = putVarint(Int64(recordCount), at: end)
    end = putVarint(keyLength, at: end)
    if let key { end = put(key, at: end) }
    end = putVarint(valueLength, at: end)
    if let value { end = put(value, at: end) }
    end = put(headerSection, at: end)
    writer.endAppend(at: end)
    recordCount += 1
  }

  /// Appends a record. The slices live at least until this returns, which pointers taken from passing values do not.
  public mutating func append(key: ByteSlice?, value: ByteSlice?, headerSection: ByteSlice, timestamp: Int64) {
    append(
      key: key?.unsafeBytes, value: value?.unsafeBytes, headerSection: headerSection.unsafeBytes, timestamp: timestamp)
    withExtendedLifetime((key, value, headerSection)) {}
  }

  /// A point to which `rollBack` can return.
  public struct Mark: Sendable {
    let bytes: Int
    let records: Int32
    let maxTimestamp: Int64
    /// Records at that point.
    public var recordCount: Int32 { records }
  }

  /// Where the batch stands now.
  public var mark: Mark { Mark(bytes: writer.count, records: recordCount, maxTimestamp: maxTimestamp) }

  /// Puts a number, big-endian, in the place of what was appended, to end at byte `end` of the batch as it is now (`byteCount`). Precondition: there are
  /// so many bytes.
  public mutating func patch<Value: FixedWidthInteger>(_ value: Value, endingAt end: Int) {
    precondition(end <= writer.count && end - MemoryLayout<Value>.size >= RecordBatch.headerSize)
    writer.patch(value, at: end - MemoryLayout<Value>.size)
  }

  /// Forgets the records appended since `mark`. Precondition: the mark is of this batch.
  public mutating func rollBack(to mark: Mark) {
    writer.truncate(to: mark.bytes)
    recordCount = mark.records
    maxTimestamp = mark.maxTimestamp
  }

  /// Ends the batch and starts a new, empty one. Precondition: at least one record.
  ///
  /// With a compressor the records are packed, unless that would make the batch larger. `nextCapacity`: bytes that the
  /// new batch has room for to begin with, not counting what it grows by.
  public mutating func take(compressor: ZstdCompressor? = nil, nextCapacity: Int = 4096) throws(WireError)
    -> FinishedBatch
  {
    precondition(recordCount > 0, "a batch has at least one record")
    fillHeader()
    let count = recordCount
    // Without a checksum: nobody asks for that of a batch that will be packed.
    var packed: ByteSlice?
    if let compressor { packed = try RecordBatch.packed(writer.unsafeBytes, by: compressor) }
    recordCount = 0
    let capacity = max(nextCapacity, RecordBatch.headerSize)
    let bytes: ByteSlice
    if let packed {
      bytes = packed
      // Nobody has seen the memory: the next records go there, unless a large batch left more than is needed.
      writer.restart(capacity...2 * capacity)
    } else {
      fillChecksum()
      bytes = writer.take(nextCapacity: capacity)
    }
    writer.skip(RecordBatch.headerSize)
    return FinishedBatch(bytes: bytes, recordCount: count, maxTimestamp: maxTimestamp)
  }
}

extension RecordBatchBuilder {
  /// Ends the batch in place: the bytes are valid until the next change. Nothing may be appended before `reset`.
  /// Precondition: at least one record.
  public mutating func seal() -> UnsafeRawBufferPointer {
    precondition(recordCount > 0, "a batch has at least one record")
    fillHeader()
    fillChecksum()
    return writer.unsafeBytes
  }

  /// Forgets all records and keeps the memory.
  public mutating func reset() {
    writer.truncate(to: RecordBatch.headerSize)
    recordCount = 0
  }

  private mutating func fillHeader() {
    writer.patch(Int64(0), at: RecordBatch.Field.baseOffset)
    writer.patch(Int32(writer.count - 12), at: RecordBatch.Field.length)
    writer.patch(Int32(-1), at: RecordBatch.Field.leaderEpoch)
    writer.patch(Int8(2), at: RecordBatch.Field.magic)
    writer.patch(RecordBatch.Compression.none.rawValue, at: RecordBatch.Field.attributes)
    writer.patch(recordCount - 1, at: RecordBatch.Field.lastOffsetDelta)
    writer.patch(baseTimestamp, at: RecordBatch.Field.baseTimestamp)
    writer.patch(maxTimestamp, at: RecordBatch.Field.maxTimestamp)
    writer.patch(Int64(-1), at: RecordBatch.Field.producerId)
    writer.patch(Int16(-1), at: RecordBatch.Field.producerEpoch)
    writer.patch(Int32(-1), at: RecordBatch.Field.baseSequence)
    writer.patch(recordCount, at: RecordBatch.Field.recordCount)
  }

  private mutating func fillChecksum() {
    writer.patch(RecordBatch.checksum(of: writer.unsafeBytes), at: RecordBatch.Field.crc)
  }
}

@inline(__always)
private func put(_ bytes: UnsafeRawBufferPointer, at position: UnsafeMutableRawPointer) -> UnsafeMutableRawPointer {
  guard let source = bytes.baseAddress else { return position }
  position.copyMemory(from: source, byteCount: bytes.count)
  return position + bytes.count
}

@inline(__always)
private func putVarint(_ value: Int64, at position: UnsafeMutableRawPointer) -> UnsafeMutableRawPointer {
  var position = position
  var rest = UInt64(bitPattern: (value << 1) ^ (value >> 63))
  while rest >= 0x80 {
    position.storeBytes(of: UInt8(truncatingIfNeeded: rest) | 0x80, as: UInt8.self)
    position += 1
    rest >>= 7
  }
  position.storeBytes(of: UInt8(truncatingIfNeeded: rest), as: UInt8.self)
  return position + 1
}

/// A record batch ready to be appended.
public struct FinishedBatch: Sendable {
  public var bytes: ByteSlice
  public var recordCount: Int32
  /// Milliseconds since 1970 UTC.
  public var maxTimestamp: Int64

  public init(bytes: ByteSlice, recordCount: Int32, maxTimestamp: Int64) {
    self.bytes = bytes
    self.recordCount = recordCount
    self.maxTimestamp = maxTimestamp
  }
}
