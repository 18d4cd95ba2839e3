internal import GrapeCore
internal import GrapeWire

/// Splits a batch whose sender left partitioning to the node.
enum BatchSplitter {
  /// One batch per partition that has events, in order of partition. Keyless events go to `keyless` together.
  static func split(
    _ batch: ByteSlice, partitions: Int32, keyless: Int32, limit: Int
  ) throws(WireError) -> [(partition: Int32, batch: FinishedBatch)] {
    let unpacked = try RecordBatch.unpack(batch, checkingCRC: true, limit: limit)
    var builders: [Int32: Part] = [:]
    var reader = unpacked.reader()
    while let record = try reader.next() {
      let partition = record.key.map { Partitioner.partition(forKey: $0, of: partitions) } ?? keyless
      let part: Part
      if let existing = builders[partition] {
        part = existing
      } else {
        part = Part()
        builders[partition] = part
      }
      part.builder.append(
        key: record.key, value: record.value, headerSection: record.headerSection,
        timestamp: unpacked.header.baseTimestamp + record.timestampDelta)
    }
    withExtendedLifetime(unpacked) {}
    let compressor = unpacked.header.codec == RecordBatch.Compression.zstd.rawValue ? ZstdCompressor() : nil
    var result: [(partition: Int32, batch: FinishedBatch)] = []
    for (partition, part) in builders.sorted(by: { $0.key < $1.key }) {
      result.append((partition, try part.builder.take(compressor: compressor)))
    }
    return result
  }

  private final class Part {
    var builder = RecordBatchBuilder(capacity: 4096)
  }
}
