internal import GrapeState
internal import GrapeWire

/// What can be read of a store.
public protocol ReadableStore {
  /// For the SDK's own use.
  var access: StoreAccess { get }
}

extension ReadableStore {
  /// The value of a key, copied; nil: there is no entry.
  @inlinable
  public func get(_ key: some EventData) throws(StateError) -> [UInt8]? {
    try key.withEventBytes { (key) throws(StateError) in try access.get(key) }
  }

  /// The value as text; bytes that are not UTF-8 are replaced by U+FFFD.
  public func string(_ key: some EventData) throws(StateError) -> String? {
    let value = try value(key)
    defer { withExtendedLifetime(value?.owner) {} }
    return value.map { String(decoding: $0.bytes, as: UTF8.self) }
  }

  /// Calls `body` with the value in its place, without copying it; nil: there is no entry.
  ///
  /// The bytes must not escape the closure, nor be read after the closure has written the same entry.
  @inlinable
  public func withValue<Result>(
    _ key: some EventData, _ body: (UnsafeRawBufferPointer?) throws -> Result
  ) throws -> Result {
    let value = try value(key)
    defer { withExtendedLifetime(value?.owner) {} }
    return try body(value?.bytes)
  }

  /// A part of the value, clipped where it ends; nil: there is no entry.
  ///
  /// - Parameters:
  ///   - offset: where it begins, in bytes; 0 or more.
  ///   - size: most bytes; nil: to the end.
  public func read(_ key: some EventData, offset: Int, size: Int? = nil) throws(StateError) -> [UInt8]? {
    guard offset >= 0, size ?? 0 >= 0 else {
      throw StateError(.invalidArgument, "\(size ?? 0) bytes at \(offset): numbers from 0 on are legal")
    }
    guard let value = try value(key) else { return nil }
    defer { withExtendedLifetime(value.owner) {} }
    let first = min(offset, value.bytes.count)
    let count = min(size ?? .max, value.bytes.count - first)
    return [UInt8](value.bytes[first..<first + count])
  }

  /// Bytes of the value; nil: there is no entry.
  public func size(_ key: some EventData) throws(StateError) -> Int? { try value(key)?.bytes.count }

  /// Whether there is an entry.
  @inlinable
  public func contains(_ key: some EventData) throws(StateError) -> Bool { try value(key) != nil }

  /// The tags of an entry, ascending; empty without entry, too.
  public func tags(of key: some EventData) throws(StateError) -> [String] {
    try key.withEventBytes { (key) throws(StateError) in try access.tags(key) }
  }

  /// Time of day in milliseconds since 1970 UTC after which the entry is removed; nil: never, or there is none. The node removes it soon
  /// after; until then it can be read.
  public func expiry(of key: some EventData) throws(StateError) -> Int64? {
    try key.withEventBytes { (key) throws(StateError) in try access.expiry(key) }
  }

  /// The values of several keys, in their order; nil: there is no entry.
  public func getMany(_ keys: some Sequence<some EventData>) throws(StateError) -> [[UInt8]?] {
    var values: [[UInt8]?] = []
    values.reserveCapacity(keys.underestimatedCount)
    for key in keys { values.append(try get(key)) }
    return values
  }

  @inlinable
  func value(_ key: some EventData) throws(StateError) -> StoreValue? {
    try key.withEventBytes { (key) throws(StateError) in try access.lookUp(key) }
  }
}
