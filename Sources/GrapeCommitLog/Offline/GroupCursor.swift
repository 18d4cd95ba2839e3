import GrapeLog

/// Walks the groups of a directory, read-only, whether or not a node is writing and cleaning there.
struct GroupCursor: ~Copyable {
  private let storage: any SegmentStorage
  private let closes: Bool
  private var scanner: SegmentScanner?
  private var identity: LogIdentity?
  /// Base of the segment to open next.
  private var nextBase: Int64
  /// Of the last group, shown or not.
  private var sequence: UInt64 = 0
  /// Bytes of groups seen.
  private(set) var bytesRead: Int64 = 0
  /// Segments left behind since the last call of `takePassed`, those without groups too.
  private var passed: [SegmentHeader] = []
  /// What stands behind the last group, if it is not zeros: a torn write, or one under way.
  private(set) var tail: String?

  /// `directory`: the folder of the segments.
  init(directory: String) throws(LogError) {
    storage = try DirectoryStorage(reading: directory)
    closes = true
    nextBase = 0
  }

  /// Begins with the segment at `base`. The storage is closed by whoever opened it.
  init(storage: any SegmentStorage, from base: Int64) {
    self.storage = storage
    closes = false
    nextBase = base
  }

  deinit { if closes { storage.close() } }

  /// Path of the segment file that the last group came from.
  var path: String { scanner?.file.path ?? storage.directory }

  /// Header of the segment that the last group came from. Precondition: there was one.
  var segment: SegmentHeader { scanner!.header }

  /// The next group: valid until the next call. Nil at the log's end. Errors: `corrupt` for damage in a segment that has a successor.
  mutating func next() throws(LogError) -> (header: GroupHeader, bytes: UnsafeRawBufferPointer, offset: Int64)? {
    while true {
      if scanner == nil, try !openNext() { return nil }
      switch try scanner!.next() {
      case .group(let header, let bytes, let offset):
        // Seen before, in a segment that was merged into this one meanwhile.
        if header.sequence <= sequence { continue }
        sequence = header.sequence
        bytesRead += Int64(bytes.count)
        return (header, bytes, offset)
      case .end, .bad:
        if try !leaveSegment() { return nil }
      }
    }
  }

  /// Decides what the end of a segment's groups means; false if it is the log's.
  private mutating func leaveSegment() throws(LogError) -> Bool {
    let successor = try hasGroups(base: nextBase)
    // A node may have written on between our reading the end and our finding a successor: look again.
    let place = scanner!.offset
    try scanner!.seek(to: place)
    switch try scanner!.next() {
    case .group:
      try scanner!.seek(to: place)
      return true
    case .end:
      if !successor { return false }
    case .bad(let reason):
      guard successor || scanner!.header.cleaned != nil else {
        tail = "\(scanner!.file.path): byte \(place): \(reason)"
        return false
      }
      throw LogError(.corrupt, "\(scanner!.file.path): damaged at byte \(place) (\(reason)); run grape log verify")
    }
    passed.append(scanner!.header)
    scanner!.file.close()
    scanner = nil
    return true
  }

  /// Segments that were left behind since the last call.
  mutating func takePassed() -> [SegmentHeader] {
    defer { passed = [] }
    return passed
  }

  private mutating func openNext() throws(LogError) -> Bool {
    guard let found = try storage.segment(covering: nextBase) else {
      if nextBase == 0 {
        throw LogError(
          .failed,
          "\(storage.directory): there is no log here (no file \(SegmentHeader.fileName(base: 0))); name the data directory"
        )
      }
      return false
    }
    let opened = try SegmentScanner(file: found.file, base: found.header.base)
    let follows = found.header.base < nextBase ? found.header.base : nextBase
    try opened.header.check(follows: follows, of: identity, path: opened.file.path)
    identity = opened.header.identity
    nextBase = opened.header.upperBound
    scanner = opened
    return true
  }

  private func hasGroups(base: Int64) throws(LogError) -> Bool {
    // Segments in between may be empty: a large group makes the next one leave it so.
    for later in try storage.list().compactMap(SegmentHeader.base(ofFile:)) where later >= base {
      guard let (header, file) = try storage.segment(covering: later) else { continue }
      defer { file.close() }
      let probe = try SegmentScanner(file: file, base: header.base)
      if header.cleaned != nil { return true }
      if case .group = try probe.next() { return true }
    }
    return false
  }
}

extension SegmentStorage {
  /// Opens the segment that begins at `position`, or the cleaned one that reaches beyond it; nil if there is neither.
  /// While a node is cleaning, files may vanish between two looks: looks again then, a few times.
  func segment(covering position: Int64) throws(LogError) -> (header: SegmentHeader, file: any SegmentFile)? {
    var attempts = 0
    while true {
      let bases = try list().compactMap(SegmentHeader.base(ofFile:))
      guard let base = bases.filter({ $0 <= position }).max() else { return nil }
      do throws(LogError) {
        let file = try open(SegmentHeader.fileName(base: base), writable: false)
        do throws(LogError) {
          let header = try SegmentHeader.read(file, base: base)
          if base == position || (header.cleaned != nil && header.upperBound > position) { return (header, file) }
          file.close()
          return nil
        } catch {
          file.close()
          throw error
        }
      } catch {
        attempts += 1
        let vanished = try !list().contains(SegmentHeader.fileName(base: base))
        guard vanished, attempts < 5 else { throw error }
      }
    }
  }
}
