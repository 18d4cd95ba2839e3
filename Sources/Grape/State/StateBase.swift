internal import GrapeState
internal import GrapeWire

/// What a partition's state is without the writes that a worker keeps: a map of memory, the node's answers, or, in tests, a dictionary.
///
/// Between `begin` and `end` it does not change, or only by taking over what the worker itself wrote.
protocol StateBase: AnyObject {
  /// Looks at the present state, and goes on looking at it until `end`. Views opened before end.
  ///
  /// - Returns: its `processed`: writes of results up to it are in it. Only if `telling`, otherwise anything.
  func begin(telling: Bool) throws(StateError) -> Int64
  func end()

  /// The entry of a full key; nil: there is none.
  func entry(_ key: UnsafeRawBufferPointer) throws(StateError) -> StateFound?

  /// Some entries of a range, in order.
  func page(_ wanted: StatePageRequest) throws(StateError) -> StatePage
}

/// An entry that was found, and what keeps its memory alive, unless the view does.
struct StateFound {
  var entry: UnsafeRawBufferPointer
  var owner: ByteSlice?
}

/// Entries of a store, or those of them that have tags.
struct StatePageRequest {
  /// Of full keys, the upper bound not included.
  var range: Range<ByteSlice>
  var descending = false
  /// Only entries with all of these; not with `descending`.
  var tags: [String] = []
  /// The store that the range lies in.
  var store = ""
  /// Most entries, 1 or more.
  var limit: Int
}

struct StatePage {
  var entries: [(key: UnsafeRawBufferPointer, entry: UnsafeRawBufferPointer)] = []
  /// What keeps their memory alive, besides the view.
  var owners: [ByteSlice] = []
  /// The range may have further entries.
  var hasMore = false
}

extension ByteSlice {
  /// The least bytes that are greater than `key`.
  init(after key: UnsafeRawBufferPointer) {
    var writer = ByteWriter(capacity: key.count + 1)
    writer.bytes(key)
    writer.u8(0)
    self = writer.finish()
  }
}
