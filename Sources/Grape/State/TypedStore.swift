internal import GrapeState

extension Context {
  /// A store whose values are all of one type, kept as JSON text.
  public func store<Value: Codable>(_ name: String, of type: Value.Type) throws(StateError) -> TypedStore<Value> {
    TypedStore(store: try store(name))
  }
}

/// A store whose values are all of one type, kept as JSON text.
public struct TypedStore<Value: Codable> {
  /// The store underneath.
  public let store: Store

  @inlinable init(store: Store) { self.store = store }

  /// The value of a key; nil: there is no entry. `typeMismatch` if it is no such value.
  @inlinable
  public func get(_ key: some EventData) throws(StateError) -> Value? { try store.get(key, as: Value.self) }

  /// Stores a value.
  @inlinable
  public func put(
    _ key: some EventData, _ value: Value, ttl: Duration? = nil, tags: [String] = []
  ) throws(StateError) { try store.put(key, encoding: value, ttl: ttl, tags: tags) }

  /// Reads a value, changes it, and stores it: `try counts.update(key, default: 0) { $0 += 1 }`. Without time to live and tags, or with those given.
  ///
  /// - Returns: the value stored.
  @discardableResult
  @inlinable
  public func update(
    _ key: some EventData, default initial: @autoclosure () -> Value, ttl: Duration? = nil, tags: [String] = [],
    _ change: (inout Value) throws -> Void
  ) throws -> Value {
    var value = try get(key) ?? initial()
    try change(&value)
    try put(key, value, ttl: ttl, tags: tags)
    return value
  }

  /// Removes an entry, if it is there.
  @inlinable
  public func remove(_ key: some EventData) throws(StateError) { try store.remove(key) }

  /// Whether there is an entry.
  @inlinable
  public func contains(_ key: some EventData) throws(StateError) -> Bool { try store.contains(key) }

  /// Calls `body` with keys and values, in order of the keys, until it says stop. See `ReadableStore.forEach`.
  public func forEach(
    prefix: some EventData = [UInt8](), descending: Bool = false, limit: Int? = nil,
    _ body: (_ key: [UInt8], _ value: Value) throws -> ScanStep
  ) throws {
    try store.forEach(prefix: prefix, descending: descending, limit: limit) { key, value in
      try body([UInt8](key), try store.access.decode(key, value, as: Value.self))
    }
  }
}
