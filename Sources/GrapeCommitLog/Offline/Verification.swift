public import GrapeLog
import GrapeWire

/// What a check of a log's files found.
public struct VerificationReport: Sendable {
  /// Something that is not as it was written.
  public struct Problem: Sendable, CustomStringConvertible {
    public var file: String
    /// Where in the file, in bytes.
    public var fileOffset: Int64
    /// The partition and offsets concerned, where they are known.
    public var partition: TopicPartition?
    public var offsets: Range<Int64>?
    public var message: String

    public var description: String {
      var text = "\(file): byte \(fileOffset): \(message)"
      if let partition { text += ", \(partition)" }
      if let offsets { text += " offsets \(offsets.lowerBound) to \(offsets.upperBound - 1)" }
      return text
    }
  }

  public var segments = 0
  public var groups: UInt64 = 0
  public var batches: UInt64 = 0
  public var records: UInt64 = 0
  /// Bytes of groups.
  public var bytes: Int64 = 0
  /// The first 1,000 problems; `problemCount` counts all.
  public var problems: [Problem] = []
  public var problemCount = 0
  /// What stands behind the last group, if it is not zeros. No problem: the next start cuts it, or a node is writing
  /// it just now.
  public var tail: String?

  public init() {}

  mutating func add(_ problem: Problem) {
    problemCount += 1
    if problems.count < 1_000 { problems.append(problem) }
  }
}

extension CommitLog {
  /// Checks every segment, group, batch and offset of the data directory `directory`, read-only, whether or not a
  /// node runs there. Goes on behind damage as far as it can.
  ///
  /// - Parameter positions: only segments that have something of this range of logical positions; what is said about
  ///   records that are missing holds within it.
  /// - Parameter progress: called now and then with bytes done and bytes in all.
  /// - Throws: only where reading itself is impossible; damage is in the report.
  public static func verify(
    directory: String, positions: Range<Int64>? = nil,
    progress: (_ done: Int64, _ total: Int64) -> Void = { _, _ in }
  ) throws(LogError) -> VerificationReport {
    let storage = try DirectoryStorage(reading: directory + "/log")
    defer { storage.close() }
    return try verify(storage: storage, positions: positions, progress: progress)
  }

  /// Checks a log on storage of any kind.
  package static func verify(
    storage: any SegmentStorage, positions: Range<Int64>? = nil,
    progress: (_ done: Int64, _ total: Int64) -> Void = { _, _ in }
  ) throws(LogError) -> VerificationReport {
    var verification = Verification(storage: storage, positions: positions)
    return try verification.run(progress: progress)
  }
}

struct Verification {
  private struct Topic {
    let name: String
    /// Next offset expected per partition; nil: whatever comes.
    var next: [Int64?]
  }

  private let storage: any SegmentStorage
  private let positions: Range<Int64>?
  private var report = VerificationReport()
  private var topics: [TopicID: Topic] = [:]
  private var identity: LogIdentity?
  private var nextBase: Int64 = 0
  /// Nil before the first group of a range.
  private var sequence: UInt64?
  /// Topics made before the range are not known.
  private var partial = false
  private var done: Int64 = 0
  private var total: Int64 = 0
  /// The log's end was seen: what a node writes from then on is not for this run.
  private var finished = false

  init(storage: any SegmentStorage, positions: Range<Int64>?) {
    self.storage = storage
    self.positions = positions
  }

  mutating func run(progress: (Int64, Int64) -> Void) throws(LogError) -> VerificationReport {
    var bases = try storage.list().compactMap(SegmentHeader.base(ofFile:)).sorted()
    guard !bases.isEmpty else {
      throw LogError(.failed, "\(storage.directory): there is no log here (no segment files); name the data directory")
    }
    if let positions { begin(at: positions, &bases) } else { sequence = 0 }
    for base in bases {
      guard let file = try? storage.open(SegmentHeader.fileName(base: base), writable: false) else { continue }
      total += try file.size()
      file.close()
    }
    for base in bases where !finished { try check(base, progress) }
    progress(total, total)
    return report
  }

  private mutating func begin(at positions: Range<Int64>, _ bases: inout [Int64]) {
    bases.removeAll { $0 >= positions.upperBound }
    let first = bases.lastIndex { $0 <= positions.lowerBound } ?? 0
    bases.removeFirst(min(first, max(bases.count - 1, 0)))
    nextBase = bases.first ?? 0
    partial = nextBase > 0
    if !partial { sequence = 0 }
    if partial, let (_, rebuilder) = (try? storage.newestCheckpoint()) ?? nil {
      for (name, id) in rebuilder.state.ids {
        let count = rebuilder.state.topics[Int(id)]!.partitions.count
        topics[id] = Topic(name: name, next: [Int64?](repeating: nil, count: count))
      }
    }
  }

  private mutating func check(_ base: Int64, _ progress: (Int64, Int64) -> Void) throws(LogError) {
    // Taken over by a cleaned segment that was checked already.
    if base < nextBase { return }
    let file: any SegmentFile
    do throws(LogError) {
      file = try storage.open(SegmentHeader.fileName(base: base), writable: false)
    } catch {
      // A node may be cleaning: what was in this file is in another by now, which was checked, or will be.
      if let (header, other) = try storage.segment(covering: base), header.base < base {
        other.close()
        nextBase = max(nextBase, header.upperBound)
        // What was between is in a file that came too late for this run.
        sequence = nil
        partial = true
        for id in topics.keys { topics[id]!.next = topics[id]!.next.map { _ in nil } }
        return
      }
      throw error
    }
    defer { file.close() }
    let before = done
    let size = try file.size()
    defer { done = before + size }
    report.segments += 1
    let scanner: SegmentScanner
    do throws(LogError) {
      scanner = try SegmentScanner(file: file, base: base)
      try scanner.header.check(follows: nextBase, of: identity, path: file.path)
    } catch {
      report.add(.init(file: file.path, fileOffset: 0, message: error.message))
      nextBase = base
      return
    }
    identity = scanner.header.identity
    nextBase = scanner.header.upperBound
    enter(scanner.header, file.path)
    defer { leave(scanner.header) }
    var told = done
    while true {
      switch try scanner.next() {
      case .group(let header, let bytes, let offset):
        checkGroup(header, bytes, scanner.header, file.path, offset)
        done = before + offset
        if done - told >= 8 << 20 {
          progress(done, total)
          told = done
        }
      case .end where scanner.header.cleaned != nil: return
      case .end:
        if try !laterGroups(behind: base) {
          try checkUnused(behind: base)
          finished = true
          return
        }
        if try !reread(scanner, scanner.offset) { return }
      case .bad(let reason):
        if try !stepOver(scanner, reason) { return }
      }
    }
  }

  /// Looks again at bytes that were no group: beside a node they may be one by now. What was found behind them was
  /// written later, so if they are none still, they never will be.
  private func reread(_ scanner: SegmentScanner, _ place: Int64) throws(LogError) -> Bool {
    try scanner.seek(to: place)
    guard case .group = try scanner.next() else { return false }
    try scanner.seek(to: place)
    return true
  }

  /// Reports damage and goes to the next group of the segment; false if there is none.
  private mutating func stepOver(_ scanner: SegmentScanner, _ reason: String) throws(LogError) -> Bool {
    let damaged = scanner.offset
    let path = scanner.file.path
    if let next = try scanner.findGroup(knowing: 0, from: damaged + 1) {
      if try reread(scanner, damaged) { return true }
      report.add(.init(file: path, fileOffset: damaged, message: "\(reason); \(next - damaged) bytes are unreadable"))
      tellLost(scanner.header, damaged..<next, path)
      try scanner.seek(to: next)
      return true
    }
    var hasLater = scanner.header.cleaned != nil
    if !hasLater { hasLater = try laterGroups(behind: scanner.header.base) }
    if hasLater {
      if try reread(scanner, damaged) { return true }
      report.add(.init(file: path, fileOffset: damaged, message: reason))
      tellLost(scanner.header, damaged..<scanner.header.capacity, path)
      return false
    }
    report.tail = "\(path): byte \(damaged): \(reason)"
    finished = true
    return false
  }

  /// Tells whose records were in bytes of a segment that cannot be read, if its index knows.
  private mutating func tellLost(_ segment: SegmentHeader, _ bytes: Range<Int64>, _ path: String) {
    guard let index = (try? storage.index(of: segment)) ?? nil else { return }
    let name = IndexFile.fileName(base: segment.base)
    for place in 0..<index.count {
      let record = index.record(place)
      let run = try? index.run(record) { () throws(LogError) in try storage.open(name, writable: false) }
      guard let run = run ?? nil else { continue }
      let first = run.firstIndex { bytes.contains($0.position - segment.base) }
      guard let first else { continue }
      let behind = run[first...].first { !bytes.contains($0.position - segment.base) }?.baseOffset ?? record.end
      report.add(
        .init(
          file: path, fileOffset: run[first].position - segment.base,
          partition: TopicPartition(topics[record.topic]?.name ?? "#\(record.topic)", record.partition),
          offsets: run[first].baseOffset..<max(behind, run[first].baseOffset + 1), message: "records are unreadable"))
    }
  }

  /// Segments behind the log's end have a header and nothing else. What the next start would cut or refuse is told.
  private mutating func checkUnused(behind base: Int64) throws(LogError) {
    for later in try storage.list().compactMap(SegmentHeader.base(ofFile:)).sorted() where later > base {
      guard let file = try? storage.open(SegmentHeader.fileName(base: later), writable: false) else { continue }
      defer { file.close() }
      report.segments += 1
      let scanner: SegmentScanner
      do throws(LogError) {
        scanner = try SegmentScanner(file: file, base: later)
      } catch {
        report.add(.init(file: file.path, fileOffset: 0, message: error.message))
        continue
      }
      if case .bad(let reason) = try scanner.next(), report.tail == nil {
        report.tail = "\(file.path): byte \(scanner.offset): \(reason)"
      }
    }
  }

  private func laterGroups(behind base: Int64) throws(LogError) -> Bool {
    for later in try storage.list().compactMap(SegmentHeader.base(ofFile:)) where later > base {
      let file = try storage.open(SegmentHeader.fileName(base: later), writable: false)
      defer { file.close() }
      guard let scanner = try? SegmentScanner(file: file, base: later) else { continue }
      if try scanner.findGroup(knowing: 0, from: Int64(SegmentHeader.reservedBytes)) != nil { return true }
    }
    return false
  }

  private mutating func enter(_ segment: SegmentHeader, _ path: String) {
    guard let cleaned = segment.cleaned, let sequence, cleaned.sequences.lowerBound != sequence + 1 else { return }
    report.add(
      .init(
        file: path, fileOffset: 0,
        message: "the segment begins with sequence \(cleaned.sequences.lowerBound) where \(sequence + 1) was expected"))
  }

  private mutating func leave(_ segment: SegmentHeader) {
    if let cleaned = segment.cleaned { sequence = cleaned.sequences.upperBound }
  }

  private mutating func checkGroup(
    _ header: GroupHeader, _ bytes: UnsafeRawBufferPointer, _ segment: SegmentHeader, _ path: String,
    _ offset: Int64
  ) {
    if let sequence,
      segment.cleaned.map({ header.sequence <= sequence || !$0.sequences.contains(header.sequence) })
        ?? (header.sequence != sequence + 1)
    {
      report.add(
        .init(
          file: path, fileOffset: offset,
          message: "the group has sequence \(header.sequence) where \(sequence + 1) was expected"))
    }
    sequence = header.sequence
    report.groups += 1
    report.bytes += Int64(header.length)
    var decoder = EntryDecoder(group: bytes)
    do throws(EntryDecoder.Malformed) {
      while let entry = try decoder.next() { checkEntry(entry, bytes, segment, path, offset) }
    } catch {
      report.add(.init(file: path, fileOffset: offset + Int64(error.offset), message: error.reason))
    }
  }

  private mutating func checkEntry(
    _ entry: Entry, _ group: UnsafeRawBufferPointer, _ segment: SegmentHeader, _ path: String, _ offset: Int64
  ) {
    switch entry {
    case .append(let topic, let partition, let baseOffset, let range):
      checkBatch(
        group.part(range.lowerBound, range.count), topic, partition, baseOffset, segment, path,
        offset + Int64(range.lowerBound))
    case .topicCreated(let id, let name, let configuration):
      topics[id] = Topic(name: name, next: [Int64?](repeating: 0, count: Int(max(configuration.partitions, 0))))
    case .topicDeleted(let id): topics[id] = nil
    case .trimmed(let topic, let partition, let start): raise(topic, partition, to: start)
    case .partitionState(let topic, let partition, let state): raise(topic, partition, to: state.end)
    case .offsetCommit, .topicAltered, .topicIDs, .groupDeleted: break
    case .unknown(let kind, _):
      report.add(
        .init(file: path, fileOffset: offset, message: "an entry of kind \(kind), which a newer version wrote"))
    }
  }

  private mutating func checkBatch(
    _ batch: UnsafeRawBufferPointer, _ topic: TopicID, _ partition: Int32, _ baseOffset: Int64,
    _ segment: SegmentHeader, _ path: String, _ offset: Int64
  ) {
    report.batches += 1
    let name = TopicPartition(topics[topic]?.name ?? "#\(topic)", partition)
    let header: RecordBatchHeader
    do throws(WireError) {
      header = try RecordBatchHeader(batch)
    } catch {
      report.add(.init(file: path, fileOffset: offset, partition: name, message: error.message))
      return
    }
    report.records += UInt64(header.recordCount)
    let offsets = baseOffset..<max(baseOffset, baseOffset + Int64(header.lastOffsetDelta)) + 1
    if header.size != batch.count || header.baseOffset != baseOffset {
      report.add(
        .init(
          file: path, fileOffset: offset, partition: name, offsets: offsets,
          message: "the batch's size or base offset is not that of its entry"))
    } else if header.crc != RecordBatch.checksum(of: batch) {
      report.add(
        .init(file: path, fileOffset: offset, partition: name, offsets: offsets, message: "wrong CRC in the batch"))
    }
    guard let known = topics[topic], known.next.indices.contains(Int(partition)) else {
      if partial { return }
      report.add(
        .init(
          file: path, fileOffset: offset, partition: name, offsets: offsets,
          message: "a batch of a topic or partition that was never made"))
      return
    }
    if let expected = known.next[Int(partition)] {
      if expected < baseOffset, segment.cleaned == nil {
        report.add(
          .init(
            file: path, fileOffset: offset, partition: name, offsets: expected..<baseOffset,
            message: "records are missing"))
      } else if expected > baseOffset {
        report.add(
          .init(
            file: path, fileOffset: offset, partition: name, offsets: offsets, message: "offsets that were there before"
          ))
      }
    }
    topics[topic]!.next[Int(partition)] = offsets.upperBound
  }

  /// Offsets below `end` were given up, or cleaned away.
  private mutating func raise(_ topic: TopicID, _ partition: Int32, to end: Int64) {
    guard let known = topics[topic], known.next.indices.contains(Int(partition)),
      let expected = known.next[Int(partition)]
    else { return }
    topics[topic]!.next[Int(partition)] = max(expected, end)
  }
}

extension SegmentStorage {
  /// The index of a segment as its file has it, for somebody who wants to know what was in damaged bytes. Nil if it is
  /// missing or damaged too.
  fileprivate func index(of header: SegmentHeader) throws(LogError) -> IndexFile? {
    let name = IndexFile.fileName(base: header.base)
    guard try list().contains(name) else { return nil }
    let file = try open(name, writable: false)
    defer { file.close() }
    let fields = ByteStorage(capacity: IndexFile.headerBytes)
    let target = UnsafeMutableRawBufferPointer(start: fields.base, count: IndexFile.headerBytes)
    guard try file.read(into: target, at: 0) == IndexFile.headerBytes else { return nil }
    let sequence: UInt64 = UnsafeRawBufferPointer(target).bigEndian(at: IndexFile.lastSequenceOffset)
    return try IndexFile(file, of: Segment(header, lastSequence: sequence))
  }
}
