internal import GrapeState
internal import GrapeWire

/// A partition's state in memory, for tests of handlers.
final class MemoryBase: StateBase {
  private(set) var entries: [ByteSlice: ByteSlice] = [:]
  private var sortedKeys: [ByteSlice]?
  var processed: Int64 = 0

  func set(_ key: ByteSlice, _ entry: ByteSlice?) {
    let wasThere = entries[key] != nil
    entries[key] = entry
    if wasThere != (entry != nil) { sortedKeys = nil }
  }

  /// All keys, ascending.
  var keys: [ByteSlice] {
    if let sortedKeys { return sortedKeys }
    let keys = entries.keys.sorted()
    sortedKeys = keys
    return keys
  }

  func begin(telling: Bool) throws(StateError) -> Int64 { processed }
  func end() {}

  func entry(_ key: UnsafeRawBufferPointer) throws(StateError) -> StateFound? {
    entries[ByteSlice(copying: key)].map { StateFound(entry: $0.unsafeBytes, owner: $0) }
  }

  func page(_ wanted: StatePageRequest) throws(StateError) -> StatePage {
    var page = StatePage()
    let keys = keys
    func position(_ bound: ByteSlice) -> Int {
      var low = 0
      var high = keys.count
      while low < high {
        let middle = (low + high) / 2
        if keys[middle] < bound { low = middle + 1 } else { high = middle }
      }
      return low
    }
    let (first, end) = (position(wanted.range.lowerBound), position(wanted.range.upperBound))
    guard first < end else { return page }
    for step in 0..<(end - first) {
      let key = keys[wanted.descending ? end - 1 - step : first + step]
      guard let entry = entries[key] else { continue }
      if !wanted.tags.isEmpty {
        let isWanted = try StateEntry(entry.unsafeBytes).hasTags(wanted.tags)
        if !isWanted { continue }
      }
      guard page.entries.count < wanted.limit else {
        page.hasMore = true
        break
      }
      page.entries.append((key.unsafeBytes, entry.unsafeBytes))
      page.owners.append(key)
      page.owners.append(entry)
    }
    return page
  }
}
