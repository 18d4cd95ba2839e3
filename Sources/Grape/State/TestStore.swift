internal import GrapeCore
internal import GrapeState
internal import GrapeWire

/// The state of an application under test.
final class TestState {
  let info: WorkerInfo.State
  private var bases: [Int32: MemoryBase] = [:]

  init(partitions: Int32) { info = WorkerInfo.State(topic: "test.state", partitions: partitions, access: .ask) }

  func base(_ partition: Int32) -> MemoryBase {
    if let known = bases[partition] { return known }
    let base = MemoryBase()
    bases[partition] = base
    return base
  }

  /// What a node does with a result.
  func apply(_ changes: [TestResult.Change], partition: Int32, processed: Int64) throws {
    let base = base(partition)
    for change in changes {
      let entry = try change.entry.map { try StateEntry.encoded($0.value, expiry: $0.expiry, tags: $0.tags) }
      base.set(try StateKey(store: change.store, change.key).bytes, entry)
    }
    base.processed = processed
  }
}

/// A store of an application under test, as it is between events.
public struct TestStore {
  private let state: TestState
  private let name: String

  init(_ state: TestState, name: String) {
    self.state = state
    self.name = name
  }

  private func key(_ key: some EventData) throws(StateError) -> ByteSlice {
    try key.withEventBytes { (bytes) throws(StateError) in
      try StateKey(store: name, bytes ?? UnsafeRawBufferPointer(start: nil, count: 0)).bytes
    }
  }

  /// Stores a value as if it had been there before.
  ///
  /// - Parameter expiry: time of day in milliseconds since 1970 UTC. Nothing expires by itself in a test.
  public func put(
    _ key: some EventData, _ value: some EventData, expiry: Int64? = nil, tags: [String] = [], partition: Int32 = 0
  ) throws(StateError) {
    let bytes = value.withEventBytes { $0.map { [UInt8]($0) } ?? [] }
    state.base(partition).set(try self.key(key), try StateEntry.encoded(bytes, expiry: expiry, tags: tags))
  }

  /// Stores a value as JSON text.
  public func put(_ key: some EventData, encoding value: some Encodable, partition: Int32 = 0) throws(StateError) {
    let text: [UInt8]
    do throws(JSONCodingFailure) {
      text = try JSONValue(encoding: value).utf8
    } catch {
      throw StateError(.typeMismatch, "the value cannot be JSON: \(error.text)")
    }
    try put(key, text, partition: partition)
  }

  /// Takes an entry away.
  public func remove(_ key: some EventData, partition: Int32 = 0) throws(StateError) {
    state.base(partition).set(try self.key(key), nil)
  }

  /// An entry; nil: there is none.
  public func entry(_ key: some EventData, partition: Int32 = 0) throws(StateError) -> StoreEntry? {
    let full = try self.key(key)
    guard let entry = state.base(partition).entries[full] else { return nil }
    return try TestStore.entry(full, entry)
  }

  /// The value as text; nil: there is no entry.
  public func string(_ key: some EventData, partition: Int32 = 0) throws(StateError) -> String? {
    try entry(key, partition: partition)?.text
  }

  /// All entries, in order of their keys.
  public func entries(partition: Int32 = 0) throws(StateError) -> [StoreEntry] {
    let range = try StateKey.range(store: name)
    var entries: [StoreEntry] = []
    let base = state.base(partition)
    for key in base.keys where range.contains(key) {
      if let entry = base.entries[key] { entries.append(try TestStore.entry(key, entry)) }
    }
    return entries
  }

  private static func entry(_ key: ByteSlice, _ bytes: ByteSlice) throws(StateError) -> StoreEntry {
    let entry = try StateEntry(bytes.unsafeBytes)
    defer { withExtendedLifetime(bytes) {} }
    return StoreEntry(
      key: try StateKey(full: key).key.array, value: [UInt8](entry.value), tags: entry.tags, expiry: entry.expiry)
  }
}
