import GrapeLog
import GrapeWire

@testable import GrapeCommitLog

extension FuzzTarget {
  /// A commit group: its header, then its entries.
  static let commitGroup = FuzzTarget("commit-group") {
    var memory = [UInt8](repeating: 0, count: 4096)
    let batch = try Sample.batch()
    let count = memory.withUnsafeMutableBytes { memory in
      var encoder = EntryEncoder(memory)
      encoder.topicCreated(1, name: "flights.events", .init(partitions: 4, cleanup: .compact, retentionBytes: 1 << 30))
      _ = encoder.append(topic: 1, partition: 2, baseOffset: 7, batch: batch.unsafeBytes)
      encoder.offset(
        topic: 1, .init(group: "flights", partition: .init("", 2), committed: .init(offset: 9, metadata: [1, 2])))
      encoder.topicAltered(1, name: "flights.events", .init(partitions: 4, retentionMilliseconds: 5))
      encoder.topicDeleted(1)
      encoder.trimmed(topic: 1, partition: 0, start: 5)
      encoder.partitionState(topic: 1, partition: 0, PartitionState(start: 1, end: 9, greatestTimestamp: 5, bytes: 7))
      encoder.topicIDs(next: 2)
      encoder.groupDeleted("flights")
      GroupHeader(
        length: encoder.count, entryCount: encoder.entries, sequence: 1, durable: 0, time: 5, position: 4096, log: 3
      ).encode(into: UnsafeMutableRawBufferPointer(rebasing: memory[..<encoder.count]))
      return encoder.count
    }
    return [Array(memory[..<count])]
  } body: { bytes in
    try tryGroup(bytes)
    // With a header that fits, so that the entries are tried.
    guard bytes.count >= GroupHeader.byteCount else { return }
    var repaired = bytes.array
    repaired.withUnsafeMutableBytes {
      var header = GroupHeader(
        length: $0.count, entryCount: 1, sequence: 1, durable: 0, time: 0, position: 0, log: 0)
      header.entryCount = Int($0[15])
      header.encode(into: $0)
    }
    try tryGroup(ByteSlice(repaired))
  }

  private static func tryGroup(_ bytes: ByteSlice) throws {
    guard let header = GroupHeader(bytes.unsafeBytes), header.length <= bytes.count else { return }
    try promise(header.length >= GroupHeader.byteCount, "a group of \(header.length) bytes")
    let group = ByteSlice(copying: UnsafeRawBufferPointer(rebasing: bytes.unsafeBytes[..<header.length]))
    _ = GroupHeader.checks(group.unsafeBytes)
    var decoder = EntryDecoder(group: group.unsafeBytes)
    while let entry = try taken(EntryDecoder.Malformed.self, { try decoder.next() }), let entry {
      guard case .append(_, _, _, let range) = entry else { continue }
      touch(group[range].unsafeBytes)
    }
    withExtendedLifetime(group) {}
  }

  /// The first bytes of a segment file.
  static let segmentHeader = FuzzTarget("segment-header") {
    var seeds: [[UInt8]] = []
    let cleaned = SegmentHeader.Cleaned(sequences: 3...9, end: 8192, compacted: true, generation: 2)
    for cleaned in [nil, cleaned] {
      let header = SegmentHeader(
        identity: LogIdentity(high: 1, low: 2), base: 0, capacity: 1 << 20, created: 5, cleaned: cleaned)
      seeds.append(encoded(header))
    }
    return seeds
  } body: { bytes in
    _ = SegmentHeader.base(ofFile: bytes.string)
    var repaired = bytes.array
    repaired.withUnsafeMutableBytes {
      guard $0.count >= SegmentHeader.byteCount else { return }
      fillChecksum($0, of: 0..<60, at: 60)
      fillChecksum($0, of: 64..<92, at: 92)
    }
    for bytes in [bytes, ByteSlice(repaired)] {
      let base = bytes.count < 40 ? 0 : bytes.unsafeBytes.bigEndian(at: 32, as: Int64.self)
      guard
        let header = try taken(
          LogError.self, { try SegmentHeader(bytes.unsafeBytes, path: "segment", base: base) })
      else { continue }
      try promise(
        header.base >= 0 && header.upperBound > header.base, "positions \(header.base) to \(header.upperBound)")
      let reread = try encoded(header).withUnsafeBytes { try SegmentHeader($0, path: "segment", base: header.base) }
      try promise(reread == header && reread.fingerprint == header.fingerprint, "another header than was written")
    }
  }

  private static func encoded(_ header: SegmentHeader) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: SegmentHeader.byteCount)
    bytes.withUnsafeMutableBytes { header.encode(into: $0) }
    return bytes
  }

  /// Makes a CRC-32C fit the bytes that it covers.
  static func fillChecksum(_ bytes: UnsafeMutableRawBufferPointer, of covered: Range<Int>, at place: Int) {
    let crc = CRC32C.checksum(UnsafeRawBufferPointer(rebasing: bytes[covered]))
    bytes.storeBytes(of: crc.bigEndian, toByteOffset: place, as: UInt32.self)
  }
}
