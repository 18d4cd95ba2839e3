@_exported public import GrapeState
public import GrapeWire

/// One change of one entry. The bytes are the caller's, valid during the call that is given it.
public struct StateChange {
  /// Full key.
  public var key: UnsafeRawBufferPointer
  /// The new entry; nil: it is removed.
  public var entry: UnsafeRawBufferPointer?

  public init(key: UnsafeRawBufferPointer, entry: UnsafeRawBufferPointer?) {
    self.key = key
    self.entry = entry
  }
}

/// Holds the state of one partition of an application: what its changelog has come to.
///
/// A store is a view: whatever it loses is taken from the changelog again, as far as its position says that it is missing. So a store
/// need not outlive a loss of power, but what it shows must always be exactly what its position says. Used by one thread at a time. `GrapeTestKit` has
/// the suite of tests that each implementation must pass.
public protocol StateStore: AnyObject {
  /// How far it has come. `StatePosition.start` for a new store.
  var position: StatePosition { get }

  /// Makes all changes, and the position, true together, or none of them.
  ///
  /// - Parameter changes: in ascending order of their keys, each key once; entries are sound.
  func apply(_ changes: [StateChange], position: StatePosition) throws(StateError)

  /// Runs `body` on the state of one moment. What it sees must not escape it.
  func withView<Value>(_ body: (any StateView) throws(StateError) -> Value) throws(StateError) -> Value

  /// Holds fast the state of this moment, for another thread, while this store goes on. Takes no time that grows with the state. A store that
  /// cannot do it throws `unavailable`: it is neither verified nor backed up then. `close` ends all of them.
  func snapshot() throws(StateError) -> any StateSnapshot

  /// Bytes that it takes up, roughly.
  var byteCount: Int { get }

  /// Who looks at the state as it was before its last change, and so keeps space from being used again; for stores that workers map.
  var staleViews: [StaleView] { get }

  /// Forgets what workers that died had open.
  func clearDeadReaders() throws(StateError)

  /// Ends its use: makes what is there last, if it can. Nothing may be called after it.
  func close() throws(StateError)
}

/// A process that looks at the state of an earlier moment.
public struct StaleView: Hashable, Sendable {
  public var process: Int32
  /// Tells one moment from another.
  public var moment: UInt64

  public init(process: Int32, moment: UInt64) {
    self.process = process
    self.moment = moment
  }
}

extension StateStore {
  public var staleViews: [StaleView] { [] }
}

/// The state of one partition at one moment.
public protocol StateView {
  /// The entry of a full key; nil: there is none.
  func entry(_ key: UnsafeRawBufferPointer) throws(StateError) -> UnsafeRawBufferPointer?

  /// Calls `body` with full key and entry of all entries in `range` (full keys), in order, until it returns false.
  func scan(
    _ range: Range<ByteSlice>, descending: Bool,
    _ body: (_ key: UnsafeRawBufferPointer, _ entry: UnsafeRawBufferPointer) throws(StateError) -> Bool
  ) throws(StateError)

  /// Calls `body` with the keys (without the store) of a store's entries that have `tag`, ascending, until it returns false.
  ///
  /// - Parameter first: keys before it are left out; nil or empty: none.
  func keys(
    store: String, tag: String, from first: UnsafeRawBufferPointer?,
    _ body: (UnsafeRawBufferPointer) throws(StateError) -> Bool
  ) throws(StateError)

  /// Calls `body` with expiry and full key of all entries that have one, earliest first, until it returns false.
  func expiring(_ body: (_ time: Int64, _ key: UnsafeRawBufferPointer) throws(StateError) -> Bool) throws(StateError)

  /// Number of entries.
  func count() throws(StateError) -> Int
}

/// Opens stores: what an implementation gives to a node. Used by one thread at a time.
public protocol StateStoreProvider: AnyObject {
  /// Where workers find the maps of `app`'s partitions, as docs/protocol.md says; nil: they cannot map them, and ask.
  func directory(of app: String) -> String?

  /// Opens what there is; nil: nothing. What there is but cannot be trusted (damaged, of another format, left by a loss of power) is removed:
  /// `discarded` is told why.
  func open(_ app: String, partition: Int32, discarded: (String) -> Void) throws(StateError) -> (any StateStore)?

  /// Creates an empty store where there is none.
  func create(_ app: String, partition: Int32) throws(StateError) -> any StateStore

  /// Removes a closed store. A checkpoint of it stays.
  func remove(_ app: String, partition: Int32) throws(StateError)

  // Checkpoints, for those that keep any: copies to begin with when a store is lost, so that not all of the changelog need be read.

  /// When the checkpoint of a partition was taken, milliseconds since 1970; nil: there is none.
  func checkpointTime(_ app: String, partition: Int32) -> Int64?

  /// Copies a snapshot, and puts the copy in place of the checkpoint before once it is on the disk. On another thread than all else.
  ///
  /// - Parameter taken: when the snapshot was taken, milliseconds since 1970.
  func keepCheckpoint(
    _ snapshot: any StateSnapshot, of app: String, partition: Int32, taken: Int64
  ) throws(StateError)

  /// Makes a store of the checkpoint where there is none, and opens it; nil: there is no checkpoint. One that is damaged, or was
  /// taken at another time (milliseconds since 1970) than `taken`, is removed: `discarded` is told why.
  func openCheckpoint(
    _ app: String, partition: Int32, taken: ClosedRange<Int64>, discarded: (String) -> Void
  ) throws(StateError) -> (any StateStore)?

  /// Removes the checkpoint of a partition, if there is one.
  func removeCheckpoint(_ app: String, partition: Int32) throws(StateError)
}

/// A provider that keeps no checkpoints.
extension StateStoreProvider {
  public func checkpointTime(_ app: String, partition: Int32) -> Int64? { nil }

  public func keepCheckpoint(
    _ snapshot: any StateSnapshot, of app: String, partition: Int32, taken: Int64
  ) throws(StateError) {
    throw StateError(.unavailable, "checkpoints are not kept")
  }

  public func openCheckpoint(
    _ app: String, partition: Int32, taken: ClosedRange<Int64>, discarded: (String) -> Void
  ) throws(StateError) -> (any StateStore)? { nil }

  public func removeCheckpoint(_ app: String, partition: Int32) throws(StateError) {}
}

extension StateView {
  /// Keys that have all of `tags`, ascending, from one on. At least one tag.
  public func keys(
    store: String, tags: [String], from start: UnsafeRawBufferPointer? = nil,
    _ body: (UnsafeRawBufferPointer) throws(StateError) -> Bool
  ) throws(StateError) {
    guard let first = tags.first else { throw StateError(.invalidArgument, "no tag is given to find entries by") }
    let rest = Array(tags.dropFirst())
    try keys(store: store, tag: first, from: start) { (key) throws(StateError) in
      if !rest.isEmpty {
        let full = try StateKey(store: store, key)
        guard let entry = try entry(full.bytes.unsafeBytes) else { return true }
        let hasAll = try StateEntry(entry).hasTags(rest)
        withExtendedLifetime(full) {}
        if !hasAll { return true }
      }
      return try body(key)
    }
  }

  /// Full keys in `range`, all of one store, of entries that have all of `tags`, in order: `limit` and one more at most, ascending; all of them, descending.
  public func keys(
    in range: Range<ByteSlice>, tags: [String], descending: Bool, limit: Int
  ) throws(StateError) -> [ByteSlice] {
    let bound = range.lowerBound
    let store = String(decoding: bound.unsafeBytes.dropFirst().prefix(Int(bound.unsafeBytes.first ?? 0)), as: UTF8.self)
    let first = bound[min(bound.count, 1 + store.utf8.count)..<bound.count]
    var found: [ByteSlice] = []
    try keys(store: store, tags: tags, from: first.unsafeBytes) { (name) throws(StateError) in
      let full = try StateKey(store: store, name).bytes
      guard full < range.upperBound else { return false }
      if range.contains(full) { found.append(full) }
      // In descending order the last come first: all must be known.
      return descending || found.count <= limit
    }
    withExtendedLifetime(first) {}
    return descending ? found.reversed() : found
  }

  /// The earliest expiry of all; nil: no entry expires.
  public func firstExpiry() throws(StateError) -> Int64? {
    var first: Int64?
    try expiring { time, _ in
      first = time
      return false
    }
    return first
  }
}
