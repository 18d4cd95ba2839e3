internal import CGrapeLinux
internal import Glibc
public import GrapeState
internal import GrapeWire

/// State in an LMDB environment (docs/data-format.md, State): workers read it from the map in their own memory.
///
/// LMDB is not asked to synchronise: what a loss of power takes is made again from the changelog. That the file is not trusted after one is seen to by
/// `LMDBStateStoreProvider`.
public final class LMDBStateStore: StateStore {
  public private(set) var position: StatePosition
  private let directory: String
  private let environment: LMDBEnvironment
  private let reader: StateReader
  private let onClose: () throws(StateError) -> Void
  /// Bytes of the map; grows by itself.
  public private(set) var mapSize: Int

  /// Those that may still be in use.
  private var snapshots: [WeakSnapshot] = []

  private struct WeakSnapshot { weak var snapshot: LMDBStateSnapshot? }

  /// Growing further makes no sense on this machine: 2^46 bytes.
  private static let largestMap = 1 << 46

  init(directory: String, mapSize: Int, onClose: @escaping () throws(StateError) -> Void) throws(StateError) {
    self.directory = directory
    self.onClose = onClose
    environment = try LMDBEnvironment(path: directory, mapSize: mapSize)
    self.mapSize = max(mapSize, environment.mapSize)
    reader = StateReader(environment)
    position = .start
    try reader.begin()
    defer { reader.end() }
    if let found = try reader.position() { position = found }
  }

  public func apply(_ changes: [StateChange], position: StatePosition) throws(StateError) {
    while true {
      do throws(StateError) {
        var writer = try StateWriter(environment)
        for change in changes { try writer.set(change.key, change.entry) }
        try writer.commit(position)
        self.position = position
        return
      } catch {
        guard error.code == .mapFull else { throw error }
        try grow(error)
      }
    }
  }

  /// The map is full: nothing was changed, and with more room the same is tried again.
  private func grow(_ error: StateError) throws(StateError) {
    try environment.clearDeadReaders()
    guard mapSize < Self.largestMap else { throw error }
    try environment.setMapSize(mapSize * 2)
    mapSize *= 2
  }

  public func withView<Value>(_ body: (any StateView) throws(StateError) -> Value) throws(StateError) -> Value {
    try reader.begin()
    defer { reader.end() }
    return try body(View(reader: reader))
  }

  private struct View: StateView {
    let reader: StateReader

    func entry(_ key: UnsafeRawBufferPointer) throws(StateError) -> UnsafeRawBufferPointer? { try reader.entry(key) }
    func count() throws(StateError) -> Int { try reader.count() }

    func scan(
      _ range: Range<ByteSlice>, descending: Bool,
      _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) throws(StateError) -> Bool
    ) throws(StateError) {
      try reader.scan(range, descending: descending, body)
    }

    func keys(
      store: String, tag: String, from first: UnsafeRawBufferPointer?,
      _ body: (UnsafeRawBufferPointer) throws(StateError) -> Bool
    ) throws(StateError) {
      // An empty value stands for none: LMDB takes no empty duplicate to look for.
      try reader.keys(store: store, tag: tag, from: first.flatMap { $0.isEmpty ? nil : $0 }, body)
    }

    func expiring(_ body: (Int64, UnsafeRawBufferPointer) throws(StateError) -> Bool) throws(StateError) {
      try reader.expiring(body)
    }
  }

  public func snapshot() throws(StateError) -> any StateSnapshot {
    let made = try LMDBStateSnapshot(environment, file: directory + "/data.mdb")
    snapshots.removeAll { $0.snapshot == nil }
    snapshots.append(WeakSnapshot(snapshot: made))
    return made
  }

  public var byteCount: Int { environment.usedBytes }

  public var staleViews: [StaleView] {
    let present = environment.lastTransaction
    return environment.openReaders().filter { $0.transaction < present }
      .map { StaleView(process: $0.process, moment: $0.transaction) }
  }

  public func clearDeadReaders() throws(StateError) { try environment.clearDeadReaders() }

  public func close() throws(StateError) {
    // The file may be opened again at once, and LMDB allows it once per process.
    for each in snapshots { each.snapshot?.end() }
    snapshots.removeAll()
    try environment.sync()
    try onClose()
  }
}

func systemMessage(_ what: String) -> String { "\(what): \(String(cString: strerror(errno)))" }
