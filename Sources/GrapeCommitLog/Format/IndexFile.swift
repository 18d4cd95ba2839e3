import GrapeLog
import GrapeWire

/// The index of a sealed segment: for every partition that there was at the segment's end, what had become of it until
/// then, and where its batches in this segment are. Layout: docs/data-format.md.
///
/// It can be rebuilt from the segment (and the index before it), so it is never synchronised and never trusted: it
/// carries checksums and names the very file that it was made from.
struct IndexFile: Sendable {
  static let headerBytes = 72
  static let recordBytes = 64
  /// Where the header has the sequence of the segment's last group.
  static let lastSequenceOffset = 48
  static let version: UInt32 = 1
  private static let magic: UInt64 = 0x4752_4150_4549_4458  // "GRAPEIDX"

  static func fileName(base: Int64) -> String { SegmentHeader.fileName(base: base).dropLast(4) + ".index" }

  /// A partition as of the segment's end.
  struct Record: Sendable {
    var topic: TopicID
    var partition: Int32
    /// `start` is not kept here.
    var end: Int64
    var greatestTimestamp: Int64
    /// Of batches ever appended, until the segment's end.
    var bytes: UInt64
    /// Where in the index file the locations of its batches in the segment are.
    var runOffset: Int
    var runCount: Int
    var runBytes: Int
    var runCRC: UInt32
    /// Bytes of those batches.
    var batchBytes: UInt64

    /// Orders records: by topic, then by partition.
    var key: UInt64 { UInt64(topic) << 32 | UInt64(UInt32(bitPattern: partition)) }
  }

  let base: Int64
  let count: Int
  /// Positions in the segment are below it.
  private let upperBound: Int64
  /// Of the index file.
  private let fileBytes: Int64
  private let directory: ByteSlice
  /// The whole file, if it is held in memory.
  private let whole: ByteSlice?

  // MARK: Reading

  /// Reads header and directory. Nil if the file is not a sound index of `segment`.
  init?(_ file: any SegmentFile, of segment: Segment) throws(LogError) {
    let size = try file.size()
    let header = ByteStorage(capacity: Self.headerBytes)
    let target = UnsafeMutableRawBufferPointer(start: header.base, count: Self.headerBytes)
    guard try file.read(into: target, at: 0) == Self.headerBytes,
      let count = Self.check(UnsafeRawBufferPointer(target), size: size, of: segment)
    else { return nil }
    let bytes = count * Self.recordBytes
    let directory = ByteStorage(capacity: bytes)
    let place = UnsafeMutableRawBufferPointer(start: directory.base, count: bytes)
    guard try file.read(into: place, at: Int64(Self.headerBytes)) == bytes,
      UnsafeRawBufferPointer(target).bigEndian(at: 64) == CRC32C.checksum(UnsafeRawBufferPointer(place))
    else { return nil }
    base = segment.base
    upperBound = segment.upperBound
    fileBytes = size
    self.count = count
    self.directory = ByteSlice(storage: directory, offset: 0, count: bytes)
    whole = nil
  }

  /// Reads an index that is in memory. Nil if it is not a sound one of `segment`.
  init?(_ bytes: ByteSlice, of segment: Segment) {
    let all = bytes.unsafeBytes
    guard all.count >= Self.headerBytes, let count = Self.check(all, size: Int64(all.count), of: segment) else {
      return nil
    }
    let directory = bytes[Self.headerBytes..<Self.headerBytes + count * Self.recordBytes]
    guard all.bigEndian(at: 64) == CRC32C.checksum(directory.unsafeBytes) else { return nil }
    base = segment.base
    upperBound = segment.upperBound
    fileBytes = Int64(all.count)
    self.count = count
    self.directory = directory
    whole = bytes
  }

  /// The number of records that the header states; nil if it is damaged or another segment's.
  private static func check(_ fields: UnsafeRawBufferPointer, size: Int64, of segment: Segment) -> Int? {
    let count = Int(fields.bigEndian(at: 12, as: UInt32.self))
    guard fields.bigEndian(at: 0) == magic, fields.bigEndian(at: 8) == version,
      fields.bigEndian(at: 16) == segment.header.identity.high, fields.bigEndian(at: 24) == segment.header.identity.low,
      fields.bigEndian(at: 32) == segment.base, fields.bigEndian(at: 40) == segment.key.fingerprint,
      // A segment that was written on after a crash has the same header, but another end.
      fields.bigEndian(at: 48) == segment.lastSequence,
      fields.bigEndian(at: 68) == CRC32C.checksum(fields.part(0, 68)),
      fields.bigEndian(at: 56, as: Int64.self) == size, Int64(count) <= (size - Int64(headerBytes)) / Int64(recordBytes)
    else { return nil }
    return count
  }

  /// Bytes of memory it takes.
  var heldBytes: Int { whole?.count ?? directory.count }

  func record(_ place: Int) -> Record {
    directory.withUnsafeBytes { bytes in
      let at = place * Self.recordBytes
      return Record(
        topic: bytes.bigEndian(at: at), partition: bytes.bigEndian(at: at + 4), end: bytes.bigEndian(at: at + 8),
        greatestTimestamp: bytes.bigEndian(at: at + 16), bytes: bytes.bigEndian(at: at + 24),
        runOffset: Int(bytes.bigEndian(at: at + 32, as: Int64.self)),
        runCount: Int(bytes.bigEndian(at: at + 40, as: UInt32.self)),
        runBytes: Int(bytes.bigEndian(at: at + 44, as: UInt32.self)), runCRC: bytes.bigEndian(at: at + 48),
        batchBytes: bytes.bigEndian(at: at + 56))
    }
  }

  /// The partition's record; nil if there was no such partition when the segment ended. O(log n).
  func find(_ topic: TopicID, _ partition: Int32) -> Record? {
    let key = UInt64(topic) << 32 | UInt64(UInt32(bitPattern: partition))
    let place = directory.withUnsafeBytes { bytes in
      GrapeCommitLog.partition(count) { bytes.bigEndian(at: $0 * Self.recordBytes, as: UInt64.self) < key }
    }
    guard place < count else { return nil }
    let found = record(place)
    return found.key == key ? found : nil
  }

  /// Reads the locations of one partition's batches; `open` opens the file, should it be needed. Nil if they are
  /// damaged.
  func run<Failure: Error>(
    _ record: Record, open: () throws(Failure) -> any SegmentFile
  ) throws(Failure) -> [PartitionIndex.Location]? {
    if record.runCount == 0 { return [] }
    guard record.runOffset >= 0, record.runOffset <= fileBytes, record.runBytes <= fileBytes - Int64(record.runOffset)
    else { return nil }
    let bytes: ByteSlice
    if let whole {
      bytes = whole[record.runOffset..<record.runOffset + record.runBytes]
    } else {
      let file = try open()
      defer { file.close() }
      let storage = ByteStorage(capacity: record.runBytes)
      let target = UnsafeMutableRawBufferPointer(start: storage.base, count: record.runBytes)
      guard (try? file.read(into: target, at: Int64(record.runOffset))) == record.runBytes else { return nil }
      bytes = ByteSlice(storage: storage, offset: 0, count: record.runBytes)
    }
    return bytes.withUnsafeBytes { bytes in
      guard record.runCRC == CRC32C.checksum(bytes) else { return nil }
      return try? Self.decodeRun(bytes, count: record.runCount, in: base..<upperBound)
    }
  }

  /// All records, as what the next segment's index goes on from.
  func parts() -> [Part] {
    (0..<count).map { place in
      let record = record(place)
      return Part(
        topic: record.topic, partition: record.partition, end: record.end,
        greatestTimestamp: record.greatestTimestamp, bytes: record.bytes, run: [])
    }
  }

  /// Locations from their packed form: differences to the one before, as varints.
  static func decodeRun(
    _ bytes: UnsafeRawBufferPointer, count: Int, in positions: Range<Int64>
  ) throws(WireError) -> [PartitionIndex.Location] {
    guard count <= bytes.count / 4 else { throw WireError(.malformed, "\(count) locations in \(bytes.count) bytes") }
    var reader = ByteReader(bytes)
    var locations: [PartitionIndex.Location] = []
    locations.reserveCapacity(count)
    var last = PartitionIndex.Location(baseOffset: 0, position: positions.lowerBound, length: 0, maxTimestamp: 0)
    for _ in 0..<count {
      last.baseOffset &+= try reader.varint()
      last.position &+= try reader.varint()
      last.length = Int(try reader.varint())
      last.maxTimestamp &+= try reader.varint()
      guard last.baseOffset >= 0, positions.contains(last.position), last.length > 0,
        last.length <= positions.upperBound - last.position
      else {
        throw WireError(.malformed, "location \(locations.count) is impossible")
      }
      locations.append(last)
    }
    guard reader.remaining == 0 else { throw WireError(.malformed, "\(reader.remaining) bytes too many") }
    return locations
  }

  // MARK: Writing

  /// A partition's part of an index that is being made.
  struct Part {
    var topic: TopicID
    var partition: Int32
    var end: Int64
    var greatestTimestamp: Int64
    var bytes: UInt64
    var run: [PartitionIndex.Location]

    var key: UInt64 { UInt64(topic) << 32 | UInt64(UInt32(bitPattern: partition)) }
  }

  /// The file's bytes. `parts` in order of topic and partition.
  static func encode(_ parts: [Part], of segment: Segment) -> ByteSlice {
    let directoryBytes = parts.count * recordBytes
    var runs = ByteWriter(capacity: 64 << 10)
    var directory = ByteWriter(capacity: directoryBytes + 16)
    for part in parts {
      let start = runs.count
      var last = PartitionIndex.Location(baseOffset: 0, position: segment.base, length: 0, maxTimestamp: 0)
      var batchBytes: UInt64 = 0
      for location in part.run {
        runs.varint(location.baseOffset - last.baseOffset)
        runs.varint(location.position - last.position)
        runs.varint(Int64(location.length))
        runs.varint(location.maxTimestamp &- last.maxTimestamp)
        batchBytes += UInt64(location.length)
        last = location
      }
      directory.u32(part.topic)
      directory.i32(part.partition)
      directory.i64(part.end)
      directory.i64(part.greatestTimestamp)
      directory.u64(part.bytes)
      directory.i64(Int64(headerBytes + directoryBytes + start))
      directory.u32(UInt32(part.run.count))
      directory.u32(UInt32(runs.count - start))
      directory.u32(CRC32C.checksum(runs.unsafeBytes.part(start, runs.count - start)))
      directory.u32(0)
      directory.u64(batchBytes)
    }
    var file = ByteWriter(capacity: headerBytes + directoryBytes + runs.count)
    file.u64(magic)
    file.u32(version)
    file.u32(UInt32(parts.count))
    file.u64(segment.header.identity.high)
    file.u64(segment.header.identity.low)
    file.i64(segment.base)
    file.u64(segment.key.fingerprint)
    file.u64(segment.lastSequence)
    file.i64(Int64(headerBytes + directoryBytes + runs.count))
    file.u32(CRC32C.checksum(directory.unsafeBytes))
    let crc = CRC32C.checksum(file.unsafeBytes)
    file.u32(crc)
    file.bytes(directory.unsafeBytes)
    file.bytes(runs.unsafeBytes)
    return file.finish()
  }
}
