internal import GrapeState
internal import GrapeWire

extension Context {
  /// The application's default store: what is kept for the partition of the event being handled.
  @inlinable public var state: Store { Store(access: defaultStore) }

  /// A store by name: empty (the default one) or `[a-z][a-z0-9-]{0,29}`. Stores need not be declared.
  ///
  /// - Throws: `StateError` if there can be no store of that name.
  public func store(_ name: String) throws(StateError) -> Store { Store(access: try access(name)) }
}

/// Entries with keys, of the partition that the event being handled belongs to: a handle, to be used while it is.
///
/// Reads come straight from the node's memory map, with what this and earlier events wrote over it. Writes travel with the delivery's result and
/// are committed with it, all or none; what an event wrote that then fails is dropped. Keys have 1 to 480 bytes and are ordered
/// bytewise, values have up to 64 MiB. Keys and values are given as text or bytes (`EventData`).
///
/// All operations throw `StateError`: `invalidArgument` and `tooLarge` for what is not allowed, `unavailable` outside of events.
public struct Store: ReadableStore {
  public let access: StoreAccess

  @inlinable init(access: StoreAccess) { self.access = access }

  /// Stores a value, in place of the one there was, with its time to live and tags.
  ///
  /// - Parameters:
  ///   - ttl: after this time the entry is removed; nil: never.
  ///   - tags: names by which `find` finds it, up to 16 of 1 to 63 bytes.
  @inlinable
  public func put(
    _ key: some EventData, _ value: some EventData, ttl: Duration? = nil, tags: [String] = []
  ) throws(StateError) {
    try key.withEventBytes { (key) throws(StateError) in
      try value.withEventBytes { (value) throws(StateError) in try access.put(key, value, ttl: ttl, tags: tags) }
    }
  }

  /// Removes an entry, if it is there.
  @inlinable
  public func remove(_ key: some EventData) throws(StateError) {
    try key.withEventBytes { (key) throws(StateError) in try access.remove(key) }
  }

  /// Appends to a value, or stores `data` if there is none. Time to live and tags stay. O(data) but for the first time in a delivery.
  ///
  /// - Returns: the value's size now, in bytes.
  @discardableResult
  @inlinable
  public func append(_ key: some EventData, _ data: some EventData) throws(StateError) -> Int {
    try key.withEventBytes { (key) throws(StateError) in
      try data.withEventBytes { (data) throws(StateError) in try access.append(key, data) }
    }
  }

  /// Stores `new` if the present value is `expected`. nil stands for no entry: as `expected` it must not be there, as `new` it is removed.
  ///
  /// - Returns: whether it was as expected.
  public func compareAndSet(
    _ key: some EventData, expected: some EventData, new: some EventData, ttl: Duration? = nil, tags: [String] = []
  ) throws(StateError) -> Bool {
    try key.withEventBytes { (key) throws(StateError) in
      try expected.withEventBytes { (expected) throws(StateError) in
        try new.withEventBytes { (new) throws(StateError) in
          try access.compareAndSet(key, expected: expected, new: new, ttl: ttl, tags: tags)
        }
      }
    }
  }

  /// The same, where nil is written as such: `compareAndSet(key, expected: nil, new: "1")`.
  public func compareAndSet(
    _ key: some EventData, expected: [UInt8]?, new: some EventData, ttl: Duration? = nil, tags: [String] = []
  ) throws(StateError) -> Bool {
    try key.withEventBytes { (key) throws(StateError) in
      try expected.withEventBytes { (expected) throws(StateError) in
        try new.withEventBytes { (new) throws(StateError) in
          try access.compareAndSet(key, expected: expected, new: new, ttl: ttl, tags: tags)
        }
      }
    }
  }

  /// The same, where nil is written as such: `compareAndSet(key, expected: "1", new: nil)`.
  @_disfavoredOverload
  public func compareAndSet(_ key: some EventData, expected: some EventData, new: [UInt8]?) throws(StateError) -> Bool {
    try key.withEventBytes { (key) throws(StateError) in
      try expected.withEventBytes { (expected) throws(StateError) in
        try new.withEventBytes { (new) throws(StateError) in
          try access.compareAndSet(key, expected: expected, new: new, ttl: nil, tags: [])
        }
      }
    }
  }

  /// Stores many values, with one time to live and the same tags.
  public func putMany(
    _ entries: some Sequence<(some EventData, some EventData)>, ttl: Duration? = nil, tags: [String] = []
  ) throws(StateError) {
    for (key, value) in entries { try put(key, value, ttl: ttl, tags: tags) }
  }

  /// Removes many entries.
  public func removeMany(_ keys: some Sequence<some EventData>) throws(StateError) {
    for key in keys { try remove(key) }
  }

  /// The same store in another partition, read-only: as it had been committed a moment ago, possibly stale. In the partition of the
  /// event being handled it is this store.
  public func partition(_ number: Int32) throws(StateError) -> PartitionStore {
    PartitionStore(access: try access.other(number))
  }

  /// The same store in all partitions, in their order: read-only, possibly stale, except for that of the event being handled.
  public func allPartitions() throws(StateError) -> [PartitionStore] {
    var stores: [PartitionStore] = []
    for number in 0..<(try access.partitionCount) { stores.append(try partition(number)) }
    return stores
  }

  /// The same store in the partition that events with `key` belong to, read-only and possibly stale.
  public func of(_ key: some EventData) throws(StateError) -> PartitionStore {
    try partition(try key.withEventBytes { (key) throws(StateError) in try access.partition(of: key) })
  }
}

/// A store in a partition that need not be that of the event being handled: read-only, and possibly stale.
public struct PartitionStore: ReadableStore {
  public let access: StoreAccess

  init(access: StoreAccess) { self.access = access }
}
