internal import Glibc
internal import GrapeCore
internal import GrapeState
internal import GrapeWire

/// What a handle of a store does, in terms of bytes. For the SDK's own use.
public final class StoreAccess {
  private let run: RunState
  /// What full keys of the store begin with.
  private let prefix: ByteSlice
  let name: String
  /// The partition that is read; nil: that of the event being handled, which is written, too.
  private let partition: Int32?

  /// The default store.
  init(run: RunState) {
    self.run = run
    name = ""
    prefix = ByteSlice([0])
    partition = nil
  }

  init(run: RunState, name: String, partition: Int32? = nil) throws(StateError) {
    self.run = run
    self.name = name
    self.partition = partition
    prefix = try StateKey.range(store: name).lowerBound
  }

  /// The same store in another partition.
  func other(_ partition: Int32) throws(StateError) -> StoreAccess {
    try StoreAccess(run: run, name: name, partition: partition)
  }

  /// The partition that a key's events go to.
  func partition(of key: UnsafeRawBufferPointer?) throws(StateError) -> Int32 {
    guard let key else { throw Self.nullKey() }
    return Partitioner.partition(forKey: key, of: try run.partitionCount())
  }

  /// Number of the application's partitions.
  var partitionCount: Int32 { get throws(StateError) { try run.partitionCount() } }

  // MARK: Keys

  /// The full key, valid until the next one.
  @inline(__always)
  private func full(_ key: UnsafeRawBufferPointer?) throws(StateError) -> UnsafeRawBufferPointer {
    guard let key, key.count > 0, key.count <= run.maxKey else { throw badKey(key) }
    let head = prefix.unsafeBytes
    run.scratch.copyMemory(from: head.baseAddress.unsafelyUnwrapped, byteCount: head.count)
    (run.scratch + head.count).copyMemory(from: key.baseAddress.unsafelyUnwrapped, byteCount: key.count)
    return UnsafeRawBufferPointer(start: run.scratch, count: head.count &+ key.count)
  }

  @inline(never)
  private func badKey(_ key: UnsafeRawBufferPointer?) -> StateError {
    guard let key else { return Self.nullKey() }
    do throws(StateError) {
      try StateKey.check(key)
    } catch {
      return error
    }
    return StateError(.tooLarge, "the key has \(key.count) bytes, this node takes \(run.maxKey)")
  }

  private static func nullKey() -> StateError {
    StateError(.invalidArgument, "the key is null: 1 to \(StateLimits.key) bytes are legal")
  }

  // MARK: Reading

  @inline(__always)
  private func found(_ key: UnsafeRawBufferPointer?) throws(StateError) -> StateFound? {
    try run.found(try full(key), in: partition)
  }

  /// Where the value of a key lies, and what keeps it there.
  @usableFromInline
  func lookUp(_ key: UnsafeRawBufferPointer?) throws(StateError) -> StoreValue? {
    guard let found = try found(key) else { return nil }
    return StoreValue(bytes: try StateEntry(found.entry).value, owner: found.owner?.storage)
  }

  @usableFromInline
  func get(_ key: UnsafeRawBufferPointer?) throws(StateError) -> [UInt8]? {
    guard let found = try found(key) else { return nil }
    let value = try StateEntry(found.entry).value
    defer { withExtendedLifetime(found.owner) {} }
    return [UInt8](unsafeUninitializedCapacity: value.count) { bytes, count in
      if value.count > 0 {
        memcpy(bytes.baseAddress.unsafelyUnwrapped, value.baseAddress.unsafelyUnwrapped, value.count)
      }
      count = value.count
    }
  }

  func expiry(_ key: UnsafeRawBufferPointer?) throws(StateError) -> Int64? {
    guard let found = try found(key) else { return nil }
    defer { withExtendedLifetime(found.owner) {} }
    return try StateEntry(found.entry).expiry
  }

  func tags(_ key: UnsafeRawBufferPointer?) throws(StateError) -> [String] {
    guard let found = try found(key) else { return [] }
    defer { withExtendedLifetime(found.owner) {} }
    return try StateEntry(found.entry).tags
  }

  // MARK: Writing

  private static let plain = ByteSlice([0])

  /// Writes a value, with `ttl` and `tags` anew.
  @usableFromInline
  func put(
    _ key: UnsafeRawBufferPointer?, _ value: UnsafeRawBufferPointer?, ttl: Duration?, tags: [String]
  ) throws(StateError) {
    guard let value else {
      throw StateError(.invalidArgument, "the value is null: to take an entry away use remove")
    }
    try run.check(value: value.count)
    let header = ttl == nil && tags.isEmpty ? Self.plain : try StoreAccess.header(ttl, tags, now: run.now())
    try run.write(try full(key), header: header.unsafeBytes, value: value)
    withExtendedLifetime(header) {}
  }

  /// An entry without its value.
  @inline(never)
  private static func header(_ ttl: Duration?, _ tags: [String], now: Int64) throws(StateError) -> ByteSlice {
    var writer = ByteWriter(capacity: 64)
    let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
    try StateEntry.write(
      value: nothing, expiry: try ttl.map { (ttl) throws(StateError) in try expiry(ttl, now: now) }, tags: tags,
      to: &writer)
    return writer.finish()
  }

  /// Time of day in milliseconds after which an entry that is written now is removed.
  static func expiry(_ ttl: Duration, now: Int64) throws(StateError) -> Int64 {
    let (seconds, attoseconds) = ttl.components
    guard ttl > .zero, seconds < 1 << 50 else {
      throw StateError(
        .invalidArgument, "the time to live is \(ttl): more than nothing and less than 2^50 seconds is legal")
    }
    return now + seconds * 1000 + (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000
  }

  @usableFromInline
  func remove(_ key: UnsafeRawBufferPointer?) throws(StateError) { try run.remove(try full(key)) }

  @usableFromInline
  func append(_ key: UnsafeRawBufferPointer?, _ data: UnsafeRawBufferPointer?) throws(StateError) -> Int {
    try run.append(try full(key), data ?? UnsafeRawBufferPointer(start: nil, count: 0))
  }

  /// Writes `new` if the value is `expected`; nil is no entry.
  func compareAndSet(
    _ key: UnsafeRawBufferPointer?, expected: UnsafeRawBufferPointer?, new: UnsafeRawBufferPointer?, ttl: Duration?,
    tags: [String]
  ) throws(StateError) -> Bool {
    let present = try lookUp(key)
    let isExpected =
      if let present, let expected {
        present.bytes.count == expected.count && present.bytes.elementsEqual(expected)
      } else {
        present == nil && expected == nil
      }
    withExtendedLifetime(present?.owner) {}
    guard isExpected else { return false }
    if new != nil { try put(key, new, ttl: ttl, tags: tags) } else if present != nil { try remove(key) }
    return true
  }

  // MARK: Scanning

  /// Keys of `prefix`, from `first` on, before `end`.
  func range(
    prefix wanted: UnsafeRawBufferPointer?, from first: UnsafeRawBufferPointer?, to end: UnsafeRawBufferPointer?
  ) throws(StateError) -> Range<ByteSlice> {
    func key(_ bytes: UnsafeRawBufferPointer?, _ what: String) throws(StateError) -> ByteSlice {
      guard (bytes?.count ?? 0) <= StateLimits.key else {
        throw StateError(.tooLarge, "\(what) of a scan has \(bytes?.count ?? 0) bytes, \(StateLimits.key) are allowed")
      }
      var writer = ByteWriter(capacity: prefix.count + (bytes?.count ?? 0))
      writer.bytes(prefix.unsafeBytes)
      if let bytes { writer.bytes(bytes) }
      return writer.finish()
    }
    var low = try key(wanted, "the prefix")
    var high = StateKey.successor(of: low)
    if let first { low = max(low, try key(first, "the beginning")) }
    if let end { high = min(high, try key(end, "the end")) }
    return low..<max(low, high)
  }

  func scan(
    _ range: Range<ByteSlice>, descending: Bool, tags: [String], limit: Int?
  ) throws(StateError) -> StateScan {
    if let limit, limit < 0 { throw StateError(.invalidArgument, "the limit \(limit): 0 or more is legal") }
    let request = StatePageRequest(
      range: range, descending: descending, tags: try StateEntry.checked(tags), store: name, limit: 1)
    return try run.scan(request, in: partition, limit: limit ?? .max)
  }

  /// The key of a full key of this store.
  func key(in full: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: full[prefix.count...])
  }

  /// Tells sequences whether they are still of the event that is being handled.
  var event: UInt64? { run.isOpen ? run.event : nil }

  /// A sequence could not go on: its event fails.
  func fail(_ error: StateError) { run.fail(error) }
}

/// A value in its place.
@usableFromInline
struct StoreValue {
  @usableFromInline var bytes: UnsafeRawBufferPointer
  @usableFromInline var owner: ByteStorage?
}
