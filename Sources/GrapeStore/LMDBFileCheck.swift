internal import Glibc
package import GrapeState
internal import GrapeWire

/// Looks through an LMDB file before LMDB does: LMDB trusts its pages, and a damaged one could end the process or show what was never
/// written. Every page in use is visited once: the trees must be whole, in order, without a page in common, entries must
/// fit their checksums, and indexes their entries. O(size of the file).
package struct LMDBFileCheck {
  /// What a sound file has.
  package struct Content {
    /// nil: nothing was ever written.
    package var position: StatePosition?
    /// When a checkpoint or a backup was taken, milliseconds since 1970; nil: it is none.
    package var takenAt: Int64?
    package var entries = 0
    /// Entries that do not fit their checksums, and indexes that do not fit their entries, a line each; `check` throws the first.
    package var problems: [String] = []
  }

  private var pages: LMDBPages
  private var pageCount = 0
  /// Pages of the file met so far, a bit each.
  private var met: [UInt64] = []
  /// Those behind the file's end, which are free and were never written.
  private var metBeyond: Set<Int> = []
  private var content = Content()
  private var expiries = IndexSums()
  private var tags = IndexSums()
  /// The key whose values are walked, of a database with several values per key.
  private var place: UnsafeRawBufferPointer?

  /// Checks a file that nobody changes. Throws `corrupt` (or `notFound`, `unsupported`) with what is wrong and where.
  @discardableResult
  package static func check(_ path: String) throws(StateError) -> Content {
    let map = try LMDBFileMap(path)
    let content = try look(through: map, path: path, meta: nil)
    guard content.problems.isEmpty else { throw StateError(.corrupt, "\(path): \(content.problems[0])") }
    return content
  }

  /// The same for what one transaction left in a file that others change, nil: the last. Damage to entries and indexes alone is
  /// not thrown: all of it is told, up to a limit.
  static func look(through map: LMDBFileMap, path: String, meta: LMDBPages.Meta?) throws(StateError) -> Content {
    if meta == nil {
      _ = madvise(UnsafeMutableRawPointer(mutating: map.bytes.baseAddress!), map.bytes.count, MADV_SEQUENTIAL)
    }
    var check = LMDBFileCheck(pages: LMDBPages(file: map.bytes, path: path))
    try check.run(meta)
    withExtendedLifetime(map) {}
    return check.content
  }

  private init(pages: LMDBPages) { self.pages = pages }

  /// What was seen of a tree.
  private struct Seen {
    var branchPages = 0
    var leafPages = 0
    var overflowPages = 0
    var entries = 0
  }

  /// What stands in a leaf.
  private enum Kind { case freeList, names, meta, entries, expiry, tags }

  private func damage(_ page: Int, _ what: String) -> StateError { pages.damage(page, what) }

  private mutating func note(_ problem: String) {
    if content.problems.count < Self.problemLimit { content.problems.append(problem) }
  }

  // MARK: The walk

  private mutating func run(_ wanted: LMDBPages.Meta?) throws(StateError) {
    let newest: LMDBPages.Meta
    if let wanted { newest = wanted } else { newest = try pages.newestMeta() }
    pages.pageSize = newest.pageSize
    guard newest.lastPage >= 1, newest.lastPage < Self.largestMap / newest.pageSize, newest.mapSize <= Self.largestMap
    else {
      throw damage(0, "the last page is said to be \(newest.lastPage), the map to have \(newest.mapSize) bytes")
    }
    // Flags say how keys are compared, and how the file is mapped; 0x4000 that it was made as a file without a folder of its own.
    guard newest.free.flags & ~0x4000 == 0x08, newest.main.flags == 0 else {
      throw damage(0, "it has flags \(newest.free.flags) and \(newest.main.flags)")
    }
    pageCount = newest.lastPage + 1
    let filePages = pages.file.count / newest.pageSize
    met = [UInt64](repeating: 0, count: (filePages + 63) / 64)
    try visit(0, count: 2)
    // A page that is free may lie behind the file's end: it was never written.
    try walk(newest.main, .names)
    try walk(newest.free, .freeList)
    // Pages that are neither in the file nor free do not exist: with them the file would grow without need.
    guard newest.lastPage <= max(filePages - 1, metBeyond.max() ?? 0) else {
      throw damage(0, "the last page is said to be \(newest.lastPage), the file has \(filePages)")
    }
    if let problem = expiries.problem("expiries") { note(problem) }
    if let problem = tags.problem("tags") { note(problem) }
  }

  /// Lines told at most.
  private static let problemLimit = 100
  /// What a store's map has at most.
  private static let largestMap = 1 << 46
  private static let databases: [String: (flags: UInt16, kind: Kind)] = [
    "meta": (0, .meta), "entries": (0, .entries), "expiry": (0x04, .expiry), "tags": (0x04, .tags),
  ]

  private mutating func visit(_ page: Int, count: Int = 1) throws(StateError) {
    guard page >= 0, count > 0, page <= pageCount - count else {
      throw damage(page, "it lies behind the last page, \(pageCount - 1)")
    }
    for number in page..<page + count {
      if number >= pages.file.count / pages.pageSize {
        guard metBeyond.insert(number).inserted else { throw damage(number, "it is used twice") }
        continue
      }
      guard met[number >> 6] & (1 << UInt64(number & 63)) == 0 else { throw damage(number, "it is used twice") }
      met[number >> 6] |= 1 << UInt64(number & 63)
    }
  }

  private mutating func walk(_ tree: LMDBPages.Tree, _ kind: Kind) throws(StateError) {
    var seen = Seen()
    if tree.isEmpty {
      guard tree.entries == 0, tree.depth == 0 else {
        throw damage(-1, "a tree without root has \(tree.entries) entries")
      }
      return
    }
    guard (1...32).contains(tree.depth) else { throw damage(tree.root, "a tree of depth \(tree.depth)") }
    try walk(tree.root, level: 1, tree, kind, &seen, Bounds())
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
    _ number: Int, level: Int, _ tree: LMDBPages.Tree, _ kind: Kind, _ seen: inout Seen, _ bounds: Bounds
  ) throws(StateError) {
    try visit(number)
    let (page, nodes) = try pages.treePage(number, level: level, of: tree)
    let isLeaf = level == tree.depth
    if isLeaf { seen.leafPages += 1 } else { seen.branchPages += 1 }
    guard isLeaf else {
      for index in 0..<nodes {
        let node = try pages.node(page, index, number)
        // The first child takes what comes before the second; its own key says nothing.
        let within = Bounds(
          first: index == 0 ? bounds.first : node.key,
          end: index + 1 < nodes ? try pages.node(page, index + 1, number).key : bounds.end)
        try walk(node.child, level: level + 1, tree, kind, &seen, within)
      }
      return
    }
    var last: UnsafeRawBufferPointer?
    for index in 0..<nodes {
      let node = try pages.node(page, index, number)
      guard last.map({ ascends($0, node.key, tree) }) ?? !(bounds.first.map { ascends(node.key, $0, tree) } ?? false)
      else {
        throw damage(number, "its keys are not in order")
      }
      last = node.key
      try leaf(node, kind, &seen, number)
    }
    if let last, let end = bounds.end, !ascends(last, end, tree) {
      throw damage(number, "it has keys that the branch above it looks for elsewhere")
    }
  }

  private func ascends(
    _ key: UnsafeRawBufferPointer, _ next: UnsafeRawBufferPointer, _ tree: LMDBPages.Tree
  ) -> Bool {
    guard tree.isIntegerKeyed, key.count == 8, next.count == 8 else { return precedes(key, next) }
    return key.loadUnaligned(as: UInt64.self) < next.loadUnaligned(as: UInt64.self)
  }

  private mutating func leaf(
    _ node: LMDBPages.Node, _ kind: Kind, _ seen: inout Seen, _ number: Int
  ) throws(StateError) {
    if node.flags & LMDBPages.NodeFlag.duplicates != 0 { return try duplicates(node, kind, &seen, number) }
    seen.entries += 1
    let (data, overflow) = try pages.data(of: node, number)
    if let overflow {
      try visit(overflow.lowerBound, count: overflow.count)
      seen.overflowPages += overflow.count
    }
    let isTree = node.flags & LMDBPages.NodeFlag.subDatabase != 0
    guard isTree == (kind == .names) else { throw damage(number, "it has a node with flags \(node.flags)") }
    switch kind {
    case .names:
      guard data.count == LMDBPages.Tree.size else {
        throw damage(number, "the list of databases has an entry that is none")
      }
      let (name, tree) = (String(decoding: node.key, as: UTF8.self), LMDBPages.Tree(data))
      guard let database = Self.databases[name], database.flags == tree.flags else {
        throw damage(number, "the database \(name) has flags \(tree.flags)")
      }
      try walk(tree, database.kind)
    case .meta: try meta(node.key, data)
    case .entries: entry(node.key, data)
    case .expiry, .tags: take(place ?? node.key, place == nil ? data : node.key, kind)
    case .freeList: try free(data, number)
    }
  }

  private mutating func meta(_ key: UnsafeRawBufferPointer, _ data: UnsafeRawBufferPointer) throws(StateError) {
    switch String(decoding: key, as: UTF8.self) {
    case "position": content.position = try StatePosition(data)
    case "taken":
      guard data.count == 8 else { throw StateError(.corrupt, "\(pages.path): its time has \(data.count) bytes") }
      content.takenAt = Int64(bigEndian: data.loadUnaligned(as: Int64.self))
    default: break
    }
  }

  private mutating func entry(_ key: UnsafeRawBufferPointer, _ stored: UnsafeRawBufferPointer) {
    content.entries += 1
    do throws(StateError) {
      guard StateReader.isSound(stored, of: key) else { throw StateError(.corrupt, "it does not fit its checksum") }
      let entry = try StateEntry(StateReader.entry(in: stored))
      if entry.expiry == nil, !entry.hasTags { return }
      try StateWriter.forEachPlace(key, entry) { (isExpiry, place, value) in
        if isExpiry { expiries.expect(place, value) } else { tags.expect(place, value) }
      }
    } catch {
      note("entry \(readable(key)): \(error.message)")
    }
  }

  private mutating func take(_ place: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, _ kind: Kind) {
    if kind == .expiry { expiries.found(place, value) } else { tags.found(place, value) }
  }

  /// Values of one key: a page in the page, or a tree of their own.
  private mutating func duplicates(
    _ node: LMDBPages.Node, _ kind: Kind, _ seen: inout Seen, _ number: Int
  ) throws(StateError) {
    guard kind == .expiry || kind == .tags, place == nil else {
      throw damage(number, "a key has several values, where there is one")
    }
    guard node.dataSize <= node.rest.count else { throw damage(number, "a node of \(node.dataSize) bytes on one page") }
    let data = UnsafeRawBufferPointer(rebasing: node.rest[..<node.dataSize])
    if node.flags & LMDBPages.NodeFlag.subDatabase != 0 {
      guard data.count == LMDBPages.Tree.size else {
        throw damage(number, "a tree of values is described in \(data.count) bytes")
      }
      let tree = LMDBPages.Tree(data)
      guard tree.flags == 0, tree.entries >= 0, tree.entries <= pages.file.count else {
        throw damage(number, "a tree of \(tree.entries) values with flags \(tree.flags)")
      }
      seen.entries += tree.entries
      place = node.key
      try walk(tree, kind)
      place = nil
      return
    }
    guard data.count >= LMDBPages.headerSize,
      data.loadUnaligned(fromByteOffset: 10, as: UInt16.self) & LMDBPages.PageFlag.subPage != 0,
      data.loadUnaligned(fromByteOffset: 10, as: UInt16.self) & LMDBPages.PageFlag.fixedSize == 0
    else { throw damage(number, "the values of a key are no page") }
    let lower = Int(data.loadUnaligned(fromByteOffset: 12, as: UInt16.self))
    guard lower > LMDBPages.headerSize, lower <= data.count else {
      throw damage(number, "the values of a key end at \(lower)")
    }
    var last: UnsafeRawBufferPointer?
    for index in 0..<(lower - LMDBPages.headerSize) / 2 {
      let value = try pages.node(data, index, number)
      if let previous = last, !precedes(previous, value.key) {
        throw damage(number, "the values of a key are not in order")
      }
      last = value.key
      seen.entries += 1
      take(node.key, value.key, kind)
    }
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

/// Two sets, of which it is to be known whether they are the same, in no memory: members are hashed with a key of
/// this process, and the hashes summed up.
private struct IndexSums {
  private var expected: (count: Int, sum: UInt64) = (0, 0)
  private var present: (count: Int, sum: UInt64) = (0, 0)

  mutating func expect(_ place: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) {
    Self.add(place, value, to: &expected)
  }

  mutating func found(_ place: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) {
    Self.add(place, value, to: &present)
  }

  private static func add(
    _ place: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, to sums: inout (count: Int, sum: UInt64)
  ) {
    var hasher = Hasher()
    hasher.combine(place.count)
    hasher.combine(bytes: place)
    hasher.combine(bytes: value)
    sums.count += 1
    sums.sum &+= UInt64(bitPattern: Int64(hasher.finalize()))
  }

  func problem(_ name: String) -> String? {
    if expected.count != present.count {
      return "entries have \(expected.count) \(name), their index has \(present.count)"
    }
    return expected.sum == present.sum ? nil : "the index of \(name) does not fit the entries"
  }
}
