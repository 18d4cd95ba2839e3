internal import GrapeCore
internal import GrapeStore
internal import GrapeWire

/// What a request wants to know of state.
struct StateQuery: Sendable {
  var range = ByteSlice([])..<ByteSlice([])
  /// One key alone.
  var single: ByteSlice?
  /// Entries are told with their stores.
  var allStores = false
  var tags: [String] = []
  var isDescending = false
  var keysOnly = false
  var limit = 1
  var bytes = 0
  /// In the first partition: the last key of the answer before.
  var resumed: ByteSlice?

  mutating func resume(behind key: ByteSlice) { resumed = key }

  /// Adds what is found in a partition to a listing.
  func run(
    on view: (any StateView)?, partition: Int32, from listing: StateListing
  ) throws(StateError) -> StateListing {
    var listing = listing
    guard let view else { return listing }
    if let single {
      if let entry = try view.entry(single.unsafeBytes) {
        _ = try listing.add(single.unsafeBytes, entry, partition: partition, self)
      }
      return listing
    }
    var range = range
    if let resumed, range.contains(resumed) {
      range = isDescending ? range.lowerBound..<resumed : Self.behind(resumed)..<range.upperBound
    }
    if tags.isEmpty {
      try view.scan(range, descending: isDescending) { (key, entry) throws(StateError) in
        try listing.add(key, entry, partition: partition, self)
      }
    } else {
      for key in try view.keys(in: range, tags: tags, descending: isDescending, limit: limit) {
        guard let entry = try view.entry(key.unsafeBytes) else { continue }
        guard try listing.add(key.unsafeBytes, entry, partition: partition, self) else { break }
      }
    }
    return listing
  }

  /// The least bytes greater than `key`.
  private static func behind(_ key: ByteSlice) -> ByteSlice { ByteSlice(key.array + [0]) }
}

/// Entries found, up to the limits of one answer.
struct StateListing: Sendable {
  private var entries: [JSONValue] = []
  private var bytes: [UInt8] = []
  private var last: (partition: Int32, key: StateKey)?
  /// There is more in the partition of the last entry.
  private(set) var isCut = false

  func isFull(_ query: StateQuery) -> Bool { entries.count >= query.limit || bytes.count >= query.bytes }

  var values: ByteSlice { ByteSlice(bytes) }

  /// Adds an entry; false: there is no room for it, nor for any other.
  mutating func add(
    _ key: UnsafeRawBufferPointer, _ entry: UnsafeRawBufferPointer, partition: Int32, _ query: StateQuery
  ) throws(StateError) -> Bool {
    let entry = try StateEntry(entry)
    let size = query.keysOnly ? 0 : entry.value.count
    guard !isFull(query), entries.isEmpty || bytes.count + size <= query.bytes else {
      isCut = true
      return false
    }
    let full = try StateKey(full: ByteSlice(copying: key))
    var members: [JSONValue.Member] = [
      .init("partition", JSONValue(partition)), .init("keyHex", .string(full.key.hexadecimal)),
    ]
    if let text = String(validating: full.key.unsafeBytes, as: UTF8.self) {
      members.append(.init("key", .string(text)))
    }
    if query.allStores { members.append(.init("store", .string(full.store))) }
    members.append(.init("size", JSONValue(entry.value.count)))
    if let expiry = entry.expiry { members.append(.init("expiresMs", .int(expiry))) }
    if entry.hasTags { members.append(.init("tags", JSONValue(strings: entry.tags))) }
    entries.append(.object(members))
    if !query.keysOnly { bytes += entry.value }
    last = (partition, full)
    return true
  }

  /// The answer. `next`: the partition to go on with, if not behind the last entry.
  func json(next: Int32?) -> JSONValue {
    var resume = JSONValue.null
    if isCut, let last {
      resume = [
        "partition": JSONValue(last.partition), "store": .string(last.key.store),
        "keyHex": .string(last.key.key.hexadecimal),
      ]
    } else if let next {
      resume = ["partition": JSONValue(next)]
    }
    return ["entries": .array(entries), "next": resume]
  }
}

extension ByteSlice {
  /// Two hexadecimal digits per byte.
  var hexadecimal: String {
    let digits = Array("0123456789abcdef".utf8)
    return String(decoding: unsafeBytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
  }
}
