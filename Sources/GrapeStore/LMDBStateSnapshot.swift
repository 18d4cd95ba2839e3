internal import GrapeState
internal import GrapeWire
internal import Synchronization

/// What one transaction left in an LMDB file, while later ones change the file.
///
/// A read transaction that reads nothing tells LMDB's writer to leave the pages alone; they are read from a mapping of our own, by code
/// that trusts nothing. So nothing here stands in the writer's way, which may even move its map, and damage is found where LMDB would crash.
final class LMDBStateSnapshot: StateSnapshot, @unchecked Sendable {
  // Sendable: what changes is behind `pin`'s lock.
  let position: StatePosition
  let count: Int
  private let path: String
  private let meta: LMDBPages.Meta
  /// Keeps the pages; nil: ended.
  private let pin: Mutex<Pin?>

  private struct Pin: @unchecked Sendable {
    // Sendable: a read transaction without thread-local storage may be ended on any thread, and nothing else is done with it.
    let reader: StateReader
  }

  /// Entries between two looks at whether it was ended.
  private static let stride = 256

  /// On the thread that writes the environment, between two transactions.
  init(_ environment: LMDBEnvironment, file path: String) throws(StateError) {
    let reader = StateReader(environment)
    try reader.begin()
    position = try reader.position() ?? .start
    count = try reader.count()
    let map = try LMDBFileMap(path)
    meta = try LMDBPages(file: map.bytes, path: path).newestMeta()
    withExtendedLifetime(map) {}
    guard meta.transaction == reader.transactionNumber else {
      throw StateError(
        .corrupt, "\(path) ends with transaction \(meta.transaction), LMDB reads \(reader.transactionNumber)")
    }
    self.path = path
    pin = Mutex(Pin(reader: reader))
  }

  var byteCount: Int { (meta.lastPage + 1) * meta.pageSize }

  private func checkHeld() throws(StateError) {
    guard pin.withLock({ $0 != nil }) else {
      throw StateError(.unavailable, "the state in \(path) was closed meanwhile")
    }
  }

  /// What `body` found is only believed if the pages were kept all the time.
  private func whileHeld<Value>(_ body: () throws(StateError) -> Value) throws(StateError) -> Value {
    try checkHeld()
    do throws(StateError) {
      let value = try body()
      try checkHeld()
      return value
    } catch {
      try checkHeld()
      throw error
    }
  }

  func problems() throws(StateError) -> [String] {
    try whileHeld { () throws(StateError) in
      do throws(StateError) {
        return try LMDBFileCheck.look(through: try LMDBFileMap(path), path: path, meta: meta).problems
      } catch {
        guard error.code == .corrupt else { throw error }
        return [error.message]
      }
    }
  }

  func scan(
    from first: ByteSlice, _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) throws(StateError) -> Bool
  ) throws(StateError) {
    try whileHeld { () throws(StateError) in
      let map = try LMDBFileMap(path)
      defer { withExtendedLifetime(map) {} }
      var pages = LMDBPages(file: map.bytes, path: path)
      pages.pageSize = meta.pageSize
      let entries = try LMDBEntryScan.database("entries", pages, meta.main)
      var scan = try LMDBEntryScan(pages, entries, from: first.unsafeBytes)
      defer { withExtendedLifetime(first) {} }
      var seen = 0
      while let next = try scan.next() {
        seen += 1
        if seen % Self.stride == 0 { try checkHeld() }
        guard try body(next.key, next.entry) else { return }
      }
    }
  }

  func end() {
    // Ended outside the lock, and once.
    let held = pin.withLock { pin in
      defer { pin = nil }
      return pin
    }
    held?.reader.end()
  }

  deinit { end() }
}
