internal import GrapeState
internal import GrapeWire

/// An entry as a scan shows it: a copy.
public struct StoreEntry: Sendable, Hashable {
  public var key: [UInt8]
  public var value: [UInt8]
  /// Ascending.
  public var tags: [String] = []
  /// Time of day in milliseconds since 1970 UTC after which it is removed; nil: never.
  public var expiry: Int64?

  public init(key: [UInt8], value: [UInt8], tags: [String] = [], expiry: Int64? = nil) {
    self.key = key
    self.value = value
    self.tags = tags
    self.expiry = expiry
  }

  /// The key as text.
  public var keyText: String { String(decoding: key, as: UTF8.self) }
  /// The value as text.
  public var text: String { String(decoding: value, as: UTF8.self) }
}

/// What a handler does in the middle of a scan.
public enum ScanStep: Sendable {
  case goOn
  case stop
}

extension ReadableStore {
  /// The entries whose keys begin with `prefix`, in order of their keys. The range is as it was when the scan began, whatever is written meanwhile.
  ///
  /// Entries are read as the sequence advances, some at a time, and copied. It can be gone through once, and ends with the event being handled. If
  /// reading fails on the way, the sequence ends and the event fails with the error when its handler returns.
  ///
  /// - Parameter limit: most entries; nil: all.
  public func scan(
    prefix: some EventData, descending: Bool = false, limit: Int? = nil
  ) throws(StateError) -> StoreScan {
    let range = try prefix.withEventBytes { (prefix) throws(StateError) in
      try access.range(prefix: prefix, from: nil, to: nil)
    }
    return try StoreScan(access, try access.scan(range, descending: descending, tags: [], limit: limit))
  }

  /// All entries of the store, or those from a key on and before another, in order of their keys. See `scan(prefix:)`.
  public func scan(
    from first: (some EventData)? = [UInt8]?.none, to end: (some EventData)? = [UInt8]?.none, descending: Bool = false,
    limit: Int? = nil
  ) throws(StateError) -> StoreScan {
    let range = try first.withEventBytes { (first) throws(StateError) in
      try end.withEventBytes { (end) throws(StateError) in try access.range(prefix: nil, from: first, to: end) }
    }
    return try StoreScan(access, try access.scan(range, descending: descending, tags: [], limit: limit))
  }

  /// Calls `body` with key and value of entries in their places, in order of their keys, until it says stop: nothing is copied.
  ///
  /// The bytes must not escape the closure. It may write: what the scan shows stays as it was when it began.
  public func forEach(
    prefix: some EventData, descending: Bool = false, limit: Int? = nil,
    _ body: (_ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) throws -> ScanStep
  ) throws {
    let range = try prefix.withEventBytes { (prefix) throws(StateError) in
      try access.range(prefix: prefix, from: nil, to: nil)
    }
    try walk(range, descending, limit, body)
  }

  /// The same for all entries, or those from a key on and before another.
  public func forEach(
    from first: (some EventData)? = [UInt8]?.none, to end: (some EventData)? = [UInt8]?.none, descending: Bool = false,
    limit: Int? = nil, _ body: (_ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) throws -> ScanStep
  ) throws {
    let range = try first.withEventBytes { (first) throws(StateError) in
      try end.withEventBytes { (end) throws(StateError) in try access.range(prefix: nil, from: first, to: end) }
    }
    try walk(range, descending, limit, body)
  }

  private func walk(
    _ range: Range<ByteSlice>, _ descending: Bool, _ limit: Int?,
    _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) throws -> ScanStep
  ) throws {
    var scan = try access.scan(range, descending: descending, tags: [], limit: limit)
    while let (key, entry) = try scan.next() {
      if case .stop = try body(access.key(in: key), try StateEntry(entry).value) { return }
    }
  }

  /// The entries that have all of `tags`, in order of their keys. See `scan(prefix:)`.
  ///
  /// - Parameter tags: one or more.
  public func find(
    tags: [String], prefix: some EventData = [UInt8](), limit: Int? = nil
  ) throws(StateError) -> StoreScan {
    guard !tags.isEmpty else { throw StateError(.invalidArgument, "no tags to find by: one or more are needed") }
    let range = try prefix.withEventBytes { (prefix) throws(StateError) in
      try access.range(prefix: prefix, from: nil, to: nil)
    }
    return try StoreScan(access, try access.scan(range, descending: false, tags: tags, limit: limit))
  }
}

/// The entries of a scan, one after the other. See `ReadableStore.scan`.
public struct StoreScan: Sequence, IteratorProtocol {
  private let access: StoreAccess
  private let event: UInt64
  private var scan: StateScan

  init(_ access: StoreAccess, _ scan: StateScan) throws(StateError) {
    guard let event = access.event else { throw StateError(.unavailable, "no event is being handled") }
    self.access = access
    self.event = event
    self.scan = scan
  }

  public mutating func next() -> StoreEntry? {
    do throws(StateError) {
      guard access.event == event else {
        throw StateError(.unavailable, "a scan is continued after the event it was begun in")
      }
      guard let (key, bytes) = try scan.next() else { return nil }
      let entry = try StateEntry(bytes)
      return StoreEntry(
        key: [UInt8](access.key(in: key)), value: [UInt8](entry.value), tags: entry.tags, expiry: entry.expiry)
    } catch {
      access.fail(error)
      return nil
    }
  }
}
