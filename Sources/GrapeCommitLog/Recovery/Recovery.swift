import GrapeLog
import GrapeWire

/// Opens a log's files: checks every group, cuts a torn end, rebuilds what readers see.
///
/// What is damaged is either the torn end of a write that was never acknowledged as on the disk, which is cut, or a loss, which
/// is an error. A loss shows by groups behind it that say it had been on the disk: those of a later segment, and those
/// whose `durable` field covers it.
struct Recovery {
  /// What the writer starts from.
  struct Opened {
    var segments: SegmentWriter
    var preparer: SegmentPreparer
    var identity: LogIdentity
    var state: PublishedState
    var sequence: UInt64
    /// Base of every segment, in order.
    var bases: [Int64]
    var report: RecoveryReport
  }

  private let storage: any SegmentStorage
  private let options: CommitLogOptions
  private let clock: LogClock
  private var rebuilder = StateRebuilder()
  private var report = RecoveryReport()
  private var tail = UnsettledTail()

  init(storage: any SegmentStorage, options: CommitLogOptions, clock: LogClock) {
    self.storage = storage
    self.options = options
    self.clock = clock
  }

  mutating func run(newIdentity: () -> LogIdentity) throws(LogError) -> Opened {
    let began = clock.monotonicNanoseconds()
    let names = try storage.list()
    if names.contains(SegmentPreparer.draftName) { try storage.remove(SegmentPreparer.draftName) }
    let bases = names.compactMap(SegmentHeader.base(ofFile:)).sorted()
    var opened = try bases.isEmpty ? create(newIdentity()) : recover(bases)
    report.milliseconds = (clock.monotonicNanoseconds() - began) / 1_000_000
    opened.report = report
    return opened
  }

  private func create(_ identity: LogIdentity) throws(LogError) -> Opened {
    let preparer = SegmentPreparer(storage: storage, clock: clock, identity: identity)
    let first = try preparer.take(base: 0, capacity: Int64(options.segmentBytes))
    return opened(first, end: Int64(SegmentHeader.reservedBytes), preparer, identity, [0])
  }

  private func opened(
    _ active: SegmentPreparer.Prepared, end: Int64, _ preparer: SegmentPreparer, _ identity: LogIdentity,
    _ bases: [Int64]
  ) -> Opened {
    Opened(
      segments: SegmentWriter(
        active: active, end: end, storage: storage, preparer: preparer, segmentBytes: options.segmentBytes),
      preparer: preparer, identity: identity, state: rebuilder.state, sequence: rebuilder.sequence, bases: bases,
      report: report)
  }

  private mutating func recover(_ bases: [Int64]) throws(LogError) -> Opened {
    let lastUsed = try lastUsedSegment(bases)
    var identity: LogIdentity?
    var expected: Int64 = 0
    var place = 0
    while true {
      let name = SegmentHeader.fileName(base: bases[place])
      let file = try storage.open(name, writable: place >= lastUsed)
      let scanner = try SegmentScanner(file: file, base: bases[place])
      try scanner.header.check(follows: expected, of: identity, path: file.path)
      identity = scanner.header.identity
      expected = scanner.header.base + scanner.header.capacity
      let fault = try scan(scanner)
      report.segments += 1
      if place < lastUsed {
        if let fault { throw lost(scanner, fault) }
        file.close()
        place += 1
        continue
      }
      let end = scanner.offset
      try removeUnused(bases[(place + 1)...])
      if let fault { try cut(scanner, fault) }
      try file.preallocate(to: scanner.header.capacity)
      try settle(file, end: end)
      let active = SegmentPreparer.Prepared(
        name: name, file: file, base: bases[place], capacity: scanner.header.capacity)
      let preparer = SegmentPreparer(storage: storage, clock: clock, identity: scanner.header.identity)
      return opened(active, end: end, preparer, scanner.header.identity, Array(bases[...place]))
    }
  }

  /// The last segment that begins with a whole group; the first if there is none.
  private func lastUsedSegment(_ bases: [Int64]) throws(LogError) -> Int {
    for place in bases.indices.reversed() {
      let file = try storage.open(SegmentHeader.fileName(base: bases[place]), writable: false)
      defer { file.close() }
      let scanner = try SegmentScanner(file: file, base: bases[place])
      if case .group = try scanner.next() { return place }
    }
    return 0
  }

  /// Applies the segment's groups; returns what is wrong with the bytes behind the last, nil if they are zeros.
  private mutating func scan(_ scanner: SegmentScanner) throws(LogError) -> String? {
    tail = UnsettledTail()
    while true {
      switch try scanner.next() {
      case .group(let header, let bytes, let offset):
        try rebuilder.apply(header, bytes, path: scanner.file.path, offset: offset)
        tail.add(header, offset: offset)
        report.groups += 1
        report.batches = rebuilder.batches
        report.bytes += Int64(aligned(header.length))
      case .end: return nil
      case .bad(let reason): return reason
      }
    }
  }

  private func lost(_ scanner: SegmentScanner, _ reason: String) -> LogError {
    LogError(
      .corrupt,
      "\(scanner.file.path): damaged at byte \(scanner.offset) (\(reason)), where data was that had reached the disk; run "
        + "grape log verify, and restore the file from a backup")
  }

  /// Segments behind the end hold no group that counts. What else they hold is kept aside.
  private mutating func removeUnused(_ bases: ArraySlice<Int64>) throws(LogError) {
    for base in bases {
      let name = SegmentHeader.fileName(base: base)
      let file = try storage.open(name, writable: true)
      defer { file.close() }
      let scanner = try SegmentScanner(file: file, base: base)
      if case .bad(let reason) = try scanner.next() { try cut(scanner, reason) }
      try storage.remove(name)
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
