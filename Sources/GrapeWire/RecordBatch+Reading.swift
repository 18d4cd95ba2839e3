/// A batch whose records can be walked: the bytes as they came if they are not compressed, unpacked ones otherwise.
public struct UnpackedBatch: Sendable {
  public let header: RecordBatchHeader
  /// The bytes behind the header, not compressed.
  public let records: ByteSlice

  /// Walks the records. The reader is valid while this value (or its `records`) is alive.
  public func reader() -> RecordReader { RecordReader(records: records.unsafeBytes, count: header.recordCount) }
}

extension RecordBatch {
  /// Opens the batch that `batch` holds: reads its header, checks the CRC if asked to, unpacks it if needed.
  ///
  /// - Parameters:
  ///   - checkingCRC: false where the bytes were checked before and have not left memory since.
  ///   - limit: most bytes the records may have once unpacked; `tooLarge` beyond.
  public static func unpack(_ batch: ByteSlice, checkingCRC: Bool, limit: Int) throws(WireError) -> UnpackedBatch {
    let header = try RecordBatchHeader(batch.unsafeBytes)
    guard header.size == batch.count else {
      throw WireError(.malformed, "\(batch.count - header.size) bytes behind the batch of \(header.size)")
    }
    if checkingCRC {
      let actual = checksum(of: batch.unsafeBytes)
      guard actual == header.crc else {
        throw WireError(.checksum, "the batch says CRC-32C \(hex(header.crc)), its bytes have \(hex(actual))")
      }
    }
    let packed = batch[headerSize..<batch.count]
    switch header.codec {
    case Compression.none.rawValue:
      guard packed.count <= limit else {
        throw WireError(.tooLarge, "the batch has \(packed.count) bytes of records, \(limit) are allowed")
      }
      return UnpackedBatch(header: header, records: packed)
    case Compression.zstd.rawValue:
      return UnpackedBatch(header: header, records: try Zstd.decompress(packed.unsafeBytes, limit: limit))
    default:
      throw WireError(.unsupported, "compression codec \(header.codec): 0 (none) and 4 (zstd) are taken")
    }
  }

  /// Checks a batch that comes from outside, down to its last record, by the rules of docs/protocol.md, and calls
  /// `visit` for each record. O(bytes), no allocation unless it is compressed.
  ///
  /// - Parameters:
  ///   - checkingCRC: false for a batch whose CRC the sender left to be filled in.
  ///   - limit: most bytes the records may have once unpacked.
  public static func validate(
    _ batch: ByteSlice, checkingCRC: Bool, limit: Int, visit: (Record) throws(WireError) -> Void
  ) throws(WireError) -> RecordBatchHeader {
    let unpacked = try unpack(batch, checkingCRC: checkingCRC, limit: limit)
    let header = unpacked.header
    guard !header.isControl, !header.isTransactional else {
      throw WireError(.unsupported, "control and transactional batches are not taken")
    }
    guard header.attributes & ~7 == 0 else {
      throw WireError(.unsupported, "attributes \(header.attributes): only the codec may be set")
    }
    guard header.producerId == -1, header.producerEpoch == -1, header.baseSequence == -1 else {
      throw WireError(
        .unsupported,
        "producer id \(header.producerId), epoch \(header.producerEpoch), sequence \(header.baseSequence): -1 each is expected"
      )
    }
    guard header.recordCount > 0, header.lastOffsetDelta == header.recordCount - 1 else {
      throw WireError(
        .malformed,
        "\(header.recordCount) records with last offset delta \(header.lastOffsetDelta): one record or more, and the delta one less"
      )
    }
    guard header.baseOffset == 0 else {
      throw WireError(.malformed, "base offset \(header.baseOffset): 0 is expected, the log assigns offsets")
    }
    guard timestamps.contains(header.baseTimestamp) else {
      throw WireError(.malformed, "base timestamp \(header.baseTimestamp) is impossible")
    }
    var reader = unpacked.reader()
    var expected: Int32 = 0
    var maxTimestamp = Int64.min
    while let record = try reader.next() {
      guard record.offsetDelta == expected else {
        throw WireError(.malformed, "record \(expected) has offset delta \(record.offsetDelta)")
      }
      expected += 1
      let (timestamp, overflow) = header.baseTimestamp.addingReportingOverflow(record.timestampDelta)
      guard !overflow, timestamps.contains(timestamp) else {
        throw WireError(.malformed, "record \(expected - 1) has an impossible timestamp")
      }
      maxTimestamp = max(maxTimestamp, timestamp)
      try visit(record)
    }
    guard maxTimestamp == header.maxTimestamp else {
      throw WireError(.malformed, "max timestamp \(header.maxTimestamp), the records have \(maxTimestamp)")
    }
    // The slice lives to here at least, and with it the records' pointers.
    withExtendedLifetime(unpacked) {}
    return header
  }

  /// Splits `bytes` (batches one after the other) into one slice each. The last must be whole.
  public static func split(_ bytes: ByteSlice) throws(WireError) -> [ByteSlice] {
    var batches: [ByteSlice] = []
    var position = 0
    while position < bytes.count {
      let rest = bytes[position..<bytes.count]
      let size = try size(at: rest.unsafeBytes)
      guard size <= rest.count else {
        throw WireError(.truncated, "the batch at byte \(position) says \(size) bytes, \(rest.count) are left")
      }
      batches.append(rest[0..<size])
      position += size
    }
    return batches
  }
}

func hex(_ value: UInt32) -> String {
  let digits = String(value, radix: 16)
  return "0x" + String(repeating: "0", count: 8 - digits.count) + digits
}

extension RecordBatch {
  /// The same batch without compression, CRC filled in; the batch itself if it is not compressed.
  public static func uncompressed(_ batch: ByteSlice, limit: Int) throws(WireError) -> ByteSlice {
    let unpacked = try unpack(batch, checkingCRC: false, limit: limit)
    guard unpacked.header.codec != Compression.none.rawValue else { return batch }
    var writer = ByteWriter(capacity: headerSize + unpacked.records.count)
    writer.bytes(UnsafeRawBufferPointer(rebasing: batch.unsafeBytes[0..<headerSize]))
    writer.bytes(unpacked.records.unsafeBytes)
    writer.patch(Int32(writer.count - 12), at: Field.length)
    writer.patch(unpacked.header.attributes & ~7, at: Field.attributes)
    writer.patch(checksum(of: writer.unsafeBytes), at: Field.crc)
    return writer.finish()
  }
}
