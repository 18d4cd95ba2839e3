import GrapeCommitLogSimulation
import GrapeState
import GrapeStore
import GrapeWire

/// The files of all state stores, as they outlive processes. What a process has open when the machine goes down is not to be trusted after it.
final class SimulatedStores {
  struct Name: Hashable {
    var app: String
    var partition: Int32
  }

  /// What a store shows at one moment. A copy is cheap.
  struct Image {
    var entries: [ByteSlice: ByteSlice] = [:]
    var position = StatePosition.start
  }

  struct File {
    var image = Image()
    /// The boot of the machine in which it was opened last, and whether it was closed in order.
    var boot = 0
    var isClosed = false
  }

  private(set) var files: [Name: File] = [:]
  private(set) var boot = 1
  /// Calls until one fails; nil: none does.
  var callsToFault: Int?
  private(set) var faults = 0
  /// Files that were not trusted.
  private(set) var discarded = 0
  /// Told of what is done with files.
  var trace: ((Name, String) -> Void)?
  /// Told of each image that is shown to anybody.
  var willShow: ((Name, Image) -> Void)?

  /// The machine goes down: what was open may have lost anything.
  func losePower(_ random: inout SimulationRandom) {
    boot += 1
    for name in files.keys.sorted(by: { ($0.app, $0.partition) < ($1.app, $1.partition) }) {
      guard let file = files[name], !file.isClosed else { continue }
      let keys = file.image.entries.keys.sorted()
      for key in keys where random.chance(1, in: 2) { files[name]!.image.entries[key] = nil }
    }
  }

  func fail() throws(StateError) {
    guard let left = callsToFault else { return }
    callsToFault = left > 1 ? left - 1 : nil
    guard left <= 1 else { return }
    faults += 1
    throw StateError(.system, "Input/output error")
  }

  func open(_ name: Name, discarding: (String) -> Void) throws(StateError) -> Bool {
    try fail()
    guard let file = files[name] else { return false }
    guard file.isClosed || file.boot == boot else {
      discarding("it was open when the machine went down")
      discarded += 1
      trace?(name, "is not trusted")
      files[name] = nil
      return false
    }
    files[name]!.boot = boot
    files[name]!.isClosed = false
    trace?(name, "is opened at \(file.image.position.changelog)")
    return true
  }

  func create(_ name: Name) throws(StateError) {
    try fail()
    guard files[name] == nil else { throw StateError(.system, "a store is made where there is one") }
    files[name] = File(boot: boot)
    trace?(name, "is made")
  }

  func remove(_ name: Name) {
    files[name] = nil
    trace?(name, "is removed")
  }

  func change(_ name: Name, _ body: (inout File) -> Void) { if files[name] != nil { body(&files[name]!) } }

  /// What a worker's map shows.
  func map(_ name: Name) -> Image? {
    guard let image = files[name]?.image else { return nil }
    willShow?(name, image)
    return image
  }
}

/// Gives a node's process its stores.
final class SimulatedStoreProvider: StateStoreProvider {
  private let stores: SimulatedStores
  /// Applications whose workers see maps; others ask.
  private let mapped: Set<String>

  init(_ stores: SimulatedStores, mapped: Set<String>) {
    self.stores = stores
    self.mapped = mapped
  }

  func directory(of app: String) -> String? { mapped.contains(app) ? app : nil }

  func open(_ app: String, partition: Int32, discarded: (String) -> Void) throws(StateError) -> (any StateStore)? {
    let name = SimulatedStores.Name(app: app, partition: partition)
    return try stores.open(name, discarding: discarded) ? SimulatedStore(stores, name) : nil
  }

  func create(_ app: String, partition: Int32) throws(StateError) -> any StateStore {
    let name = SimulatedStores.Name(app: app, partition: partition)
    try stores.create(name)
    return SimulatedStore(stores, name)
  }

  func remove(_ app: String, partition: Int32) throws(StateError) {
    stores.remove(.init(app: app, partition: partition))
  }
}

/// One store, while a process has it open.
final class SimulatedStore: StateStore {
  private let stores: SimulatedStores
  private let name: SimulatedStores.Name

  init(_ stores: SimulatedStores, _ name: SimulatedStores.Name) {
    self.stores = stores
    self.name = name
  }

  var position: StatePosition { stores.files[name]?.image.position ?? .start }

  func apply(_ changes: [StateChange], position: StatePosition) throws(StateError) {
    try stores.fail()
    stores.trace?(name, "takes \(changes.count) changes, to \(position.changelog), processed \(position.processed)")
    for (left, right) in zip(changes, changes.dropFirst()) where !precedes(left.key, right.key) {
      throw StateError(.invalidArgument, "changes are not in order of their keys")
    }
    stores.change(name) { file in
      for change in changes {
        file.image.entries[ByteSlice(copying: change.key)] = change.entry.map { ByteSlice(copying: $0) }
      }
      file.image.position = position
    }
  }

  func withView<Value>(_ body: (any StateView) throws(StateError) -> Value) throws(StateError) -> Value {
    try stores.fail()
    let image = stores.files[name]?.image ?? SimulatedStores.Image()
    stores.willShow?(name, image)
    return try body(SimulatedView(image: image))
  }

  func snapshot() throws(StateError) -> any StateSnapshot {
    throw StateError(.unavailable, "a simulated store holds no moment fast")
  }

  var byteCount: Int { 0 }
  func clearDeadReaders() throws(StateError) {}
  func close() throws(StateError) { stores.change(name) { $0.isClosed = true } }
}

/// A store at one moment.
struct SimulatedView: StateView {
  let image: SimulatedStores.Image

  func entry(_ key: UnsafeRawBufferPointer) throws(StateError) -> UnsafeRawBufferPointer? {
    image.entries[ByteSlice(copying: key)]?.unsafeBytes
  }

  func count() throws(StateError) -> Int { image.entries.count }

  func scan(
    _ range: Range<ByteSlice>, descending: Bool,
    _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) throws(StateError) -> Bool
  ) throws(StateError) {
    let found = image.entries.keys.filter { range.contains($0) }.sorted()
    for key in descending ? found.reversed() : found {
      guard let entry = image.entries[key] else { continue }
      if !(try body(key.unsafeBytes, entry.unsafeBytes)) { return }
    }
  }

  func keys(
    store: String, tag: String, from first: UnsafeRawBufferPointer?,
    _ body: (UnsafeRawBufferPointer) throws(StateError) -> Bool
  ) throws(StateError) {
    try scan(try StateKey.range(store: store), descending: false) { (key, entry) throws(StateError) in
      guard try StateEntry(entry).hasTags([tag]) else { return true }
      let name = UnsafeRawBufferPointer(rebasing: key[try StateKey.split(key)...])
      if let first, precedes(name, first) { return true }
      return try body(name)
    }
  }

  func expiring(_ body: (Int64, UnsafeRawBufferPointer) throws(StateError) -> Bool) throws(StateError) {
    var found: [(time: Int64, key: ByteSlice)] = []
    for (key, entry) in image.entries {
      if let time = try StateEntry(entry.unsafeBytes).expiry { found.append((time, key)) }
    }
    found.sort { ($0.time, $0.key) < ($1.time, $1.key) }
    for (time, key) in found where !(try body(time, key.unsafeBytes)) { return }
  }
}
