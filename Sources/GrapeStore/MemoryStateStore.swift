public import GrapeState
internal import GrapeWire

/// State in memory: for tests, and as the plainest example of a store. It is made anew from the changelog at each start; workers ask for it.
public final class MemoryStateStore: StateStore {
  public private(set) var position = StatePosition.start
  private var entries: [ByteSlice: ByteSlice] = [:]
  /// Keys in order; nil: to be sorted when they are needed.
  private var order: [ByteSlice]?

  public init() {}

  public func apply(_ changes: [StateChange], position: StatePosition) throws(StateError) {
    for change in changes {
      let key = ByteSlice(copying: change.key)
      let old = entries.updateValue(change.entry.map { ByteSlice(copying: $0) } ?? key, forKey: key)
      if change.entry == nil { entries[key] = nil }
      if (old == nil) != (change.entry == nil) { order = nil }
    }
    self.position = position
  }

  public func withView<Value>(_ body: (any StateView) throws(StateError) -> Value) throws(StateError) -> Value {
    let sorted = order ?? entries.keys.sorted()
    order = sorted
    return try body(View(entries: entries, order: sorted))
  }

  public func snapshot() throws(StateError) -> any StateSnapshot {
    let sorted = order ?? entries.keys.sorted()
    order = sorted
    return Snapshot(position: position, entries: entries, order: sorted)
  }

  public var byteCount: Int { entries.reduce(0) { $0 + $1.key.count + $1.value.count } }

  public func clearDeadReaders() throws(StateError) {}
  public func close() throws(StateError) {}

  private final class Snapshot: StateSnapshot {
    let position: StatePosition
    private let entries: [ByteSlice: ByteSlice]
    private let order: [ByteSlice]

    init(position: StatePosition, entries: [ByteSlice: ByteSlice], order: [ByteSlice]) {
      self.position = position
      self.entries = entries
      self.order = order
    }

    var count: Int { order.count }
    var byteCount: Int { entries.reduce(0) { $0 + $1.key.count + $1.value.count } }

    func problems() throws(StateError) -> [String] {
      var problems: [String] = []
      for key in order {
        do throws(StateError) {
          _ = try StateKey.split(key.unsafeBytes)
          guard let entry = entries[key] else { throw StateError(.corrupt, "it is not there") }
          _ = try StateEntry(entry.unsafeBytes)
        } catch {
          problems.append("entry \(readable(key.unsafeBytes)): \(error.message)")
        }
      }
      return problems
    }

    func scan(
      from first: ByteSlice, _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) throws(StateError) -> Bool
    ) throws(StateError) {
      for key in order where key >= first {
        if let entry = entries[key], !(try body(key.unsafeBytes, entry.unsafeBytes)) { return }
      }
    }

    func end() {}
  }

  private struct View: StateView {
    let entries: [ByteSlice: ByteSlice]
    let order: [ByteSlice]

    func entry(_ key: UnsafeRawBufferPointer) throws(StateError) -> UnsafeRawBufferPointer? {
      entries[ByteSlice(copying: key)]?.unsafeBytes
    }

    func count() throws(StateError) -> Int { entries.count }

    func scan(
      _ range: Range<ByteSlice>, descending: Bool,
      _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) throws(StateError) -> Bool
    ) throws(StateError) {
      let found = order.filter { range.contains($0) }
      for key in descending ? found.reversed() : found {
        guard let entry = entries[key] else { continue }
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

    func expiring(
      _ body: (Int64, UnsafeRawBufferPointer) throws(StateError) -> Bool
    ) throws(StateError) {
      var found: [(time: Int64, key: ByteSlice)] = []
      for key in order {
        if let entry = entries[key], let time = try StateEntry(entry.unsafeBytes).expiry { found.append((time, key)) }
      }
      found.sort { ($0.time, $0.key) < ($1.time, $1.key) }
      for (time, key) in found where !(try body(time, key.unsafeBytes)) { return }
    }
  }
}

/// Gives out stores in memory.
public final class MemoryStateStoreProvider: StateStoreProvider {
  public init() {}
  public func directory(of app: String) -> String? { nil }
  public func open(_ app: String, partition: Int32, discarded: (String) -> Void) throws(StateError) -> (any StateStore)?
  {
    nil
  }
  public func create(_ app: String, partition: Int32) throws(StateError) -> any StateStore { MemoryStateStore() }
  public func remove(_ app: String, partition: Int32) throws(StateError) {}
}
