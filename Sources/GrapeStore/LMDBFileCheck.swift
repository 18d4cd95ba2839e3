internal import CGrapeLinux
internal import Glibc
package import GrapeState

/// Looks through a closed LMDB file before LMDB does: LMDB trusts its pages, and a damaged one could end the process or show what was never
/// written. Every page in use is visited once: the trees must be whole, in order, without a page in common, and
/// entries must fit their checksums. The layout is LMDB 0.9's for 64-bit machines. O(size of the file).
package struct LMDBFileCheck {
  private let file: UnsafeRawBufferPointer
  private let path: String
  private var pageSize = 4096
  private var pageCount = 0
  /// Pages of the file met so far, a bit each.
  private var met: [UInt64] = []
  /// Those behind the file's end, which are free and were never written.
  private var metBeyond: Set<Int> = []
  private var entryCount = 0

  /// Throws `corrupt` (or `notFound`, `unsupported`) with what is wrong and where.
  package static func check(_ path: String) throws(StateError) {
    let descriptor = grape_open(path, O_RDONLY, 0)
    guard descriptor >= 0 else {
      throw StateError(errno == ENOENT ? .notFound : .system, systemMessage("open \(path)"))
    }
    defer { close(descriptor) }
    let size = try fileSize(path)
    guard size >= 2 * 4096 else { throw StateError(.corrupt, "\(path) is shorter than two pages") }
    guard let base = mmap(nil, size, PROT_READ, MAP_SHARED, descriptor, 0), base != MAP_FAILED else {
      throw StateError(.system, systemMessage("mmap \(path)"))
    }
    defer { munmap(base, size) }
    _ = madvise(base, size, MADV_SEQUENTIAL)
    var check = LMDBFileCheck(file: UnsafeRawBufferPointer(start: base, count: size), path: path)
    try check.run()
  }

  private init(file: UnsafeRawBufferPointer, path: String) {
    self.file = file
    self.path = path
  }

  // MARK: Pieces of the layout

  private enum PageFlag {
    static let branch: UInt16 = 0x01
    static let leaf: UInt16 = 0x02
    static let overflow: UInt16 = 0x04
    static let meta: UInt16 = 0x08
    static let dirty: UInt16 = 0x10
    static let fixedSize: UInt16 = 0x20
    static let subPage: UInt16 = 0x40
  }

  private enum NodeFlag {
    static let bigData: UInt16 = 0x01
    static let subDatabase: UInt16 = 0x02
    static let duplicates: UInt16 = 0x04
  }

  /// `MDB_db`.
  private struct Tree {
    static let size = 48
    var flags: UInt16
    var depth: Int
    var branchPages: Int
    var leafPages: Int
    var overflowPages: Int
    var entries: Int
    var root: Int

    init(_ bytes: UnsafeRawBufferPointer) {
      flags = bytes.loadUnaligned(fromByteOffset: 4, as: UInt16.self)
      depth = Int(bytes.loadUnaligned(fromByteOffset: 6, as: UInt16.self))
      func count(_ offset: Int) -> Int {
        Int(truncatingIfNeeded: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
      }
      branchPages = count(8)
      leafPages = count(16)
      overflowPages = count(24)
      entries = count(32)
      root = count(40)
    }

    /// No page at all.
    var isEmpty: Bool { root == -1 }
    var isIntegerKeyed: Bool { flags & 0x08 != 0 }
  }

  /// What was seen of a tree.
  private struct Seen {
    var branchPages = 0
    var leafPages = 0
    var overflowPages = 0
    var entries = 0
  }

  /// What stands in a leaf.
  private enum Content { case freeList, names, entries, other }

  private static let headerSize = 16
  private static let nodeSize = 8

  private func damage(_ page: Int, _ what: String) -> StateError {
    StateError(.corrupt, "\(path), page \(page): \(what)")
  }

  // MARK: The walk

  private mutating func run() throws(StateError) {
    guard let first = try meta(at: 0) else { throw damage(0, "neither of the two meta pages is sound") }
    pageSize = first.pageSize
    let second = try meta(at: pageSize)
    let newest = second.map { $0.transaction > first.transaction ? $0 : first } ?? first
    guard newest.lastPage >= 1, newest.lastPage < Self.largestMap / pageSize, newest.mapSize <= Self.largestMap else {
      throw damage(0, "the last page is said to be \(newest.lastPage), the map to have \(newest.mapSize) bytes")
    }
    // Flags say how keys are compared, and how the file is mapped.
    guard newest.free.flags == 0x08, newest.main.flags == 0 else {
      throw damage(0, "it has flags \(newest.free.flags) and \(newest.main.flags)")
    }
    pageCount = newest.lastPage + 1
    met = [UInt64](repeating: 0, count: (file.count / pageSize + 63) / 64)
    try visit(0, count: 2)
    // A page that is free may lie behind the file's end: it was never written.
    try walk(newest.main, .names)
    try walk(newest.free, .freeList)
    // Pages that are neither in the file nor free do not exist: with them the file would grow without need.
    guard newest.lastPage <= max(file.count / pageSize - 1, metBeyond.max() ?? 0) else {
      throw damage(0, "the last page is said to be \(newest.lastPage), the file has \(file.count / pageSize)")
    }
  }

  /// What a store's map has at most.
  private static let largestMap = 1 << 46
  private static let databases: [String: UInt16] = ["meta": 0, "entries": 0, "expiry": 0x04, "tags": 0x04]

  private struct Meta {
    var pageSize: Int
    var free: Tree
    var main: Tree
    var mapSize: Int
    var lastPage: Int
    var transaction: UInt64
  }

  /// nil: it is none. The first must be sound; the second may never have been written.
  private func meta(at offset: Int) throws(StateError) -> Meta? {
    guard offset + 152 <= file.count else { return nil }
    let page = UnsafeRawBufferPointer(rebasing: file[offset..<offset + 152])
    guard page.loadUnaligned(fromByteOffset: 10, as: UInt16.self) & PageFlag.meta != 0,
      page.loadUnaligned(fromByteOffset: 16, as: UInt32.self) == 0xbeef_c0de
    else { return nil }
    let version = page.loadUnaligned(fromByteOffset: 20, as: UInt32.self)
    guard version == 1 else { throw StateError(.unsupported, "\(path) is of LMDB's data version \(version), not 1") }
    let free = UnsafeRawBufferPointer(rebasing: page[40..<88])
    let main = UnsafeRawBufferPointer(rebasing: page[88..<136])
    let pageSize = Int(free.loadUnaligned(as: UInt32.self))
    guard pageSize >= 512, pageSize <= 65_536, pageSize & (pageSize - 1) == 0 else {
      throw damage(0, "pages of \(pageSize) bytes")
    }
    return Meta(
      pageSize: pageSize, free: Tree(free), main: Tree(main),
      mapSize: Int(truncatingIfNeeded: page.loadUnaligned(fromByteOffset: 32, as: UInt64.self) & UInt64(Int.max)),
      lastPage: Int(truncatingIfNeeded: page.loadUnaligned(fromByteOffset: 136, as: UInt64.self)),
      transaction: page.loadUnaligned(fromByteOffset: 144, as: UInt64.self))
  }

  private mutating func visit(_ page: Int, count: Int = 1) throws(StateError) {
    guard page >= 0, count > 0, page <= pageCount - count else {
      throw damage(page, "it lies behind the last page, \(pageCount - 1)")
    }
    for number in page..<page + count {
      if number >= file.count / pageSize {
        guard metBeyond.insert(number).inserted else { throw damage(number, "it is used twice") }
        continue
      }
      guard met[number >> 6] & (1 << UInt64(number & 63)) == 0 else { throw damage(number, "it is used twice") }
      met[number >> 6] |= 1 << UInt64(number & 63)
    }
  }

  private func page(_ number: Int, count: Int = 1) throws(StateError) -> UnsafeRawBufferPointer {
    guard number >= 0, (number + count) * pageSize <= file.count else {
      throw damage(number, "the file ends before it")
    }
    return UnsafeRawBufferPointer(rebasing: file[number * pageSize..<(number + count) * pageSize])
  }

  private mutating func walk(_ tree: Tree, _ content: Content) throws(StateError) {
    var seen = Seen()
    if tree.isEmpty {
      guard tree.entries == 0, tree.depth == 0 else {
        throw damage(-1, "a tree without root has \(tree.entries) entries")
      }
      return
    }
    guard (1...32).contains(tree.depth) else { throw damage(tree.root, "a tree of depth \(tree.depth)") }
    try walk(tree.root, level: 1, tree, content, &seen, Bounds())
    guard seen.branchPages == tree.branchPages, seen.leafPages == tree.leafPages,
      seen.overflowPages == tree.overflowPages,
      seen.entries == tree.entries
    else {
      throw damage(
        tree.root,
        "the tree has \(seen.entries) entries on \(seen.leafPages) leaves, it is said to have \(tree.entries) on \(tree.leafPages)"
      )
    }
  }

  /// The keys that a page may have, by what the branches above it say: from the first, before the second.
  private struct Bounds {
    var first: UnsafeRawBufferPointer?
    var end: UnsafeRawBufferPointer?
  }

  private mutating func walk(
    _ number: Int, level: Int, _ tree: Tree, _ content: Content, _ seen: inout Seen, _ bounds: Bounds
  ) throws(StateError) {
    try visit(number)
    let page = try page(number)
    guard Int(truncatingIfNeeded: page.loadUnaligned(as: UInt64.self)) == number else {
      throw damage(number, "it bears another number")
    }
    let flags = page.loadUnaligned(fromByteOffset: 10, as: UInt16.self) & ~PageFlag.dirty
    let isLeaf = level == tree.depth
    guard flags & ~PageFlag.fixedSize == (isLeaf ? PageFlag.leaf : PageFlag.branch) else {
      throw damage(number, "it is of kind \(flags) at level \(level) of \(tree.depth)")
    }
    if isLeaf { seen.leafPages += 1 } else { seen.branchPages += 1 }
    if flags & PageFlag.fixedSize != 0 { throw damage(number, "it has keys of one size, which state never has") }
    let nodes = try nodePlaces(page, number)
    guard nodes >= (isLeaf ? 1 : 2) else { throw damage(number, "it has \(nodes) nodes") }
    guard isLeaf else {
      for index in 0..<nodes {
        let node = try node(page, index, number)
        // The first child takes what comes before the second; its own key says nothing.
        let within = Bounds(
          first: index == 0 ? bounds.first : node.key,
          end: index + 1 < nodes ? try self.node(page, index + 1, number).key : bounds.end)
        let child = Int(node.low) | Int(node.high) << 16 | Int(node.flags) << 32
        try walk(child, level: level + 1, tree, content, &seen, within)
      }
      return
    }
    var last: UnsafeRawBufferPointer?
    for index in 0..<nodes {
      let node = try node(page, index, number)
      guard last.map({ ascends($0, node.key, tree) }) ?? !(bounds.first.map { ascends(node.key, $0, tree) } ?? false)
      else {
        throw damage(number, "its keys are not in order")
      }
      last = node.key
      try leaf(node, page, tree, content, &seen, number)
    }
    if let last, let end = bounds.end, !ascends(last, end, tree) {
      throw damage(number, "it has keys that the branch above it looks for elsewhere")
    }
  }

  private struct Node {
    var low: UInt16
    var high: UInt16
    var flags: UInt16
    var key: UnsafeRawBufferPointer
    /// What follows the key on the page.
    var rest: UnsafeRawBufferPointer
    var dataSize: Int { Int(low) | Int(high) << 16 }
  }

  /// Number of nodes on a page, which all lie within it.
  private func nodePlaces(_ page: UnsafeRawBufferPointer, _ number: Int) throws(StateError) -> Int {
    let lower = Int(page.loadUnaligned(fromByteOffset: 12, as: UInt16.self))
    let upper = Int(page.loadUnaligned(fromByteOffset: 14, as: UInt16.self))
    guard lower >= Self.headerSize, lower <= upper, upper <= page.count, lower % 2 == 0 else {
      throw damage(number, "its free space is \(lower) to \(upper)")
    }
    return (lower - Self.headerSize) / 2
  }

  private func node(_ page: UnsafeRawBufferPointer, _ index: Int, _ number: Int) throws(StateError) -> Node {
    let place = Int(page.loadUnaligned(fromByteOffset: Self.headerSize + 2 * index, as: UInt16.self))
    guard place >= Self.headerSize, place + Self.nodeSize <= page.count else {
      throw damage(number, "node \(index) lies at \(place)")
    }
    let keySize = Int(page.loadUnaligned(fromByteOffset: place + 6, as: UInt16.self))
    let start = place + Self.nodeSize
    guard start + keySize <= page.count else { throw damage(number, "node \(index) has a key of \(keySize) bytes") }
    return Node(
      low: page.loadUnaligned(fromByteOffset: place, as: UInt16.self),
      high: page.loadUnaligned(fromByteOffset: place + 2, as: UInt16.self),
      flags: page.loadUnaligned(fromByteOffset: place + 4, as: UInt16.self),
      key: UnsafeRawBufferPointer(rebasing: page[start..<start + keySize]),
      rest: UnsafeRawBufferPointer(rebasing: page[(start + keySize)...]))
  }

  private func ascends(_ key: UnsafeRawBufferPointer, _ next: UnsafeRawBufferPointer, _ tree: Tree) -> Bool {
    guard tree.isIntegerKeyed, key.count == 8, next.count == 8 else { return precedes(key, next) }
    return key.loadUnaligned(as: UInt64.self) < next.loadUnaligned(as: UInt64.self)
  }

  private mutating func leaf(
    _ node: Node, _ page: UnsafeRawBufferPointer, _ tree: Tree, _ content: Content, _ seen: inout Seen, _ number: Int
  ) throws(StateError) {
    if node.flags & NodeFlag.duplicates != 0 { return try duplicates(node, &seen, number) }
    seen.entries += 1
    let data: UnsafeRawBufferPointer
    if node.flags & NodeFlag.bigData != 0 {
      guard node.rest.count >= 8 else { throw damage(number, "a node ends early") }
      data = try overflow(
        Int(truncatingIfNeeded: node.rest.loadUnaligned(as: UInt64.self)), size: node.dataSize, &seen)
    } else {
      guard node.dataSize <= node.rest.count else {
        throw damage(number, "a value of \(node.dataSize) bytes on one page")
      }
      data = UnsafeRawBufferPointer(rebasing: node.rest[..<node.dataSize])
    }
    switch content {
    case .names:
      guard node.flags & NodeFlag.subDatabase != 0, data.count == Tree.size else {
        throw damage(number, "the list of databases has an entry that is none")
      }
      let (name, tree) = (String(decoding: node.key, as: UTF8.self), Tree(data))
      guard Self.databases[name] == tree.flags else {
        throw damage(number, "the database \(name) has flags \(tree.flags)")
      }
      try walk(tree, name == "entries" ? .entries : .other)
    case .entries:
      guard node.flags & NodeFlag.subDatabase == 0, StateReader.isSound(data, of: node.key) else {
        throw damage(number, "the entry \(readable(node.key)) does not fit its checksum")
      }
    case .freeList: try free(data, number)
    case .other: break
    }
  }

  /// Values of one key: a page in the page, or a tree of their own.
  private mutating func duplicates(_ node: Node, _ seen: inout Seen, _ number: Int) throws(StateError) {
    guard node.dataSize <= node.rest.count else { throw damage(number, "a node of \(node.dataSize) bytes on one page") }
    let data = UnsafeRawBufferPointer(rebasing: node.rest[..<node.dataSize])
    if node.flags & NodeFlag.subDatabase != 0 {
      guard data.count == Tree.size else {
        throw damage(number, "a tree of values is described in \(data.count) bytes")
      }
      let tree = Tree(data)
      guard tree.flags == 0, tree.entries >= 0, tree.entries <= file.count else {
        throw damage(number, "a tree of \(tree.entries) values with flags \(tree.flags)")
      }
      seen.entries += tree.entries
      return try walk(tree, .other)
    }
    guard data.count >= Self.headerSize,
      data.loadUnaligned(fromByteOffset: 10, as: UInt16.self) & PageFlag.subPage != 0,
      data.loadUnaligned(fromByteOffset: 10, as: UInt16.self) & PageFlag.fixedSize == 0
    else { throw damage(number, "the values of a key are no page") }
    let lower = Int(data.loadUnaligned(fromByteOffset: 12, as: UInt16.self))
    guard lower > Self.headerSize, lower <= data.count else {
      throw damage(number, "the values of a key end at \(lower)")
    }
    var last: UnsafeRawBufferPointer?
    for index in 0..<(lower - Self.headerSize) / 2 {
      let value = try self.node(data, index, number)
      if let previous = last, !precedes(previous, value.key) {
        throw damage(number, "the values of a key are not in order")
      }
      last = value.key
      seen.entries += 1
    }
  }

  private mutating func overflow(_ first: Int, size: Int, _ seen: inout Seen) throws(StateError)
    -> UnsafeRawBufferPointer
  {
    try visit(first)
    let head = try page(first)
    // A value that became smaller within one transaction keeps its pages.
    let count = Int(head.loadUnaligned(fromByteOffset: 12, as: UInt32.self))
    guard Int(truncatingIfNeeded: head.loadUnaligned(as: UInt64.self)) == first,
      head.loadUnaligned(fromByteOffset: 10, as: UInt16.self) & PageFlag.overflow != 0,
      count >= (Self.headerSize + size + pageSize - 1) / pageSize
    else { throw damage(first, "it does not hold the \(size) bytes that it should") }
    let pages = try page(first, count: count)
    if count > 1 { try visit(first + 1, count: count - 1) }
    seen.overflowPages += count
    return UnsafeRawBufferPointer(rebasing: pages[Self.headerSize..<Self.headerSize + size])
  }

  /// Pages that may be used again must not be in use.
  private mutating func free(_ data: UnsafeRawBufferPointer, _ number: Int) throws(StateError) {
    guard data.count >= 8 else { throw damage(number, "a list of free pages has \(data.count) bytes") }
    let count = Int(truncatingIfNeeded: data.loadUnaligned(as: UInt64.self))
    guard count >= 0, count <= data.count / 8 - 1 else { throw damage(number, "a list of \(count) free pages") }
    for index in 1..<count + 1 {
      try visit(Int(truncatingIfNeeded: data.loadUnaligned(fromByteOffset: 8 * index, as: UInt64.self)))
    }
  }
}
