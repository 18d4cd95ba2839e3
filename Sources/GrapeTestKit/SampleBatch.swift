public import GrapeLog
public import GrapeWire

/// Small record batches for tests.
public enum SampleBatch {
  /// An append of one batch with a record per value, without keys or headers, all with the same timestamp
  /// (milliseconds since 1970 UTC).
  public static func append(
    _ values: [String], to partition: TopicPartition, timestamp: Int64 = 1_000
  ) -> Transaction.Append {
    var builder = RecordBatchBuilder(capacity: 64 + values.reduce(0) { $0 + $1.utf8.count + 16 })
    for value in values {
      var value = value
      value.withUTF8 { bytes in
        withUnsafeBytes(of: UInt8(0)) { noHeaders in
          builder.append(
            key: nil, value: UnsafeRawBufferPointer(bytes), headerSection: noHeaders, timestamp: timestamp)
        }
      }
    }
    let finished: FinishedBatch
    do throws(WireError) {
      finished = try builder.take(nextCapacity: 0)
    } catch {
      preconditionFailure("an uncompressed batch can always be built: \(error)")
    }
    return Transaction.Append(
      partition, batch: finished.bytes, maxTimestamp: finished.maxTimestamp, recordCount: finished.recordCount)
  }

  /// An append of one batch with a record per pair of key and value; nil is null, a null value a tombstone.
  public static func append(
    pairs: [(key: String?, value: String?)], to partition: TopicPartition, timestamp: Int64 = 1_000
  ) -> Transaction.Append {
    var builder = RecordBatchBuilder(capacity: 256)
    for (key, value) in pairs {
      let key = key.map { slice(Array($0.utf8)) }
      let value = value.map { slice(Array($0.utf8)) }
      builder.append(key: key, value: value, headerSection: slice([0]), timestamp: timestamp)
    }
    let finished: FinishedBatch
    do throws(WireError) {
      finished = try builder.take(nextCapacity: 0)
    } catch {
      preconditionFailure("an uncompressed batch can always be built: \(error)")
    }
    return Transaction.Append(
      partition, batch: finished.bytes, maxTimestamp: finished.maxTimestamp, recordCount: finished.recordCount)
  }

  private static func slice(_ bytes: [UInt8]) -> ByteSlice { bytes.withUnsafeBytes { ByteSlice(copying: $0) } }

  /// The records in a batch with keys; null is nil. Errors: what is wrong with the batch, its CRC included.
  public static func pairs(
    in batch: LogBatch
  ) throws(WireError) -> [(offset: Int64, key: String?, value: String?)] {
    let unpacked = try RecordBatch.unpack(batch.bytes, checkingCRC: true, limit: 1 << 30)
    var reader = unpacked.reader()
    var records: [(offset: Int64, key: String?, value: String?)] = []
    while let record = try reader.next() {
      records.append(
        (
          unpacked.header.baseOffset + Int64(record.offsetDelta),
          record.key.map { String(decoding: $0, as: UTF8.self) },
          record.value.map { String(decoding: $0, as: UTF8.self) }
        ))
    }
    withExtendedLifetime(unpacked) {}
    return records
  }

  /// The values in a batch, with their offsets. Errors: what is wrong with the batch, its CRC included.
  public static func records(in batch: LogBatch) throws(WireError) -> [(offset: Int64, value: String)] {
    let unpacked = try RecordBatch.unpack(batch.bytes, checkingCRC: true, limit: 1 << 30)
    var reader = unpacked.reader()
    var records: [(offset: Int64, value: String)] = []
    while let record = try reader.next() {
      records.append(
        (
          unpacked.header.baseOffset + Int64(record.offsetDelta),
          record.value.map { String(decoding: $0, as: UTF8.self) } ?? ""
        ))
    }
    withExtendedLifetime(unpacked) {}
    return records
  }
}
