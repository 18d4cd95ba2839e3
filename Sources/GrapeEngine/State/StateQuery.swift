package import GrapeCore
internal import GrapeState
package import GrapeStore
package import GrapeWire

/// What somebody wants to know of state: entries by key, by range, or by tags.
package struct StateQuery: Sendable {
  private var range = ByteSlice([])..<ByteSlice([])
  /// One key alone.
  private var single: ByteSlice?
  /// Entries are told with their stores.
  fileprivate let allStores: Bool
  private let store: String
  private let tags: [String]
  private let isDescending: Bool
  fileprivate let keysOnly: Bool
  /// Entries, and bytes of their values but for a single larger one, that an answer has at most.
  fileprivate let limit: Int
  fileprivate let bytes: Int
  /// In the first partition: the last key of the answer before.
  private var resumed: ByteSlice?
  /// As it was asked, but for where and how long.
  private let members: [JSONValue.Member]

  /// Bytes of values in one answer at most, but for a single larger one.
  private static let mostBytes = 1024 * 1024
  private static let mostEntries = 10_000
  private static let names = [
    "store", "allStores", "key", "keyHex", "prefix", "prefixHex", "start", "startHex", "end", "endHex", "tags",
    "descending",
    "keysOnly",
  ]

  /// Reads `state.read` of docs/admin.md. Errors: `badRequest`, `tooLarge`.
  package init(_ request: JSONValue) throws(StatusError) {
    members = Self.names.compactMap { name in request[name].map { JSONValue.Member(name, $0) } }
    limit = try request.number("limit", 1...Int64(Self.mostEntries)).map(Int.init) ?? Self.mostEntries
    bytes = Self.mostBytes
    isDescending = request["descending"]?.bool ?? false
    keysOnly = request["keysOnly"]?.bool ?? false
    tags = try request.texts("tags")
    store = request["store"]?.string ?? ""
    allStores = request["allStores"]?.bool ?? false
    if allStores,
      let other = ["store", "key", "keyHex", "prefix", "prefixHex", "start", "startHex", "end", "endHex", "tags"]
        .first(where: { request[$0] != nil })
    {
      throw StatusError(.badRequest, "\"allStores\" does not go with \"\(other)\"")
    }
    do throws(StateError) {
      if allStores {
        range = StateKey.allStores
      } else if let key = try request.bytes("key") {
        let full = try StateKey(store: store, key).bytes
        range = full..<StateKey.successor(of: full)
        single = full
      } else {
        range = try Self.range(request, store: store)
      }
    } catch {
      throw StatusError(error)
    }
  }

  private static func range(_ request: JSONValue, store: String) throws(StateError) -> Range<ByteSlice> {
    func bound(_ member: String) throws(StateError) -> [UInt8]? {
      guard let bytes = try request.bytes(member) else { return nil }
      guard bytes.count <= StateLimits.key else {
        throw StateError(.tooLarge, "\"\(member)\" has \(bytes.count) bytes, a key at most \(StateLimits.key)")
      }
      return bytes
    }
    let prefix = try StateKey.range(store: store, prefix: try bound("prefix") ?? [])
    var (first, end) = (prefix.lowerBound, prefix.upperBound)
    if let start = try bound("start") { first = max(first, try StateKey.range(store: store, prefix: start).lowerBound) }
    if let last = try bound("end") {
      let last = try StateKey.range(store: store, prefix: last).lowerBound
      guard last >= first else { throw StateError(.invalidArgument, "the range ends before it begins") }
      end = min(end, last)
    }
    // What begins behind the prefix has nothing in it.
    return first..<max(first, end)
  }

  /// Goes on, in the first partition, behind where an earlier answer ended: its `next`. Errors: `badRequest`.
  package mutating func resume(_ next: JSONValue) throws(StatusError) {
    do throws(StateError) {
      guard let key = try next.bytes("key") else { return }
      resumed = try StateKey(store: allStores ? next["store"]?.string ?? "" : store, key).bytes
    } catch {
      throw StatusError(.badRequest, "\"next\": \(error.message)")
    }
  }

  /// The same in the partitions behind the first.
  package var forNextPartition: StateQuery {
    var query = self
    query.resumed = nil
    return query
  }

  // MARK: Asking another node

  /// Leads a record of `APP.writes` that is a question.
  static let mark: UInt8 = 16

  /// A record's value that asks the node that has the partition for what a listing, which has no values yet, has still room for.
  ///
  /// - Parameter until: nobody waits for the answer any more, milliseconds since 1970.
  package func question(for listing: StateListing, until: Int64) throws(StatusError) -> ByteSlice {
    var asked = members
    asked.append(.init("limit", JSONValue(max(1, limit - listing.count))))
    asked.append(.init("untilMs", .int(until)))
    if let resumed {
      do throws(StateError) {
        let key = try StateKey(full: resumed)
        asked.append(.init("next", ["store": .string(key.store), "keyHex": .string(key.key.hexadecimal)]))
      } catch {
        throw StatusError(error)
      }
    }
    return ByteSlice([Self.mark] + JSONValue.object(asked).utf8)
  }

  /// Whether a record of `APP.writes` is a question.
  static func isQuestion(_ value: UnsafeRawBufferPointer) -> Bool { value.first == mark }

  /// What a question is answered with: an answer's JSON and its values; nil: nobody waits for it any more. Errors: those of `init`, and `tooLarge`.
  static func answer(
    _ value: UnsafeRawBufferPointer, on view: (any StateView)?, partition: Int32, now: Int64
  ) throws(StatusError) -> ByteSlice? {
    let request: JSONValue
    do {
      request = try JSONValue(parsing: UnsafeRawBufferPointer(rebasing: value.dropFirst()))
    } catch {
      throw StatusError(.badRequest, "a question about state is no JSON: \(error)")
    }
    guard let until = request["untilMs"]?.int, until > now else { return nil }
    var query = try StateQuery(request)
    if let next = request["next"] { try query.resume(next) }
    let listing: StateListing
    do throws(StateError) {
      listing = try query.run(on: view, partition: partition, from: StateListing())
    } catch {
      throw StatusError(error)
    }
    let (text, values) = (ByteSlice(listing.json(next: nil).utf8), listing.values)
    guard text.count + values.count <= mostAnswered else {
      throw StatusError(
        .tooLarge,
        "an entry of \(values.count) bytes is too large to be sent through another node: ask the one that has it")
    }
    var answer = ByteWriter(capacity: text.count + values.count + 8)
    text.withUnsafeBytes { answer.bytes32($0) }
    values.withUnsafeBytes { answer.bytes($0) }
    return answer.finish()
  }

  /// Bytes that fit a frame with all that is around them.
  private static let mostAnswered = FrameHeader.defaultLimit - 8_192

  // MARK: Looking

  /// Adds what is found in a partition to a listing.
  package func run(
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
package struct StateListing: Sendable {
  private var entries: [JSONValue] = []
  private var bytes: [UInt8] = []
  private var last: (partition: Int32, key: StateKey)?
  /// There is more in the partition of the last entry.
  package private(set) var isCut = false

  package init() {}

  package func isFull(_ query: StateQuery) -> Bool { entries.count >= query.limit || bytes.count >= query.bytes }

  package var count: Int { entries.count }
  package var values: ByteSlice { ByteSlice(bytes) }

  /// Adds what another node has answered. Errors: `internal` for what is no answer.
  package mutating func add(answer: ByteSlice, partition: Int32) throws(StatusError) {
    var reader = ByteReader(answer.unsafeBytes)
    do {
      let json = try JSONValue(parsing: try reader.bytes32() ?? UnsafeRawBufferPointer(start: nil, count: 0))
      let rest = reader.rest()
      entries += json["entries"]?.array ?? []
      bytes += rest
      if let next = json["next"], next != .null {
        isCut = true
        last = (partition, try StateKey(store: next["store"]?.string ?? "", try next.bytes("key") ?? []))
      }
    } catch {
      throw StatusError(
        .internal, "what the node that has partition \(partition) has answered cannot be read: \(error)")
    }
    withExtendedLifetime(answer) {}
  }

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
  package func json(next: Int32?) -> JSONValue {
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
  package var hexadecimal: String {
    let digits = Array("0123456789abcdef".utf8)
    return String(decoding: unsafeBytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
  }
}

extension JSONValue {
  /// A number that a request has as a member; nil: it has none. Errors: `badRequest` with what is possible.
  package func number(_ member: String, _ range: ClosedRange<Int64>) throws(StatusError) -> Int64? {
    guard let value = self[member], value != .null else { return nil }
    guard let number = value.int, range.contains(number) else {
      throw StatusError(
        .badRequest, "\"\(member)\" is \(value.text); \(range.lowerBound) to \(range.upperBound) is possible")
    }
    return number
  }

  /// A list of texts that a request has as a member; empty: it has none. Errors: `badRequest`.
  package func texts(_ member: String) throws(StatusError) -> [String] {
    guard let value = self[member], value != .null else { return [] }
    guard let list = value.array, let texts = Optional(list.compactMap(\.string)), texts.count == list.count else {
      throw StatusError(.badRequest, "\"\(member)\" is a list of texts, not \(value.text)")
    }
    return texts
  }

  /// Bytes as a text `NAME`, or as hexadecimal digits in `NAMEHex`; nil: neither is there. Errors: `invalidArgument`.
  package func bytes(_ member: String) throws(StateError) -> [UInt8]? {
    if let text = self[member]?.string { return Array(text.utf8) }
    guard let digits = self[member + "Hex"]?.string else { return nil }
    guard let bytes = [UInt8](hexadecimal: digits) else {
      throw StateError(
        .invalidArgument, "\"\(member)Hex\" is \"\(digits)\": an even number of hexadecimal digits is possible")
    }
    return bytes
  }
}

extension [UInt8] {
  /// The bytes that hexadecimal digits stand for; nil if they are none.
  package init?(hexadecimal text: String) {
    let digits = text.utf8.map { byte -> UInt8? in
      switch byte {
      case 0x30...0x39: byte - 0x30
      case 0x61...0x66: byte - 0x61 + 10
      case 0x41...0x46: byte - 0x41 + 10
      default: nil
      }
    }
    guard digits.count % 2 == 0, !digits.contains(nil) else { return nil }
    self = stride(from: 0, to: digits.count, by: 2).map { digits[$0]! << 4 | digits[$0 + 1]! }
  }
}

extension StatusError {
  /// A failure of state, as clients are told.
  package init(_ error: StateError) {
    let status: Status =
      switch error.code {
      case .invalidArgument: .badRequest
      case .tooLarge: .tooLarge
      case .unavailable, .system: .unavailable
      default: .internal
      }
    self.init(status, error.message)
  }
}
