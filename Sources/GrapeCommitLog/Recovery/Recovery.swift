import GrapeLog
import GrapeWire

/// Opens a log's files: reads the groups behind the last checkpoint, cuts a torn end, rebuilds what readers see.
///
/// What is damaged is either the torn end of a write that was never acknowledged as on the disk, which is cut, or a loss, which
/// is an error. A loss shows by groups behind it that say it had been on the disk: those of a later segment, and those
/// whose `durable` field covers it. Damage before the checkpoint shows when it is read.
struct Recovery {
  /// What the writer starts from.
  struct Opened {
    var segments: SegmentWriter
    var preparer: SegmentPreparer
    var identity: LogIdentity
    var state: PublishedState
    var sequence: UInt64
    var table: SegmentTable
    var report: RecoveryReport
  }

  private let storage: any SegmentStorage
  private let options: CommitLogOptions
  private let clock: LogClock
  private var rebuilder = StateRebuilder()
  private var table = SegmentTable()
  private var report = RecoveryReport()
  private var tail = UnsettledTail()

  init(storage: any SegmentStorage, options: CommitLogOptions, clock: LogClock) {
    self.storage = storage
    self.options = options
    self.clock = clock
  }

  mutating func run(newIdentity: () -> LogIdentity) throws(LogError) -> Opened {
    let began = clock.monotonicNanoseconds()
    var names = try storage.list()
    for name in names where name.hasSuffix(".tmp") { try storage.remove(name) }
    names.removeAll { $0.hasSuffix(".tmp") }
    let catalog = try SegmentCatalog(storage, names: names)
    for base in catalog.leftovers { try remove(base, names) }
    try removeOrphans(catalog, names)
    var opened =
      try catalog.segments.isEmpty ? create(newIdentity()) : recover(catalog, names)
    report.milliseconds = (clock.monotonicNanoseconds() - began) / 1_000_000
    opened.report = report
    return opened
  }

  /// Indexes and checkpoints without a segment: of one that was merged, or of another history.
  private func removeOrphans(_ catalog: SegmentCatalog, _ names: [String]) throws(LogError) {
    let bases = Set(catalog.segments.map(\.base))
    for name in names {
      if let base = Checkpoint.base(ofFile: name), !bases.contains(base), !catalog.leftovers.contains(base) {
        try storage.remove(name)
      } else if name.hasSuffix(".index"), let base = SegmentHeader.base(ofFile: String(name.dropLast(6)) + ".log"),
        !bases.contains(base), !catalog.leftovers.contains(base)
      {
        try storage.remove(name)
      }
    }
  }

  private func remove(_ base: Int64, _ names: [String]) throws(LogError) {
    for name in [
      SegmentHeader.fileName(base: base), IndexFile.fileName(base: base), Checkpoint.fileName(base: base),
    ] where names.contains(name) { try storage.remove(name) }
  }

  private mutating func create(_ identity: LogIdentity) throws(LogError) -> Opened {
    let preparer = SegmentPreparer(storage: storage, clock: clock, identity: identity)
    let first = try preparer.take(base: 0, capacity: Int64(options.segmentBytes))
    return opened(first, end: Int64(SegmentHeader.reservedBytes), preparer)
  }

  private mutating func opened(
    _ active: SegmentPreparer.Prepared, end: Int64, _ preparer: SegmentPreparer
  ) -> Opened {
    table.append(Segment(active.header, lastSequence: nil))
    table.raiseFloor(to: active.base)
    return Opened(
      segments: SegmentWriter(
        active: active, end: end, storage: storage, preparer: preparer, segmentBytes: options.segmentBytes),
      preparer: preparer, identity: active.header.identity, state: rebuilder.state, sequence: rebuilder.sequence,
      table: table, report: report)
  }

  private mutating func recover(_ catalog: SegmentCatalog, _ names: [String]) throws(LogError) -> Opened {
    let segments = catalog.segments
    let lastUsed = try lastUsedSegment(segments)
    let first = try resume(catalog, upTo: lastUsed, names)
    for place in 0..<first {
      table.append(Segment(segments[place], lastSequence: catalog.lastSequence(place)))
    }
    for place in first..<lastUsed { try readSealed(segments[place], names) }
    let last = segments[lastUsed]
    if last.cleaned != nil { try readSealed(last, names) }
    try keepCheckpoint(before: last.cleaned == nil ? last.base : last.upperBound, last.identity, names)
    if last.cleaned != nil {
      try removeUnused(segments[(lastUsed + 1)...], names)
      let preparer = SegmentPreparer(storage: storage, clock: clock, identity: last.identity)
      let active = try preparer.take(base: last.upperBound, capacity: Int64(options.segmentBytes))
      return opened(active, end: Int64(SegmentHeader.reservedBytes), preparer)
    }
    return try readLast(last, unused: segments[(lastUsed + 1)...], names)
  }

  /// Reads a segment with others behind it: all of it must be sound.
  private mutating func readSealed(_ header: SegmentHeader, _ names: [String]) throws(LogError) {
    let file = try storage.open(SegmentHeader.fileName(base: header.base), writable: false)
    defer { file.close() }
    let scanner = try SegmentScanner(file: file, base: header.base)
    if let fault = try scan(scanner) { throw lost(scanner, fault) }
    let segment = Segment(header, lastSequence: rebuilder.sequence)
    table.append(segment)
    let touched = rebuilder.takeTouched()
    try keepIndex(segment, touched, names)
    rebuilder.drop(touched, before: header.upperBound)
  }

  private mutating func readLast(
    _ header: SegmentHeader, unused: ArraySlice<SegmentHeader>, _ names: [String]
  ) throws(LogError) -> Opened {
    let file = try storage.open(SegmentHeader.fileName(base: header.base), writable: true)
    let scanner = try SegmentScanner(file: file, base: header.base)
    let fault = try scan(scanner)
    let end = scanner.offset
    try removeUnused(unused, names)
    if let fault { try cut(scanner, fault) }
    try file.preallocate(to: header.capacity)
    try settle(file, end: end)
    let preparer = SegmentPreparer(storage: storage, clock: clock, identity: header.identity)
    return opened(SegmentPreparer.Prepared(file: file, header: header), end: end, preparer)
  }

  /// Starts from the newest sound checkpoint; returns the place of the first segment to read.
  private mutating func resume(
    _ catalog: SegmentCatalog, upTo last: Int, _ names: [String]
  ) throws(LogError) -> Int {
    for place in (0...last).reversed() {
      guard let resumed = try storage.checkpoint(catalog, place, names) else { continue }
      rebuilder = resumed
      report.checkpoint = catalog.segments[place].base
      return place
    }
    return 0
  }

  /// The last segment that begins with a whole group; the first if there is none. A cleaned one always counts.
  private func lastUsedSegment(_ segments: [SegmentHeader]) throws(LogError) -> Int {
    for place in segments.indices.reversed() {
      if segments[place].cleaned != nil { return place }
      let file = try storage.open(SegmentHeader.fileName(base: segments[place].base), writable: false)
      defer { file.close() }
      let scanner = try SegmentScanner(file: file, base: segments[place].base)
      if case .group = try scanner.next() { return place }
    }
    return 0
  }

  /// Applies the segment's groups; returns what is wrong with the bytes behind the last, nil if they are zeros.
  private mutating func scan(_ scanner: SegmentScanner) throws(LogError) -> String? {
    tail = UnsettledTail()
    try rebuilder.enter(scanner.header, path: scanner.file.path)
    report.segments += 1
    while true {
      switch try scanner.next() {
      case .group(let header, let bytes, let offset):
        try rebuilder.apply(header, bytes, of: scanner.header, path: scanner.file.path, offset: offset)
        tail.add(header, offset: offset)
        report.groups += 1
        report.batches = rebuilder.batches
        report.bytes += Int64(aligned(header.length))
      case .end:
        rebuilder.leave(scanner.header)
        return nil
      case .bad(let reason): return reason
      }
    }
  }

  private func lost(_ scanner: SegmentScanner, _ reason: String) -> LogError {
    LogError(
      .corrupt,
      "\(scanner.file.path): damaged at byte \(scanner.offset) (\(reason)), where data was that had reached the disk; run "
        + "grape log verify to see what it concerns; restore the file from a backup, or give up what is lost with grape log repair"
    )
  }

  // MARK: What makes the next start quick

  private func keepIndex(
    _ segment: Segment, _ touched: [(topic: TopicID, partition: Int32)], _ names: [String]
  ) throws(LogError) {
    let name = IndexFile.fileName(base: segment.base)
    if names.contains(name) {
      let file = try storage.open(name, writable: false)
      defer { file.close() }
      if try IndexFile(file, of: segment) != nil { return }
    }
    var parts = IndexFile.parts(of: rebuilder.state.snapshot(sequence: rebuilder.sequence))
    let pages = touched.map { rebuilder.state.pages($0.topic, $0.partition, segment: segment.base) }
    IndexFile.fill(&parts, zip(touched, pages))
    try accelerate(IndexFile.encode(parts, of: segment), name)
  }

  private func keepCheckpoint(before base: Int64, _ identity: LogIdentity, _ names: [String]) throws(LogError) {
    let name = Checkpoint.fileName(base: base)
    if base == 0 || report.checkpoint == base { return }
    let snapshot = rebuilder.state.snapshot(sequence: rebuilder.sequence)
    try accelerate(Checkpoint.encode(snapshot, base: base, identity: identity), name)
  }

  /// Writes a file that can be made anew at any time: a full disk is no reason not to start.
  private func accelerate(_ bytes: ByteSlice, _ name: String) throws(LogError) {
    do throws(LogError) {
      try storage.write(bytes, to: name + ".tmp")
      try storage.replace(name, with: name + ".tmp")
    } catch {
      guard error.code == .noSpace else { throw error }
      try storage.removeIfThere(name + ".tmp")
    }
  }

  // MARK: The torn end

  /// Segments behind the end hold no group that counts. What else they hold is kept aside.
  private mutating func removeUnused(_ segments: ArraySlice<SegmentHeader>, _ names: [String]) throws(LogError) {
    // The last first: a death in between must not leave a gap.
    for header in segments.reversed() {
      let file = try storage.open(SegmentHeader.fileName(base: header.base), writable: true)
      defer { file.close() }
      let scanner = try SegmentScanner(file: file, base: header.base)
      if case .bad(let reason) = try scanner.next() { try cut(scanner, reason) }
      try remove(header.base, names)
    }
    // Also for the segments that stay: the last start may have ended between naming a file and making the name durable.
    try storage.synchronizeDirectory()
  }

  /// Copies what stands behind the last whole group into a file of its own, then cuts it off, so that nothing of it
  /// can come back to life when the log grows over it.
  private mutating func cut(_ scanner: SegmentScanner, _ reason: String) throws(LogError) {
    let start = scanner.offset
    if try scanner.findGroup(knowing: rebuilder.sequence + 1, from: start) != nil { throw lost(scanner, reason) }
    guard let last = try scanner.lastNonZero(from: start) else { return }
    let name = try freeName(position: scanner.header.base + start)
    let copy = try storage.create(name)
    defer { copy.close() }
    var place = start
    while place <= last {
      let count = Int(min(1 << 20, last + 1 - place))
      try copy.write(try scanner.bytes(at: place, count: count), at: place - start)
      place += Int64(count)
    }
    try copy.synchronize()
    try storage.synchronizeDirectory()
    try scanner.file.resize(to: start)
    try scanner.file.synchronize()
    report.cuts.append(
      RecoveryReport.Cut(
        position: scanner.header.base + start, file: scanner.file.path, bytes: last + 1 - start, reason: reason,
        copy: copy.path))
  }

  private func freeName(position: Int64) throws(LogError) -> String {
    let taken = Set(try storage.list())
    var name = "cut-\(position).bin"
    var number = 2
    while taken.contains(name) {
      name = "cut-\(position)-\(number).bin"
      number += 1
    }
    return name
  }

  /// Groups that no later one calls durable may be in the operating system's memory only, or (after a failed
  /// synchronisation) not even be due for writing any more. They were read, so they will be served: write them again.
  private func settle(_ file: any SegmentFile, end: Int64) throws(LogError) {
    guard let start = tail.offset else { return }
    let block = ByteStorage(capacity: 1 << 20)
    var place = start
    while place < end {
      let count = Int(min(Int64(block.capacity), end - place))
      let bytes = UnsafeMutableRawBufferPointer(start: block.base, count: count)
      guard try file.read(into: bytes, at: place) == count else {
        throw LogError(.failed, "\(file.path): became shorter while it was read")
      }
      try file.write(UnsafeRawBufferPointer(bytes), at: place)
      place += Int64(count)
    }
    try file.synchronize()
  }
}

/// Where in a segment the groups begin that no later group calls durable.
private struct UnsettledTail {
  private var groups: [(sequence: UInt64, offset: Int64)] = []
  private var first = 0

  var offset: Int64? { first < groups.count ? groups[first].offset : nil }

  mutating func add(_ header: GroupHeader, offset: Int64) {
    while first < groups.count, groups[first].sequence <= header.durable { first += 1 }
    if first == groups.count {
      groups.removeAll(keepingCapacity: true)
      first = 0
    }
    groups.append((header.sequence, offset))
  }
}
