import Grape
import GrapeCore
import GrapeWire

/// Writes single entries.
struct StateWriter {
  private let node: NodeConnection
  private let place: StatePlace

  init(_ node: NodeConnection, _ place: StatePlace) {
    self.node = node
    self.place = place
  }

  /// What came of a write.
  struct Outcome {
    var partition: Int32
    var key: [UInt8]
    /// Bytes of the value as it is now; nil: there is no entry.
    var size: Int64?

    func show(_ options: NodeOptions, _ done: String) {
      guard !options.json else {
        return Output.line(
          JSONValue.object([
            .init("partition", JSONValue(partition)), key.withUnsafeBytes { Payload.member("key", $0) },
            .init("size", size.map { .int($0) } ?? .null),
          ]).text)
      }
      Output.line("\(done) partition \(partition)" + (size.map { ", \(Format.count($0)) bytes" } ?? ""))
    }
  }

  /// Where the entry is; nil: nowhere. Everything that was done before is seen.
  func partition(of key: [UInt8]) throws -> Int32? {
    var found: [Int32] = []
    let pages = try StatePages(
      node, place, [("keyHex", .string(Hexadecimal.text(key)))], keysOnly: true, consistency: .linearizable)
    try pages.forEach { row in
      found.append(row.partition)
      return true
    }
    guard found.count <= 1 else {
      let list = found.map { "\($0)" }.joined(separator: ", ")
      throw CommandFailure(
        .conflict,
        "partitions \(list) have an entry `\(key.withUnsafeBytes { Format.inline($0) })`: name one with --partition, or with --for and the event's key"
      )
    }
    return found.first
  }

  /// Carries out a write. Throws `refused` if a `cas` found something else.
  ///
  /// - Parameter known: the partition, if it has been found out already.
  func write(
    _ operation: String, key: [UInt8], value: ByteSlice?, expected: ByteSlice? = nil,
    members: [JSONValue.Member], trigger: String?, in known: Int32? = nil
  ) throws -> Outcome {
    var item: [JSONValue.Member] = [
      .init("op", .string(operation)), .init("keyHex", .string(Hexadecimal.text(key))),
    ]
    var pieces: [ByteSlice] = []
    for (name, bytes) in [("size", value), ("expectedSize", expected)] {
      guard let bytes else { continue }
      item.append(.init(name, JSONValue(bytes.count)))
      pieces.append(bytes)
    }
    item += members
    if let trigger { item.append(.init("trigger", .string(trigger))) }
    var request = place.members + [("writes", JSONValue.array([.object(item)]))]
    if let partition = try place.partitionMember {
      request.append(partition)
    } else if let found = try known ?? partition(of: key) {
      request.append(("partition", JSONValue(found)))
    }
    let answer = try node.request(
      "state.write", request.map { JSONValue.Member($0.0, $0.1) }, blob: try blob(pieces, beside: request),
      timeout: place.timeout + .seconds(2))
    let result = answer.json["results"]?.array?.first ?? .null
    guard let partition = result["partition"]?.int.flatMap({ Int32(exactly: $0) }) else {
      throw CommandFailure(
        .internal, "the node's answer to state.write is not what docs/admin.md says: \(answer.json.text)")
    }
    let size = result["size"]?.int
    let now = size.map { "a value of \(Format.count($0)) bytes" } ?? "no entry"
    let name = key.withUnsafeBytes { Format.inline($0) }
    switch result["result"]?.string {
    case "done": return Outcome(partition: partition, key: key, size: size)
    case "refused":
      throw CommandFailure(.refused, "`\(name)` in partition \(partition) is not what was expected: there is \(now)")
    case "too-large":
      throw CommandFailure(
        .tooLarge,
        "`\(name)` in partition \(partition) would have more than the \(Format.count(StateBounds.value)) bytes allowed: there is \(now)"
      )
    default:
      throw CommandFailure(
        .internal, "the node's answer to state.write is not what docs/admin.md says: \(answer.json.text)")
    }
  }

  /// The values behind one another, if they fit a frame.
  private func blob(_ pieces: [ByteSlice], beside request: [(String, JSONValue)]) throws -> ByteSlice {
    let text = JSONValue.object(request.map { JSONValue.Member($0.0, $0.1) }).text.utf8.count
    let size = pieces.reduce(text + 1024) { $0 + $1.count }
    guard size <= node.welcome.maxFrame else {
      throw CommandFailure(
        .tooLarge, "the request has \(Format.count(size)) bytes, the node takes \(Format.count(node.welcome.maxFrame))")
    }
    if pieces.count == 1 { return pieces[0] }
    var writer = ByteWriter(capacity: pieces.reduce(16) { $0 + $1.count })
    for piece in pieces { piece.withUnsafeBytes { writer.bytes($0) } }
    return writer.finish()
  }
}
