internal import CGrapeLinux
internal import Glibc
public import GrapeState
public import GrapeWire

/// Copies of state: one LMDB file of a partition (docs/data-format.md, State), compact, complete in itself, and changed by nobody.
public enum StateCopy {
  /// Bytes of entries in one transaction of the copy.
  private static let transactionBytes = 8 * 1024 * 1024

  /// Writes what `snapshot` shows to the new file `path`, and has it on the disk when it returns. What there is of a copy that fails is removed.
  ///
  /// - Parameters:
  ///   - taken: when the snapshot was taken, milliseconds since 1970.
  ///   - progress: called now and then with the number of entries copied; false: the copy is broken off (`unavailable`).
  /// - Returns: bytes of the file.
  @discardableResult
  public static func write(
    _ snapshot: any StateSnapshot, to path: String, taken: Int64, progress: (Int) -> Bool = { _ in true }
  ) throws(StateError) -> Int {
    guard access(path, F_OK) != 0 else { throw StateError(.system, "\(path) is there already") }
    do throws(StateError) {
      let target = try Target(path, mapSize: mapSize(for: snapshot.byteCount))
      var copied = 0
      try snapshot.scan(from: ByteSlice([])) { (key, entry) throws(StateError) in
        try target.add(key, entry)
        copied += 1
        if copied % 4096 == 0, !progress(copied) { throw StateError(.unavailable, "the copy was broken off") }
        return true
      }
      guard copied == snapshot.count else {
        throw StateError(.corrupt, "\(copied) entries were found, there should be \(snapshot.count)")
      }
      try target.finish(snapshot.position, taken: taken)
      _ = progress(copied)
      return try fileSize(path)
    } catch {
      unlink(path)
      throw error
    }
  }

  /// Address space that is enough however the copy's pages are filled.
  private static func mapSize(for size: Int) -> Int {
    var mapSize = 64 * 1024 * 1024
    while mapSize < 4 * size { mapSize *= 2 }
    return mapSize
  }

  /// The file that is being written.
  private final class Target {
    private let environment: LMDBEnvironment
    private var writer: StateWriter?
    private var bytes = 0

    init(_ path: String, mapSize: Int) throws(StateError) {
      environment = try LMDBEnvironment(file: path, mapSize: mapSize)
    }

    func add(_ key: UnsafeRawBufferPointer, _ entry: UnsafeRawBufferPointer) throws(StateError) {
      if writer == nil { writer = try StateWriter(environment) }
      try writer?.set(key, entry, appending: true)
      bytes += key.count + entry.count
      guard bytes >= StateCopy.transactionBytes else { return }
      bytes = 0
      // The position comes last: until then it is no state.
      try writer.take()?.commit(.start)
    }

    func finish(_ position: StatePosition, taken: Int64) throws(StateError) {
      if writer == nil { writer = try StateWriter(environment) }
      try writer?.setTaken(taken)
      try writer.take()?.commit(position)
      try environment.sync()
    }
  }

  // MARK: Reading

  /// What a copy has.
  public struct Content: Sendable {
    public var position: StatePosition
    /// Milliseconds since 1970.
    public var takenAt: Int64
    public var entries: Int
  }

  /// Checks a copy: structure, order, checksums, indexes. Throws `corrupt` (or `notFound`, `unsupported`) with what is wrong.
  public static func check(_ path: String) throws(StateError) -> Content {
    let content = try LMDBFileCheck.check(path)
    guard let position = content.position, let takenAt = content.takenAt else {
      throw StateError(.corrupt, "\(path) does not say what it is a copy of")
    }
    return Content(position: position, takenAt: takenAt, entries: content.entries)
  }

  /// Walks the entries of a copy that was checked, from the key `first` on, in order, until `body` returns false.
  public static func scan(
    _ path: String, from first: ByteSlice,
    _ body: (_ key: UnsafeRawBufferPointer, _ entry: UnsafeRawBufferPointer) throws(StateError) -> Bool
  ) throws(StateError) {
    let map = try LMDBFileMap(path)
    defer { withExtendedLifetime(map) {} }
    var pages = LMDBPages(file: map.bytes, path: path)
    let meta = try pages.newestMeta()
    pages.pageSize = meta.pageSize
    var scan = try LMDBEntryScan(
      pages, try LMDBEntryScan.database("entries", pages, meta.main), from: first.unsafeBytes)
    while let next = try scan.next() {
      guard try body(next.key, next.entry) else { return }
    }
    withExtendedLifetime(first) {}
  }
}
