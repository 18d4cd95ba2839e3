internal import Glibc
internal import GrapeState
internal import GrapeWire

/// A partition's state, read from the memory map that the node writes.
final class MapBase: StateBase {
  private let path: String
  private let open: (String) throws(StateError) -> LMDBEnvironment
  /// nil: there is none yet.
  private var reader: StateReader?
  /// Which file is open: the node may have put another in its place.
  private var file: (device: UInt64, number: UInt64)?

  /// - Parameter path: the environment's directory.
  init(
    path: String,
    open: @escaping (String) throws(StateError) -> LMDBEnvironment = { (path) throws(StateError) in
      try LMDBEnvironment(path: path, mapSize: nil)
    }
  ) {
    self.path = path
    self.open = open
  }

  func begin(telling: Bool) throws(StateError) -> Int64 {
    end()
    guard let present = presentFile() else {
      reader = nil
      file = nil
      return 0
    }
    if reader == nil || file?.number != present.number || file?.device != present.device {
      reader = nil
      do throws(StateError) {
        reader = try makeReader()
        file = present
      } catch {
        // It is just being made: nothing was written to it.
        guard error.code == .notFound else { throw error }
        return 0
      }
    }
    guard let reader else { return 0 }
    try reader.begin()
    guard telling else { return 0 }
    do throws(StateError) {
      return try reader.processed()
    } catch {
      reader.end()
      throw error
    }
  }

  private func makeReader() throws(StateError) -> StateReader {
    let environment = try open(path)
    let reader = StateReader(environment)
    // On a file system that is read-only LMDB reads without telling the writer, which would use pages again under our eyes.
    try reader.begin()
    let isKnown = environment.readerCount > 0
    reader.end()
    guard isKnown else {
      throw StateError(
        .system, "the state in \(path) cannot be locked: its file lock.mdb must be writable for the worker")
    }
    return reader
  }

  private func presentFile() -> (device: UInt64, number: UInt64)? {
    var status = stat()
    guard stat(path + "/data.mdb", &status) == 0 else { return nil }
    return (UInt64(status.st_dev), UInt64(status.st_ino))
  }

  func end() { reader?.end() }

  func entry(_ key: UnsafeRawBufferPointer) throws(StateError) -> StateFound? {
    guard let reader, reader.isOpen, let entry = try reader.entry(key) else { return nil }
    return StateFound(entry: entry)
  }

  func page(_ wanted: StatePageRequest) throws(StateError) -> StatePage {
    guard let reader, reader.isOpen else { return StatePage() }
    return wanted.tags.isEmpty ? try scan(wanted, reader) : try find(wanted, reader)
  }

  private func scan(_ wanted: StatePageRequest, _ reader: StateReader) throws(StateError) -> StatePage {
    var page = StatePage()
    var cursor = try reader.makeCursor(wanted.range, descending: wanted.descending)
    while page.entries.count < wanted.limit {
      guard let next = try cursor.next() else { return page }
      page.entries.append(next)
    }
    page.hasMore = true
    return page
  }

  private func find(_ wanted: StatePageRequest, _ reader: StateReader) throws(StateError) -> StatePage {
    var page = StatePage()
    let prefix = try StateKey.range(store: wanted.store).lowerBound
    let first = wanted.range.lowerBound
    let rest = first.count > prefix.count ? first[prefix.count..<first.count] : nil
    try reader.keys(store: wanted.store, tag: wanted.tags[0], from: rest?.unsafeBytes) { (key) throws(StateError) in
      var writer = ByteWriter(capacity: prefix.count + key.count)
      writer.bytes(prefix.unsafeBytes)
      writer.bytes(key)
      let full = writer.finish()
      guard full < wanted.range.upperBound else { return false }
      guard let entry = try reader.entry(full.unsafeBytes), try StateEntry(entry).hasTags(wanted.tags) else {
        return true
      }
      page.entries.append((full.unsafeBytes, entry))
      page.owners.append(full)
      page.hasMore = page.entries.count == wanted.limit
      return !page.hasMore
    }
    withExtendedLifetime(rest) {}
    return page
  }
}
