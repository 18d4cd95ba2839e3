import GrapeLog
import GrapeWire

/// What the groups before a segment add up to, so that a start need not read them.
struct StateSnapshot: Sendable, Equatable {
  struct Topic: Sendable, Equatable {
    var id: TopicID
    var name: String
    var configuration: TopicConfiguration
    var partitions: [PartitionState]
  }

  /// Of the last group.
  var sequence: UInt64 = 0
  var nextTopicID: TopicID = 1
  var topics: [Topic] = []
  var groups: [String: [TopicPartition: CommittedOffset]] = [:]
}

/// The file form of a snapshot. Layout: docs/data-format.md. Like an index it is an accelerator only: checked, never
/// synchronised, never needed.
enum Checkpoint {
  static let version: UInt32 = 1
  private static let magic: UInt64 = 0x4752_4150_4543_4b50  // "GRAPECKP"

  /// Of the state before the segment that begins at `base`.
  static func fileName(base: Int64) -> String { SegmentHeader.fileName(base: base).dropLast(4) + ".checkpoint" }

  /// The base that a file's name states; nil if it is not a checkpoint's name.
  static func base(ofFile name: String) -> Int64? {
    guard name.hasSuffix(".checkpoint") else { return nil }
    return SegmentHeader.base(ofFile: name.dropLast(11) + ".log")
  }

  static func encode(_ snapshot: StateSnapshot, base: Int64, identity: LogIdentity) -> ByteSlice {
    var writer = ByteWriter(capacity: 4_096)
    writer.u64(magic)
    writer.u32(version)
    writer.u32(0)
    writer.u64(identity.high)
    writer.u64(identity.low)
    writer.i64(base)
    writer.u64(snapshot.sequence)
    writer.u32(snapshot.nextTopicID)
    writer.u32(UInt32(snapshot.topics.count))
    for topic in snapshot.topics { encode(topic, &writer) }
    writer.u32(UInt32(snapshot.groups.count))
    for (group, offsets) in snapshot.groups.sorted(by: { $0.key < $1.key }) {
      writer.string16(group)
      writer.u32(UInt32(offsets.count))
      for (partition, committed) in offsets {
        writer.string16(partition.topic)
        writer.i32(partition.partition)
        writer.i64(committed.offset)
        writer.u32(UInt32(committed.metadata.count))
        writer.bytes(committed.metadata)
      }
    }
    writer.patch(CRC32C.checksum(writer.unsafeBytes.part(16, writer.count - 16)), at: 12)
    return writer.finish()
  }

  private static func encode(_ topic: StateSnapshot.Topic, _ writer: inout ByteWriter) {
    let configuration = topic.configuration
    writer.u32(topic.id)
    writer.string16(topic.name)
    writer.u8(configuration.cleanup.rawValue)
    var flags: UInt8 = 0
    if configuration.retentionMilliseconds != nil { flags |= 1 }
    if configuration.retentionBytes != nil { flags |= 2 }
    if configuration.dropsUnconsumed { flags |= 4 }
    writer.u8(flags)
    writer.i64(configuration.retentionMilliseconds ?? 0)
    writer.i64(configuration.retentionBytes ?? 0)
    writer.u32(UInt32(topic.partitions.count))
    for partition in topic.partitions {
      writer.i64(partition.start)
      writer.i64(partition.end)
      writer.i64(partition.greatestTimestamp)
      writer.u64(partition.bytes)
    }
  }

  /// The snapshot in `bytes`; nil if they are not a sound checkpoint of this log for `base`.
  static func decode(_ bytes: UnsafeRawBufferPointer, base: Int64, identity: LogIdentity) -> StateSnapshot? {
    guard bytes.count >= 64, bytes.bigEndian(at: 0) == magic, bytes.bigEndian(at: 8) == version,
      bytes.bigEndian(at: 12) == CRC32C.checksum(bytes.part(16, bytes.count - 16)),
      bytes.bigEndian(at: 16) == identity.high, bytes.bigEndian(at: 24) == identity.low,
      bytes.bigEndian(at: 32) == base
    else { return nil }
    return try? decodeBody(bytes)
  }

  private static func decodeBody(_ bytes: UnsafeRawBufferPointer) throws(WireError) -> StateSnapshot {
    var reader = ByteReader(bytes)
    _ = try reader.bytes(40)
    var snapshot = StateSnapshot()
    snapshot.sequence = try reader.u64()
    snapshot.nextTopicID = try reader.u32()
    for _ in 0..<(try reader.u32()) { snapshot.topics.append(try decodeTopic(&reader)) }
    for _ in 0..<(try reader.u32()) {
      let group = try reader.string16()
      var offsets: [TopicPartition: CommittedOffset] = [:]
      for _ in 0..<(try reader.u32()) {
        let partition = TopicPartition(try reader.string16(), try reader.i32())
        let offset = try reader.i64()
        let length = Int(try reader.u32())
        offsets[partition] = CommittedOffset(offset: offset, metadata: [UInt8](try reader.bytes(length)))
      }
      snapshot.groups[group] = offsets
    }
    guard reader.remaining == 0 else { throw WireError(.malformed, "\(reader.remaining) bytes too many") }
    return snapshot
  }

  private static func decodeTopic(_ reader: inout ByteReader) throws(WireError) -> StateSnapshot.Topic {
    let id = try reader.u32()
    let name = try reader.string16()
    guard let cleanup = CleanupPolicy(rawValue: try reader.u8()) else {
      throw WireError(.malformed, "an unknown cleanup policy")
    }
    let flags = try reader.u8()
    let milliseconds = try reader.i64()
    let size = try reader.i64()
    let count = try reader.u32()
    guard (1...10_000).contains(count) else { throw WireError(.malformed, "\(count) partitions") }
    var partitions: [PartitionState] = []
    partitions.reserveCapacity(Int(count))
    for _ in 0..<count {
      partitions.append(
        PartitionState(
          start: try reader.i64(), end: try reader.i64(), greatestTimestamp: try reader.i64(),
          bytes: try reader.u64()))
    }
    return StateSnapshot.Topic(
      id: id, name: name,
      configuration: TopicConfiguration(
        partitions: Int32(count), cleanup: cleanup, retentionMilliseconds: flags & 1 == 0 ? nil : milliseconds,
        retentionBytes: flags & 2 == 0 ? nil : size, dropsUnconsumed: flags & 4 != 0),
      partitions: partitions)
  }
}
