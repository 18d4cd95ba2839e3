package import GrapeState
package import GrapeWire

/// What a partition's state is without the writes that a worker keeps: a map of memory, the node's answers, or, in tests, a dictionary.
///
/// Between `begin` and `end` it does not change, or only by taking over what the worker itself wrote.
package protocol StateBase: AnyObject {
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
package struct StateFound {
  package var entry: UnsafeRawBufferPointer
  package var owner: ByteSlice?

  package init(entry: UnsafeRawBufferPointer, owner: ByteSlice? = nil) {
    self.entry = entry
    self.owner = owner
  }
}

/// Entries of a store, or those of them that have tags.
package struct StatePageRequest {
  /// Of full keys, the upper bound not included.
  package var range: Range<ByteSlice>
  package var descending = false
  /// Only entries with all of these; not with `descending`.
  package var tags: [String] = []
  /// The store that the range lies in.
  package var store = ""
  /// Most entries, 1 or more.
  package var limit: Int
}

package struct StatePage {
  package var entries: [(key: UnsafeRawBufferPointer, entry: UnsafeRawBufferPointer)] = []
  /// What keeps their memory alive, besides the view.
  package var owners: [ByteSlice] = []
  /// The range may have further entries.
  package var hasMore = false

  package init(owners: [ByteSlice] = [], hasMore: Bool = false) {
    self.owners = owners
    self.hasMore = hasMore
  }
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
