import GrapeLog
import GrapeWire

/// The segment files of a directory, in order, as far as their headers tell.
struct SegmentCatalog {
  private(set) var segments: [SegmentHeader] = []
  /// Sequence of each segment's first group; of the next group, if it holds none. Nil where nothing follows.
  private(set) var firstSequences: [UInt64?] = []
  /// Files whose content a cleaned segment has taken over.
  private(set) var leftovers: [Int64] = []

  /// Reads the headers of all segment files. Errors: `corrupt` for one that is damaged, foreign or missing;
  /// `unsupportedFormat`; `failed`.
  init(_ storage: any SegmentStorage) throws(LogError) {
    try self.init(storage, names: try storage.list())
  }

  init(_ storage: any SegmentStorage, names: [String]) throws(LogError) {
    var expected: Int64 = 0
    var identity: LogIdentity?
    for base in names.compactMap(SegmentHeader.base(ofFile:)).sorted() {
      // Left by a crash between a cleaned segment's appearance and the removal of what it replaces.
      if base < expected, segments.last?.cleaned != nil {
        leftovers.append(base)
        continue
      }
      let file = try storage.open(SegmentHeader.fileName(base: base), writable: false)
      defer { file.close() }
      let (header, first) = try SegmentHeader.readWithFirst(file, base: base)
      try header.check(follows: expected, of: identity, path: file.path)
      identity = header.identity
      expected = header.upperBound
      segments.append(header)
      firstSequences.append(header.cleaned?.sequences.lowerBound ?? first)
    }
    for place in firstSequences.indices.dropLast().reversed() where firstSequences[place] == nil {
      firstSequences[place] = firstSequences[place + 1]
    }
  }

  /// Sequence of a segment's last group. Nil where that cannot be told from headers.
  func lastSequence(_ place: Int) -> UInt64? {
    if let cleaned = segments[place].cleaned { return cleaned.sequences.upperBound }
    guard place + 1 < segments.count, let next = firstSequences[place + 1] else { return nil }
    return next - 1
  }
}

extension SegmentHeader {
  /// Reads the header and, if something that looks like a group follows it, that group's sequence.
  fileprivate static func readWithFirst(
    _ file: any SegmentFile, base: Int64
  ) throws(LogError) -> (SegmentHeader, UInt64?) {
    let storage = ByteStorage(capacity: reservedBytes + GroupHeader.byteCount)
    let bytes = UnsafeMutableRawBufferPointer(start: storage.base, count: storage.capacity)
    let count = try file.read(into: bytes, at: 0)
    let header = try SegmentHeader(UnsafeRawBufferPointer(rebasing: bytes[..<count]), path: file.path, base: base)
    guard count == storage.capacity,
      let group = GroupHeader(UnsafeRawBufferPointer(rebasing: bytes[reservedBytes...])), group.sequence > 0,
      group.position == base + Int64(reservedBytes), group.log == header.identity.low
    else { return (header, nil) }
    return (header, group.sequence)
  }
}
