public import GrapeState
public import GrapeWire

/// The state of a partition at one moment, held fast while its store goes on. Made on the store's thread, then used by one thread at a time, whichever.
///
/// Until `end` a store may be unable to use space again that it no longer needs itself.
public protocol StateSnapshot: AnyObject, Sendable {
  /// How far the state had come.
  var position: StatePosition { get }

  /// Number of entries.
  var count: Int { get }

  /// Bytes that it takes up, roughly.
  var byteCount: Int { get }

  /// Checks everything that is stored: structure, checksums, indexes. Returns what is wrong, a line each; empty: nothing.
  /// `unavailable` if the snapshot was ended meanwhile, here and below.
  func problems() throws(StateError) -> [String]

  /// Calls `body` with full key and entry of all entries from the key `first` on, in order, until it returns false. `corrupt` for what is found
  /// damaged on the way.
  func scan(
    from first: ByteSlice,
    _ body: (_ key: UnsafeRawBufferPointer, _ entry: UnsafeRawBufferPointer) throws(StateError) -> Bool
  ) throws(StateError)

  /// Lets go of it, on any thread, also while another uses it: that use fails. May be called again.
  func end()
}

extension StateStore {
  /// Checks everything that is stored, as it is now. Returns what is wrong, a line each; empty: nothing.
  public func verify() throws(StateError) -> [String] {
    let snapshot = try snapshot()
    defer { snapshot.end() }
    return try snapshot.problems()
  }
}
