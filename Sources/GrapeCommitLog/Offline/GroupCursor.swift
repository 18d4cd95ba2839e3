import GrapeLog

/// Walks all groups of a directory, read-only, whether or not a node is writing there.
struct GroupCursor: ~Copyable {
  private let storage: DirectoryStorage
  private var scanner: SegmentScanner?
  private var identity: LogIdentity?
  /// Base of the segment to open next.
  private var nextBase: Int64 = 0
  /// Bytes of groups seen.
  private(set) var bytesRead: Int64 = 0
  /// What stands behind the last group, if it is not zeros: a torn write, or one under way.
  private(set) var tail: String?

  /// `directory`: the folder of the segments.
  init(directory: String) throws(LogError) { storage = try DirectoryStorage(reading: directory) }

  deinit { storage.close() }

  /// Path of the segment file that the last group came from.
  var path: String { scanner?.file.path ?? storage.directory }

  /// The next group: valid until the next call. Nil at the log's end. Errors: `corrupt` for damage in a segment that has a successor.
  mutating func next() throws(LogError) -> (header: GroupHeader, bytes: UnsafeRawBufferPointer, offset: Int64)? {
    while true {
      if scanner == nil, try !openNext() { return nil }
      switch try scanner!.next() {
      case .group(let header, let bytes, let offset):
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
      guard successor else {
        tail = "\(scanner!.file.path): byte \(place): \(reason)"
        return false
      }
      throw LogError(.corrupt, "\(scanner!.file.path): damaged at byte \(place) (\(reason)); run grape log verify")
    }
    scanner!.file.close()
    scanner = nil
    return true
  }

  private mutating func openNext() throws(LogError) -> Bool {
    let name = SegmentHeader.fileName(base: nextBase)
    guard try storage.list().contains(name) else {
      if nextBase == 0 {
        throw LogError(.failed, "\(storage.directory): there is no log here (no file \(name)); name the data directory")
      }
      return false
    }
    let opened = try SegmentScanner(file: try storage.open(name, writable: false), base: nextBase)
    try opened.header.check(follows: nextBase, of: identity, path: opened.file.path)
    identity = opened.header.identity
    nextBase = opened.header.base + opened.header.capacity
    scanner = opened
    return true
  }

  private func hasGroups(base: Int64) throws(LogError) -> Bool {
    // Segments in between may be empty: a large group makes the next one leave it so.
    for later in try storage.list().compactMap(SegmentHeader.base(ofFile:)) where later >= base {
      let file = try storage.open(SegmentHeader.fileName(base: later), writable: false)
      defer { file.close() }
      let probe = try SegmentScanner(file: file, base: later)
      if case .group = try probe.next() { return true }
    }
    return false
  }
}
