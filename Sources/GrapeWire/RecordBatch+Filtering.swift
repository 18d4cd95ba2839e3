/// What log compaction looks at in a record. The key is valid while the batch's memory is, which the functions that
/// hand out this value guarantee for the time of the call only.
public struct RecordKey {
  /// The batch's base offset plus `offsetDelta`.
  public var offset: Int64
  public var offsetDelta: Int32
  public var key: UnsafeRawBufferPointer?
  /// The value is null: the record says that its key is gone.
  public var isTombstone: Bool
  /// Milliseconds since 1970 UTC.
  public var timestamp: Int64
}

extension RecordBatch {
  /// What `filtering` makes of a batch.
  public enum Filtered: Sendable {
    /// Every record is kept: the batch stays as it is.
    case unchanged
    /// No record is kept.
    case empty
    /// Some are: a batch of its own memory, with its CRC filled in.
    case batch(ByteSlice)
  }

  /// Visits the records of one whole batch in order, with gaps between their offsets or without. O(bytes), no allocation
  /// unless it is compressed.
  ///
  /// - Parameters:
  ///   - checkingCRC: false where the bytes were checked before and have not left memory since.
  ///   - limit: most bytes the records may have once unpacked; `tooLarge` beyond.
  /// - Throws: as `unpack`; `malformed` if the records do not follow each other in order within the batch's offsets.
  @discardableResult
  public static func forEachKey(
    _ batch: ByteSlice, checkingCRC: Bool, limit: Int, visit: (RecordKey) throws(WireError) -> Void
  ) throws(WireError) -> RecordBatchHeader {
    let unpacked = try unpack(batch, checkingCRC: checkingCRC, limit: limit)
    try walk(unpacked) { (key, _) throws(WireError) in try visit(key) }
    return unpacked.header
  }

  /// Leaves out the records for which `keep` says false. What is kept has the offset, the timestamp and the bytes that it had.
  ///
  /// The new batch covers the same offsets as the old one: base offset and last offset delta stay, so that readers can tell
  /// what is gone from what is to come. So do attributes, base timestamp and producer fields. The record count and the
  /// maximum timestamp are those of what is kept. A compressed batch is compressed anew, by the same codec, even where
  /// that makes few records larger. O(bytes); nothing is allocated before the first record that is left out, unless the batch
  /// is compressed.
  ///
  /// - Parameters:
  ///   - checkingCRC: false where the bytes were checked before and have not left memory since.
  ///   - limit: most bytes the records may have once unpacked; `tooLarge` beyond.
  ///   - compressor: for batches that are compressed; nil: one is made for the call.
  ///   - keep: called for each record in order. A batch without records is `unchanged`.
  /// - Throws: as `forEachKey`.
  public static func filtering(
    _ batch: ByteSlice, checkingCRC: Bool, limit: Int, compressor: ZstdCompressor? = nil,
    keeping keep: (RecordKey) throws(WireError) -> Bool
  ) throws(WireError) -> Filtered {
    let unpacked = try unpack(batch, checkingCRC: checkingCRC, limit: limit)
    let records = unpacked.records.unsafeBytes
    let isCompressed = unpacked.header.codec != Compression.none.rawValue
    var kept: Int32 = 0
    var maxTimestamp = Int64.min
    // Copied so far lies in `copy`, which begins with the first record left out; `run` is kept and not copied yet.
    var copy: ByteWriter?
    var run = 0..<0
    try walk(unpacked) { (key, range) throws(WireError) in
      if try keep(key) {
        kept += 1
        maxTimestamp = max(maxTimestamp, key.timestamp)
        run = (run.isEmpty ? range.lowerBound : run.lowerBound)..<range.upperBound
      } else {
        if copy == nil { copy = begin(batch, isCompressed: isCompressed, records: records.count) }
        copy?.bytes(UnsafeRawBufferPointer(rebasing: records[run]))
        run = range.upperBound..<range.upperBound
      }
    }
    guard var copy else { return .unchanged }
    guard kept > 0 else { return .empty }
    copy.bytes(UnsafeRawBufferPointer(rebasing: records[run]))
    if isCompressed {
      copy = try (compressor ?? ZstdCompressor()).withCompressed(copy.unsafeBytes) { packed in
        var writer = begin(batch, isCompressed: false, records: packed.count)
        writer.bytes(packed)
        return writer
      }
    }
    copy.patch(Int32(copy.count - 12), at: Field.length)
    copy.patch(kept, at: Field.recordCount)
    // With timestamps given by a log, the maximum is the timestamp of each record.
    if !unpacked.header.hasLogTimestamp { copy.patch(maxTimestamp, at: Field.maxTimestamp) }
    copy.patch(checksum(of: copy.unsafeBytes), at: Field.crc)
    withExtendedLifetime(unpacked) {}
    return .batch(copy.finish())
  }

  /// A copy of the header with room for the records, or room alone for records that will be compressed.
  private static func begin(_ batch: ByteSlice, isCompressed: Bool, records: Int) -> ByteWriter {
    var writer = ByteWriter(capacity: headerSize + records)
    if !isCompressed { writer.bytes(UnsafeRawBufferPointer(rebasing: batch.unsafeBytes[0..<headerSize])) }
    return writer
  }

  /// Visits each record with the bytes it takes, and holds its offset against those of the batch.
  @inline(__always)
  private static func walk(
    _ unpacked: UnpackedBatch, visit: (RecordKey, Range<Int>) throws(WireError) -> Void
  ) throws(WireError) {
    let header = unpacked.header
    var reader = unpacked.reader()
    var previous: Int32 = -1
    var start = 0
    while let record = try reader.next() {
      guard record.offsetDelta > previous, record.offsetDelta <= header.lastOffsetDelta else {
        throw WireError(
          .malformed,
          "offset delta \(record.offsetDelta) behind \(previous), in a batch whose last is \(header.lastOffsetDelta)")
      }
      previous = record.offsetDelta
      let (own, overflow) = header.baseTimestamp.addingReportingOverflow(record.timestampDelta)
      guard !overflow else {
        throw WireError(.malformed, "the record with offset delta \(previous) has an impossible timestamp")
      }
      let key = RecordKey(
        offset: header.baseOffset + Int64(record.offsetDelta), offsetDelta: record.offsetDelta, key: record.key,
        isTombstone: record.value == nil, timestamp: header.hasLogTimestamp ? header.maxTimestamp : own)
      try visit(key, start..<reader.position)
      start = reader.position
    }
    // The records' memory lives to here at least.
    withExtendedLifetime(unpacked) {}
  }
}
