public import GrapeState
public import GrapeWire

/// Something whose entries can be walked from a key on, in order.
public typealias StateScan = (
  _ first: ByteSlice, _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) throws(StateError) -> Bool
) throws(StateError) -> Void

/// Walks two states side by side and tells where they differ. Takes a few MiB, or the largest entries, whatever their sizes.
public struct StateComparison {
  /// An entry that is not the same in both; nil where there is none.
  public struct Difference {
    public var key: ByteSlice
    public var left: ByteSlice?
    public var right: ByteSlice?
  }

  private var left: EntryPages
  private var right: EntryPages
  /// Entries of the left looked at.
  public private(set) var compared = 0

  public init(_ left: @escaping StateScan, _ right: @escaping StateScan) {
    self.left = EntryPages(left)
    self.right = EntryPages(right)
  }

  /// The next difference in order of keys; nil: there is none more.
  public mutating func next() throws(StateError) -> Difference? {
    while true {
      let (ours, theirs) = (try left.peek(), try right.peek())
      guard let ours else {
        guard let theirs else { return nil }
        right.skip()
        return Difference(key: theirs.key, left: nil, right: theirs.entry)
      }
      guard let theirs, theirs.key <= ours.key else {
        left.skip()
        compared += 1
        return Difference(key: ours.key, left: ours.entry, right: nil)
      }
      right.skip()
      if theirs.key < ours.key { return Difference(key: theirs.key, left: nil, right: theirs.entry) }
      left.skip()
      compared += 1
      if ours.entry != theirs.entry { return Difference(key: ours.key, left: ours.entry, right: theirs.entry) }
    }
  }
}

/// Entries taken a page at a time, so that two walks can go side by side.
private struct EntryPages {
  private static let pageBytes = 512 * 1024

  private let scan: StateScan
  private var page = ByteSlice([])
  /// Where in the page keys and entries end.
  private var ends: [(key: Int, entry: Int)] = []
  private var index = 0
  private var isLast = false
  private var next = ByteSlice([])

  init(_ scan: @escaping StateScan) { self.scan = scan }

  mutating func peek() throws(StateError) -> (key: ByteSlice, entry: ByteSlice)? {
    if index == ends.count {
      guard !isLast else { return nil }
      try fill()
      if ends.isEmpty { return nil }
    }
    let start = index == 0 ? 0 : ends[index - 1].entry
    let end = ends[index]
    return (page[start..<end.key], page[end.key..<end.entry])
  }

  mutating func skip() { index += 1 }

  private mutating func fill() throws(StateError) {
    var writer = ByteWriter(capacity: 4096)
    var found: [(key: Int, entry: Int)] = []
    isLast = true
    try scan(next) { (key, entry) throws(StateError) in
      guard writer.count < Self.pageBytes else {
        isLast = false
        next = ByteSlice(copying: key)
        return false
      }
      writer.bytes(key)
      let end = writer.count
      writer.bytes(entry)
      found.append((end, writer.count))
      return true
    }
    page = writer.finish()
    ends = found
    index = 0
  }
}
