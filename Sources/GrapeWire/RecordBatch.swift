/// Kafka's record batch, version 2 (magic 2): the one format of events on sockets, in the log and at workers.
///
/// Layout and rules: the "Record Batch" section of the Kafka protocol documentation.
public enum RecordBatch {
  /// Bytes before the records.
  public static let headerSize = 61
  /// Timestamps that records may have, milliseconds since 1970 UTC: so wide that they are of use to nobody, and so
  /// narrow that the difference of any two can be computed.
  public static let timestamps = -(Int64(1) << 61)...(Int64(1) << 61)
  /// Where fields stand, in bytes from the batch's beginning.
  enum Field {
    static let baseOffset = 0
    static let length = 8
    static let leaderEpoch = 12
    static let magic = 16
    static let crc = 17
    static let attributes = 21
    static let lastOffsetDelta = 23
    static let baseTimestamp = 27
    static let maxTimestamp = 35
    static let producerId = 43
    static let producerEpoch = 51
    static let baseSequence = 53
    static let recordCount = 57
  }

  /// How the records are packed.
  public enum Compression: Int16, Sendable, CaseIterable {
    case none = 0
    case zstd = 4
  }

  /// Size of the batch at the beginning of `bytes`, from its length field.
  /// `truncated` if fewer than 12 bytes are there, `malformed` if the length is impossible.
  public static func size(at bytes: UnsafeRawBufferPointer) throws(WireError) -> Int {
    guard bytes.count >= 12 else {
      throw WireError(.truncated, "a record batch has at least \(headerSize) bytes, \(bytes.count) are left")
    }
    let length = Int(Int32(bigEndian: bytes.loadUnaligned(fromByteOffset: Field.length, as: Int32.self)))
    guard length >= headerSize - 12 else {
      throw WireError(.malformed, "batch length \(length): at least \(headerSize - 12) is legal")
    }
    return 12 + length
  }

  /// CRC-32C of the batch's bytes, as its CRC field should have it. Precondition: at least a header.
  public static func checksum(of batch: UnsafeRawBufferPointer) -> UInt32 {
    CRC32C.checksum(UnsafeRawBufferPointer(rebasing: batch[Field.attributes...]))
  }

  /// Writes the CRC into a batch. Precondition: at least a header; nobody else reads the bytes.
  public static func fillChecksum(_ batch: UnsafeMutableRawBufferPointer) {
    let crc = checksum(of: UnsafeRawBufferPointer(batch))
    batch.storeBytes(of: crc.bigEndian, toByteOffset: Field.crc, as: UInt32.self)
  }

  /// Writes the base offset into a batch; the CRC does not cover it. Precondition: at least a header.
  public static func setBaseOffset(_ offset: Int64, in batch: UnsafeMutableRawBufferPointer) {
    batch.storeBytes(of: offset.bigEndian, toByteOffset: Field.baseOffset, as: Int64.self)
  }
}

/// The fields of a batch's header.
public struct RecordBatchHeader: Sendable, Hashable {
  public var baseOffset: Int64
  /// Bytes of the whole batch.
  public var size: Int
  public var leaderEpoch: Int32
  public var crc: UInt32
  public var attributes: Int16
  /// Offset of the last record when the batch was made, less the base offset. Compaction leaves it as it is, so
  /// `recordCount` may be less than it plus one.
  public var lastOffsetDelta: Int32
  /// Milliseconds since 1970 UTC.
  public var baseTimestamp: Int64
  /// Milliseconds since 1970 UTC.
  public var maxTimestamp: Int64
  public var producerId: Int64
  public var producerEpoch: Int16
  public var baseSequence: Int32
  public var recordCount: Int32

  /// Reads the header of the batch at the beginning of `bytes`, which must hold the whole batch. Checks sizes, magic,
  /// counts and offsets, not the CRC.
  public init(_ bytes: UnsafeRawBufferPointer) throws(WireError) {
    size = try RecordBatch.size(at: bytes)
    guard bytes.count >= size else {
      throw WireError(.truncated, "the batch says it has \(size) bytes, \(bytes.count) are there")
    }
    func load<Value: FixedWidthInteger>(_ offset: Int, as: Value.Type = Value.self) -> Value {
      Value(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Value.self))
    }
    let magic: Int8 = load(RecordBatch.Field.magic)
    guard magic == 2 else { throw WireError(.unsupported, "magic \(magic): 2 is the only version taken") }
    baseOffset = load(RecordBatch.Field.baseOffset)
    leaderEpoch = load(RecordBatch.Field.leaderEpoch)
    crc = load(RecordBatch.Field.crc)
    attributes = load(RecordBatch.Field.attributes)
    lastOffsetDelta = load(RecordBatch.Field.lastOffsetDelta)
    baseTimestamp = load(RecordBatch.Field.baseTimestamp)
    maxTimestamp = load(RecordBatch.Field.maxTimestamp)
    producerId = load(RecordBatch.Field.producerId)
    producerEpoch = load(RecordBatch.Field.producerEpoch)
    baseSequence = load(RecordBatch.Field.baseSequence)
    recordCount = load(RecordBatch.Field.recordCount)
    guard recordCount >= 0, lastOffsetDelta >= 0 else {
      throw WireError(
        .malformed, "record count \(recordCount), last offset delta \(lastOffsetDelta): 0 or more is legal")
    }
    // So that the offset behind the last can be computed anywhere.
    guard baseOffset >= 0, baseOffset < Int64.max - Int64(lastOffsetDelta) else {
      throw WireError(
        .malformed, "base offset \(baseOffset) with last offset delta \(lastOffsetDelta): no such offsets are given")
    }
  }

  /// Codec number, the low three bits of the attributes.
  public var codec: Int16 { attributes & 7 }
  /// Part of a transaction.
  public var isTransactional: Bool { attributes & 0x10 != 0 }
  /// Holds transaction markers rather than records.
  public var isControl: Bool { attributes & 0x20 != 0 }
  /// The log has set the timestamps: each record's is `maxTimestamp`.
  public var hasLogTimestamp: Bool { attributes & 8 != 0 }
  /// Last offset the batch covers. Its record, like any other, may have gone by compaction.
  public var lastOffset: Int64 { baseOffset + Int64(lastOffsetDelta) }
}
