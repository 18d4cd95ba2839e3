import GrapeLog
import GrapeWire

@testable import GrapeCommitLog

// Files that make a start or a search fast, and that nothing depends on: they may be anything.

extension FuzzTarget {
  /// A checkpoint: the state before a segment.
  static let checkpoint = FuzzTarget("checkpoint") {
    let topic = StateSnapshot.Topic(
      id: 1, name: "flights.events", configuration: TopicConfiguration(partitions: 2, retentionBytes: 5),
      partitions: [PartitionState(start: 1, end: 9, greatestTimestamp: 5, bytes: 100), PartitionState()])
    let snapshot = StateSnapshot(
      sequence: 7, nextTopicID: 2, topics: [topic],
      groups: ["flights": [TopicPartition("flights.events", 0): CommittedOffset(offset: 4, metadata: [1, 2])]])
    return [
      Checkpoint.encode(snapshot, base: 0, identity: LogIdentity(high: 1, low: 2)).array,
      Checkpoint.encode(StateSnapshot(), base: 1 << 20, identity: LogIdentity(high: 1, low: 2)).array,
    ]
  } body: { bytes in
    _ = Checkpoint.base(ofFile: bytes.string)
    var repaired = bytes.array
    repaired.withUnsafeMutableBytes { if $0.count >= 16 { fillChecksum($0, of: 16..<$0.count, at: 12) } }
    for bytes in [bytes, ByteSlice(repaired)] where bytes.count >= 40 {
      let raw = bytes.unsafeBytes
      let identity = LogIdentity(high: raw.bigEndian(at: 16), low: raw.bigEndian(at: 24))
      let base: Int64 = raw.bigEndian(at: 32)
      guard let snapshot = Checkpoint.decode(raw, base: base, identity: identity) else { continue }
      let again = Checkpoint.encode(snapshot, base: base, identity: identity)
      try promise(
        Checkpoint.decode(again.unsafeBytes, base: base, identity: identity) == snapshot,
        "another snapshot than was written")
      withExtendedLifetime(again) {}
    }
  }

  private static let segment = Segment(
    SegmentHeader(identity: LogIdentity(high: 1, low: 2), base: 1 << 20, capacity: 1 << 20, created: 5),
    lastSequence: 9)

  /// The index of a sealed segment: header, directory, and the locations of each partition's batches.
  static let indexFile = FuzzTarget("index-file") {
    let run = (0..<10).map {
      PartitionIndex.Location(
        baseOffset: Int64($0) * 100, position: segment.base + Int64($0) * 512, length: 300,
        maxTimestamp: 1_700_000_000_000 + Int64($0))
    }
    let parts = (0..<3).map {
      IndexFile.Part(
        topic: 1, partition: $0, end: 1_000, greatestTimestamp: 1_700_000_000_009, bytes: 3_000,
        run: $0 == 1 ? [] : run)
    }
    return [IndexFile.encode(parts, of: segment).array, IndexFile.encode([], of: segment).array]
  } body: { bytes in
    try tryIndex(bytes)
    var repaired = bytes.array
    repaired.withUnsafeMutableBytes { repairIndex($0) }
    try tryIndex(ByteSlice(repaired))
  }

  private static func tryIndex(_ bytes: ByteSlice) throws {
    guard let index = IndexFile(bytes, of: segment) else { return }
    try promise(index.parts().count == index.count, "\(index.parts().count) parts of \(index.count)")
    for place in 0..<index.count {
      let record = index.record(place)
      _ = index.find(record.topic, record.partition)
      guard let run = index.run(record, open: { () -> any SegmentFile in fatalError("the file is in memory") }) else {
        continue
      }
      try promise(run.count == record.runCount, "\(run.count) locations of \(record.runCount)")
      var memory = PartitionIndex()
      for location in run {
        try promise(
          location.length > 0 && location.position >= segment.base && location.baseOffset >= 0, "\(location)")
        try promise(location.position + Int64(location.length) <= segment.upperBound, "\(location) is outside")
        memory.append(location, segment: segment.base)
      }
    }
  }

  /// Makes header, directory and runs fit each other and the segment, as far as there is room.
  private static func repairIndex(_ bytes: UnsafeMutableRawBufferPointer) {
    guard bytes.count >= IndexFile.headerBytes else { return }
    let good = IndexFile.encode([], of: segment)
    let room = (bytes.count - IndexFile.headerBytes) / IndexFile.recordBytes
    let count = min(Int(UnsafeRawBufferPointer(bytes).bigEndian(at: 12, as: UInt32.self)), room)
    UnsafeMutableRawBufferPointer(rebasing: bytes[..<IndexFile.headerBytes]).copyMemory(from: good.unsafeBytes)
    bytes.storeBytes(of: UInt32(count).bigEndian, toByteOffset: 12, as: UInt32.self)
    bytes.storeBytes(of: Int64(bytes.count).bigEndian, toByteOffset: 56, as: Int64.self)
    for place in 0..<count {
      let at = IndexFile.headerBytes + place * IndexFile.recordBytes
      let raw = UnsafeRawBufferPointer(bytes)
      let (start, size) = (
        raw.bigEndian(at: at + 32, as: Int64.self), Int64(raw.bigEndian(at: at + 44, as: UInt32.self))
      )
      if start >= 0, start <= bytes.count, size <= Int64(bytes.count) - start {
        fillChecksum(bytes, of: Int(start)..<Int(start + size), at: at + 48)
      }
    }
    let directory = IndexFile.headerBytes..<IndexFile.headerBytes + count * IndexFile.recordBytes
    fillChecksum(bytes, of: directory, at: 64)
    fillChecksum(bytes, of: 0..<68, at: 68)
    withExtendedLifetime(good) {}
  }
}
