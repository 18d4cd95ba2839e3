internal import CGrapeLinux
internal import Glibc
internal import GrapeState

/// A file of LMDB 0.9 on a 64-bit machine, read page by page without LMDB, which trusts what it reads: everything is held against
/// the file's bounds first.
struct LMDBPages {
  let file: UnsafeRawBufferPointer
  let path: String
  var pageSize = 4096

  enum PageFlag {
    static let branch: UInt16 = 0x01
    static let leaf: UInt16 = 0x02
    static let overflow: UInt16 = 0x04
    static let meta: UInt16 = 0x08
    static let dirty: UInt16 = 0x10
    static let fixedSize: UInt16 = 0x20
    static let subPage: UInt16 = 0x40
  }

  enum NodeFlag {
    static let bigData: UInt16 = 0x01
    static let subDatabase: UInt16 = 0x02
    static let duplicates: UInt16 = 0x04
  }

  /// `MDB_db`.
  struct Tree: Sendable {
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

  /// What one of the two first pages says: where the trees of a transaction begin.
  struct Meta: Sendable {
    var pageSize: Int
    var free: Tree
    var main: Tree
    var mapSize: Int
    var lastPage: Int
    var transaction: UInt64
  }

  struct Node {
    var low: UInt16
    var high: UInt16
    var flags: UInt16
    var key: UnsafeRawBufferPointer
    /// What follows the key on the page.
    var rest: UnsafeRawBufferPointer
    var dataSize: Int { Int(low) | Int(high) << 16 }
    /// Of a node on a branch page.
    var child: Int { Int(low) | Int(high) << 16 | Int(flags) << 32 }
  }

  static let headerSize = 16
  static let nodeSize = 8

  func damage(_ page: Int, _ what: String) -> StateError { StateError(.corrupt, "\(path), page \(page): \(what)") }

  // MARK: Meta pages

  /// What the last transaction left.
  func newestMeta() throws(StateError) -> Meta {
    guard let first = try meta(at: 0) else { throw damage(0, "neither of the two meta pages is sound") }
    let second = try meta(at: first.pageSize)
    return second.map { $0.transaction > first.transaction ? $0 : first } ?? first
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

  // MARK: Pages of trees

  func page(_ number: Int, count: Int = 1) throws(StateError) -> UnsafeRawBufferPointer {
    guard number >= 0, count > 0, number <= file.count / pageSize - count else {
      throw damage(number, "the file ends before it")
    }
    return UnsafeRawBufferPointer(rebasing: file[number * pageSize..<(number + count) * pageSize])
  }

  /// A page of a tree, at `level` of its depth, and the number of its nodes.
  func treePage(
    _ number: Int, level: Int, of tree: Tree
  ) throws(StateError) -> (page: UnsafeRawBufferPointer, nodes: Int) {
    let page = try page(number)
    guard Int(truncatingIfNeeded: page.loadUnaligned(as: UInt64.self)) == number else {
      throw damage(number, "it bears another number")
    }
    let flags = page.loadUnaligned(fromByteOffset: 10, as: UInt16.self) & ~PageFlag.dirty
    let isLeaf = level == tree.depth
    guard flags & ~PageFlag.fixedSize == (isLeaf ? PageFlag.leaf : PageFlag.branch) else {
      throw damage(number, "it is of kind \(flags) at level \(level) of \(tree.depth)")
    }
    if flags & PageFlag.fixedSize != 0 { throw damage(number, "it has keys of one size, which state never has") }
    let nodes = try nodePlaces(page, number)
    guard nodes >= (isLeaf ? 1 : 2) else { throw damage(number, "it has \(nodes) nodes") }
    return (page, nodes)
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

  func node(_ page: UnsafeRawBufferPointer, _ index: Int, _ number: Int) throws(StateError) -> Node {
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

  /// The data of a leaf's node, and on which pages of its own it lies, if it does.
  func data(
    of node: Node, _ number: Int
  ) throws(StateError) -> (bytes: UnsafeRawBufferPointer, overflow: Range<Int>?) {
    guard node.flags & NodeFlag.bigData != 0 else {
      guard node.dataSize <= node.rest.count else {
        throw damage(number, "a value of \(node.dataSize) bytes on one page")
      }
      return (UnsafeRawBufferPointer(rebasing: node.rest[..<node.dataSize]), nil)
    }
    guard node.rest.count >= 8 else { throw damage(number, "a node ends early") }
    let first = Int(truncatingIfNeeded: node.rest.loadUnaligned(as: UInt64.self))
    let head = try page(first)
    // A value that became smaller within one transaction keeps its pages.
    let count = Int(head.loadUnaligned(fromByteOffset: 12, as: UInt32.self))
    guard Int(truncatingIfNeeded: head.loadUnaligned(as: UInt64.self)) == first,
      head.loadUnaligned(fromByteOffset: 10, as: UInt16.self) & PageFlag.overflow != 0,
      count >= (Self.headerSize + node.dataSize + pageSize - 1) / pageSize
    else { throw damage(first, "it does not hold the \(node.dataSize) bytes that it should") }
    let pages = try page(first, count: count)
    return (
      UnsafeRawBufferPointer(rebasing: pages[Self.headerSize..<Self.headerSize + node.dataSize]), first..<first + count
    )
  }
}

/// A file in memory, for reading, as long as this lives.
final class LMDBFileMap: @unchecked Sendable {
  // Sendable: nothing changes after `init`; the memory is only read.
  let bytes: UnsafeRawBufferPointer

  /// `notFound` if there is no such file, `corrupt` if it is shorter than any LMDB file.
  init(_ path: String) throws(StateError) {
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
    bytes = UnsafeRawBufferPointer(start: base, count: size)
  }

  deinit { munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress!), bytes.count) }
}
