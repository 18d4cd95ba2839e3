public import GrapeCore
public import GrapeWire

/// What workers write to topics that are not Grape's.
extension ApplicationEngine {
  /// Holds an output against the format and against what such topics may get: plain records, null values and keys
  /// included, without headers of Grape's.
  func checkExternal(
    _ output: WorkerResult.Output, partitions: Int32, crcLeft: Bool
  ) throws(StatusError) -> RecordBatchHeader {
    try PlainRecords.check(
      output.batch, topic: output.topic, partition: output.partition, of: partitions, checkingCRC: !crcLeft,
      eventLimit: environment.eventLimit, batchLimit: environment.batchLimit)
  }
}

/// Records for topics that are not Grape's.
public enum PlainRecords {
  /// Checks a batch down to its last record. Throws `bad-request` or `too-large`, saying what is wrong.
  ///
  /// - Parameters:
  ///   - eventLimit: bytes of key + value + headers of one record.
  ///   - batchLimit: bytes of the records, unpacked.
  public static func check(
    _ batch: ByteSlice, topic: String, partition: Int32, of partitions: Int32, checkingCRC: Bool, eventLimit: Int,
    batchLimit: Int
  ) throws(StatusError) -> RecordBatchHeader {
    guard partition >= 0, partition < partitions else {
      throw StatusError(.badRequest, "\(topic) has no partition \(partition), it has \(partitions)")
    }
    // Runs of equal headers are looked at once.
    var last: UnsafeRawBufferPointer?
    do throws(WireError) {
      return try RecordBatch.validate(batch, checkingCRC: checkingCRC, limit: batchLimit) {
        (record) throws(WireError) in
        let size = (record.key?.count ?? 0) + (record.value?.count ?? 0) + record.headerSection.count
        guard size <= eventLimit else {
          throw WireError(
            .tooLarge,
            "record \(record.offsetDelta) has \(size) bytes (key, value and headers); \(eventLimit) are allowed")
        }
        if let last, last.elementsEqual(record.headerSection) { return }
        var headers = record.headers
        while let (name, _) = try headers.next() {
          guard !HeaderName.isReserved(name) else {
            throw WireError(
              .malformed,
              "record \(record.offsetDelta) has the header \(String(decoding: name, as: UTF8.self)), which is Grape's "
                + "and not for a topic of others")
          }
        }
        last = record.headerSection
      }
    } catch {
      throw StatusError(
        error.code == .tooLarge ? .tooLarge : .badRequest, "record batch for \(topic): \(error.message)")
    }
  }
}
