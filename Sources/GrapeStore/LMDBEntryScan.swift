internal import GrapeState
internal import GrapeWire

/// Walks the entries that one transaction left in an LMDB file, in order, page by page, without LMDB. Each is held against its checksum, and the
/// order of keys is looked at, so that it ends on whatever it is shown.
struct LMDBEntryScan {
  private let pages: LMDBPages
  private let tree: LMDBPages.Tree
  /// From the root to a leaf: page, and the node to be looked at next (on a leaf) or the one that was descended from.
  private var path: [(page: Int, index: Int, nodes: Int)] = []
  private var last: UnsafeRawBufferPointer?

  /// Begins with the first entry whose key is not before `first`.
  init(_ pages: LMDBPages, _ tree: LMDBPages.Tree, from first: UnsafeRawBufferPointer) throws(StateError) {
    self.pages = pages
    self.tree = tree
    guard !tree.isEmpty else { return }
    guard (1...32).contains(tree.depth) else { throw pages.damage(tree.root, "a tree of depth \(tree.depth)") }
    try descend(to: tree.root, first)
    // What was found may lie at the end of its leaf.
    while let next = try peek(), precedes(next.key, first) { path[path.count - 1].index += 1 }
  }

  /// The database `name` in the list of databases.
  static func database(_ name: String, _ pages: LMDBPages, _ main: LMDBPages.Tree) throws(StateError) -> LMDBPages.Tree
  {
    let wanted = ByteSlice(name)
    var scan = try LMDBEntryScan(pages, main, from: wanted.unsafeBytes)
    guard let found = try scan.nextNode(), found.node.key.elementsEqual(wanted.unsafeBytes) else {
      throw StateError(.corrupt, "\(pages.path) has no database \(name)")
    }
    withExtendedLifetime(wanted) {}
    let data = try pages.data(of: found.node, found.page).bytes
    guard data.count == LMDBPages.Tree.size else {
      throw pages.damage(found.page, "the list of databases has an entry that is none")
    }
    return LMDBPages.Tree(data)
  }

  /// The next entry with its key; nil: there is none.
  mutating func next() throws(StateError) -> (key: UnsafeRawBufferPointer, entry: UnsafeRawBufferPointer)? {
    guard let found = try nextNode() else { return nil }
    let key = found.node.key
    if let last, !precedes(last, key) { throw pages.damage(found.page, "its keys are not in order") }
    last = key
    let stored = try pages.data(of: found.node, found.page).bytes
    guard StateReader.isSound(stored, of: key) else {
      throw pages.damage(found.page, "the entry \(readable(key)) does not fit its checksum")
    }
    return (key, try StateReader.entry(in: stored))
  }

  private mutating func nextNode() throws(StateError) -> (node: LMDBPages.Node, page: Int)? {
    guard let found = try peek() else { return nil }
    let page = path[path.count - 1].page
    path[path.count - 1].index += 1
    return (found, page)
  }

  /// The node that is next, on whichever leaf.
  private mutating func peek() throws(StateError) -> LMDBPages.Node? {
    while let top = path.last {
      if top.index < top.nodes {
        let (page, _) = try pages.treePage(top.page, level: path.count, of: tree)
        if path.count == tree.depth { return try pages.node(page, top.index, top.page) }
        try descend(to: try pages.node(page, top.index, top.page).child, nil)
      } else {
        path.removeLast()
        if !path.isEmpty { path[path.count - 1].index += 1 }
      }
    }
    return nil
  }

  /// Goes down to a leaf: to where `key` would be, or to the first.
  private mutating func descend(to root: Int, _ key: UnsafeRawBufferPointer?) throws(StateError) {
    var number = root
    while true {
      let level = path.count + 1
      let (page, nodes) = try pages.treePage(number, level: level, of: tree)
      var index = 0
      if let key {
        // The last node whose key is not behind the one that is looked for; on a branch the first node's key says nothing.
        var (low, high) = (level == tree.depth ? 0 : 1, nodes)
        while low < high {
          let middle = (low + high) / 2
          if precedes(key, try pages.node(page, middle, number).key) { high = middle } else { low = middle + 1 }
        }
        index = max(0, low - 1)
      }
      path.append((number, index, nodes))
      if level == tree.depth { return }
      number = try pages.node(page, index, number).child
    }
  }
}
