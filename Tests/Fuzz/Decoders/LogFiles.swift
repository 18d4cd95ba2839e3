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
      encoder.topicDeleted(1)
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
    var bytes = [UInt8](repeating: 0, count: SegmentHeader.byteCount)
    bytes.withUnsafeMutableBytes {
      SegmentHeader(identity: LogIdentity(high: 1, low: 2), base: 0, capacity: 1 << 20, created: 5).encode(into: $0)
    }
    return [bytes]
  } body: { bytes in
    _ = SegmentHeader.base(ofFile: bytes.string)
    var repaired = bytes.array
    repaired.withUnsafeMutableBytes {
      guard $0.count >= SegmentHeader.byteCount else { return }
      let crc = CRC32C.checksum(UnsafeRawBufferPointer(rebasing: $0[0..<60]))
      $0.storeBytes(of: crc.bigEndian, toByteOffset: 60, as: UInt32.self)
    }
    for bytes in [bytes, ByteSlice(repaired)] {
      let base = bytes.count < 40 ? 0 : bytes.unsafeBytes.loadUnaligned(fromByteOffset: 32, as: Int64.self).bigEndian
      guard
        let header = try taken(
          LogError.self, { try SegmentHeader(bytes.unsafeBytes, path: "segment", base: base) })
      else { continue }
      var again = [UInt8](repeating: 0, count: SegmentHeader.byteCount)
      again.withUnsafeMutableBytes { header.encode(into: $0) }
      let reread = try again.withUnsafeBytes { try SegmentHeader($0, path: "segment", base: header.base) }
      try promise(reread == header, "another header than was written")
    }
  }
}
