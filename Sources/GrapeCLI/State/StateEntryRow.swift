import Grape
import GrapeCore
import GrapeWire

/// An entry as `state.read` tells of it.
struct StateEntryRow {
  var store: String
  var partition: Int32
  var key: [UInt8]
  /// Bytes of the value.
  var size: Int
  /// Milliseconds since 1970 UTC; nil: it stays.
  var expiresMs: Int64?
  var tags: [String]
  /// nil if only keys were asked for.
  var value: ByteSlice?

  /// Reads an entry of an answer; `position` moves behind its value in the blob.
  init(_ json: JSONValue, store: String, blob: ByteSlice, at position: inout Int, keysOnly: Bool) throws {
    guard let partition = json["partition"]?.int.flatMap({ Int32(exactly: $0) }),
      let key = json["keyHex"]?.string.flatMap({ Hexadecimal.bytes($0) }),
      let size = json["size"]?.int.flatMap({ Int(exactly: $0) }), size >= 0,
      keysOnly || size <= blob.count - position
    else {
      throw CommandFailure(.internal, "the node's answer to state.read is not what docs/admin.md says: \(json.text)")
    }
    self.store = json["store"]?.string ?? store
    self.partition = partition
    self.key = key
    self.size = size
    expiresMs = json["expiresMs"]?.int
    tags = (json["tags"]?.array ?? []).compactMap(\.string)
    guard !keysOnly else { return }
    value = blob[position..<position + size]
    position += size
  }

  /// What `--json` prints, `export` writes and `import` reads.
  var json: JSONValue {
    var members: [JSONValue.Member] = [
      .init("store", .string(store)), .init("partition", JSONValue(partition)),
      key.withUnsafeBytes { Payload.member("key", $0) }, .init("size", JSONValue(size)),
    ]
    if let value { members.append(value.withUnsafeBytes { Payload.member("value", $0) }) }
    if !tags.isEmpty { members.append(.init("tags", JSONValue(strings: tags))) }
    if let expiresMs { members.append(.init("expiresMs", .int(expiresMs))) }
    return .object(members)
  }

  /// One line for people: partition, key, value (or its size), expiry and tags, with tabs between.
  var line: String {
    let shown = value.map { $0.withUnsafeBytes { Format.inline($0, limit: 1024) } } ?? "\(Format.count(size)) bytes"
    var columns = ["\(partition)", keyText, shown]
    if let expiresMs { columns.append("expires \(Format.time(expiresMs))") }
    if !tags.isEmpty { columns.append("tags \(tags.joined(separator: " "))") }
    return columns.joined(separator: "\t")
  }

  var keyText: String { key.withUnsafeBytes { Format.inline($0) } }
}

/// Asks for entries, as many requests as it takes. No more than one answer is in memory: 1 MiB of values, or one larger one.
struct StatePages {
  private let node: NodeConnection
  private let place: StatePlace
  private let members: [(String, JSONValue)]
  private let keysOnly: Bool
  private let consistency: StateConsistency

  private static let pageEntries = 1000

  /// - Parameter members: of the request, beyond those of the place: what is looked for.
  init(
    _ node: NodeConnection, _ place: StatePlace, _ members: [(String, JSONValue)], keysOnly: Bool = false,
    consistency: StateConsistency
  ) throws {
    self.node = node
    self.place = place
    self.members = place.members + members + (try place.partitionMember.map { [$0] } ?? [])
    self.keysOnly = keysOnly
    self.consistency = consistency
  }

  /// Calls `body` with each entry, at most `limit`, until it returns false.
  func forEach(limit: Int? = nil, _ body: (StateEntryRow) throws -> Bool) throws {
    var left = limit ?? .max
    var next: JSONValue?
    // Once the stores have what came before, they have it for the further answers, too.
    var consistency = consistency
    while left > 0 {
      var request =
        members + [
          ("limit", JSONValue(min(left, Self.pageEntries))), ("consistency", .string(consistency.rawValue)),
        ]
      if keysOnly { request.append(("keysOnly", true)) }
      if let next { request.append(("next", next)) }
      let answer = try node.request(
        "state.read", request.map { JSONValue.Member($0.0, $0.1) }, timeout: place.timeout + .seconds(2))
      guard let entries = answer.json["entries"]?.array else {
        throw CommandFailure(.internal, "the node's answer to state.read has no entries")
      }
      var position = 0
      for entry in entries {
        let row = try StateEntryRow(
          entry, store: place.store ?? "", blob: answer.blob, at: &position, keysOnly: keysOnly)
        left -= 1
        guard try body(row) else { return }
      }
      guard let resume = answer.json["next"], !resume.isNull else { return }
      next = resume
      consistency = .local
    }
  }
}
