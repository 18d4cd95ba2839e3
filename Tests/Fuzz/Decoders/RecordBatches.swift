import GrapeCore
import GrapeWire

@testable import GrapeNode

extension FuzzTarget {
  /// Record batches, as they come from clients, from workers, and from disk.
  static let recordBatch = FuzzTarget("record-batch") {
    [
      try Sample.batch().array, try Sample.batch(30, zstd: true).array, try Sample.batchWithGaps().array,
      try Sample.batch(1).array,
    ]
  } body: { bytes in
    _ = try taken { try RecordBatch.split(bytes) }
    try tryBatch(bytes, checkingCRC: true)
    if let repaired = repaired(bytes) { try tryBatch(repaired, checkingCRC: true) }
  }

  /// The bytes with a length, a magic and a CRC that fit, so that more than these is tried.
  static func repaired(_ bytes: ByteSlice) -> ByteSlice? {
    guard bytes.count >= RecordBatch.headerSize else { return nil }
    var array = bytes.array
    array.withUnsafeMutableBytes {
      $0.storeBytes(of: Int32($0.count - 12).bigEndian, toByteOffset: 8, as: Int32.self)
      $0[16] = 2
      RecordBatch.fillChecksum($0)
    }
    return ByteSlice(array)
  }

  private static let limit = 1 << 16

  private static func tryBatch(_ batch: ByteSlice, checkingCRC: Bool) throws {
    var visited = 0
    let validated = try taken {
      try RecordBatch.validate(batch, checkingCRC: checkingCRC, limit: limit) { record throws(WireError) in
        visited += 1
        touch(record.key)
        touch(record.value)
        touch(record.headerSection)
        // Headers are not held against anything here; they must still be safe to read.
        var headers = record.headers
        do throws(WireError) { while let (name, value) = try headers.next() { touch(name); touch(value) } } catch {}
      }
    }
    if let validated {
      try promise(visited == Int(validated.recordCount), "\(visited) records visited of \(validated.recordCount)")
      try trySplitting(batch, validated)
    }
    guard let offsets = try offsets(of: batch) else {
      return try promise(validated == nil, "a valid batch cannot be walked")
    }
    try tryFiltering(batch, offsets)
    if let plain = try taken({ try RecordBatch.uncompressed(batch, limit: limit) }) {
      try promise(try Self.offsets(of: plain) == offsets, "other records once it is not compressed")
    }
  }

  /// Offsets of the records; nil if the batch is refused.
  private static func offsets(of batch: ByteSlice) throws -> [Int64]? {
    var offsets: [Int64] = []
    let header = try taken {
      try RecordBatch.forEachKey(batch, checkingCRC: true, limit: limit) { record in
        touch(record.key)
        offsets.append(record.offset)
      }
    }
    guard let header else { return nil }
    try promise(offsets.count == Int(header.recordCount), "\(offsets.count) of \(header.recordCount) records")
    try promise(zip(offsets, offsets.dropFirst()).allSatisfy { $0 < $1 }, "offsets do not ascend")
    try promise(
      offsets.allSatisfy { $0 >= header.baseOffset && $0 <= header.lastOffset }, "a record lies outside the batch")
    return offsets
  }

  private static func tryFiltering(_ batch: ByteSlice, _ offsets: [Int64]) throws {
    let header = try RecordBatchHeader(batch.unsafeBytes)
    for pattern in [UInt64(0), 0x5555_5555_5555_5555, 0xff00_ff00_ff0f_f0f0, .max, UInt64(header.crc) << 16 | 1] {
      func isKept(_ offset: Int64) -> Bool { pattern >> UInt64(offset & 63) & 1 == 1 }
      let kept = offsets.filter(isKept)
      switch try RecordBatch.filtering(batch, checkingCRC: true, limit: limit, keeping: { isKept($0.offset) }) {
      case .unchanged: try promise(kept == offsets, "unchanged, though records were to go")
      case .empty: try promise(kept.isEmpty && !offsets.isEmpty, "empty, though records were to stay")
      case .batch(let filtered):
        try promise(!kept.isEmpty && kept.count < offsets.count, "a batch where none was due")
        try promise(try Self.offsets(of: filtered) == kept, "other records are left than were to be kept")
        var wanted = header
        let new = try RecordBatchHeader(filtered.unsafeBytes)
        (wanted.size, wanted.crc, wanted.recordCount) = (filtered.count, new.crc, Int32(kept.count))
        wanted.maxTimestamp = new.maxTimestamp
        try promise(new == wanted, "header \(new), expected \(wanted)")
      }
    }
  }

  /// What the node does with a batch of partition -1.
  private static func trySplitting(_ batch: ByteSlice, _ header: RecordBatchHeader) throws {
    var total: Int32 = 0
    for (partition, part) in try BatchSplitter.split(batch, partitions: 4, keyless: 3, limit: limit) {
      try promise((0..<4).contains(partition), "partition \(partition) of 4")
      let found = try RecordBatch.validate(part.bytes, checkingCRC: true, limit: limit) { _ in }
      try promise(
        found.recordCount == part.recordCount && found.maxTimestamp == part.maxTimestamp, "a part that is not described"
      )
      total += found.recordCount
    }
    try promise(total == header.recordCount, "\(total) records in the parts of \(header.recordCount)")
  }
}
