import GrapeCore
import GrapeWire

/// A line of an import, checked.
struct StateImportLine {
  var store: String
  /// nil: the line names none.
  var partition: Int32?
  var key: [UInt8]
  var value: ByteSlice
  var tags: [String]
  var expiresMs: Int64?

  /// Reads a line; what is wrong is thrown as a sentence's beginning, without file and line.
  init(_ text: UnsafeRawBufferPointer) throws(Problem) {
    let json: JSONValue
    do throws(JSONError) { json = try JSONValue(parsing: text) } catch {
      throw Problem("not JSON, byte \(error.offset + 1): \(error.message)")
    }
    guard let members = json.object else { throw Problem("a JSON object is expected") }
    for (index, member) in members.enumerated() {
      guard Self.names.contains(member.name) else {
        throw Problem("there is no member `\(member.name)`; possible are \(Self.names.joined(separator: ", "))")
      }
      guard !members[..<index].contains(where: { $0.name == member.name }) else {
        throw Problem("`\(member.name)` is there twice")
      }
    }
    func optional<Value>(_ name: String, _ what: String, _ read: (JSONValue) -> Value?) throws(Problem) -> Value? {
      guard let member = json[name], !member.isNull else { return nil }
      guard let value = read(member) else { throw Problem("`\(name)` is \(what)") }
      return value
    }
    func bytes(_ name: String) throws(Problem) -> ByteSlice {
      let text = try optional(name, "text", { $0.string })
      let packed = try optional(
        name + "Base64", "base64, with padding", { $0.string.flatMap { Base64.bytes($0) } })
      switch (text, packed) {
      case (let text?, nil): return ByteSlice(text)
      case (nil, let packed?): return packed
      case (nil, nil): throw Problem("`\(name)` is missing (or `\(name)Base64`)")
      default: throw Problem("`\(name)` and `\(name)Base64` are both there")
      }
    }
    store =
      try optional("store", "a store's name: a small letter, then up to 29 of a-z, 0-9 and -, or empty") {
        $0.string.flatMap { try? parseStoreName($0) }
      } ?? ""
    partition = try optional("partition", "a number from 0 on") {
      $0.int.flatMap { Int32(exactly: $0) }.flatMap { $0 < 0 ? nil : $0 }
    }
    key = try bytes("key").array
    guard (1...StateBounds.key).contains(key.count) else {
      throw Problem("the key has \(key.count) bytes; 1 to \(StateBounds.key) are possible")
    }
    value = try bytes("value")
    guard value.count <= StateBounds.value else {
      throw Problem("the value has \(value.count) bytes; \(StateBounds.value) are possible")
    }
    tags =
      try optional("tags", "a list of up to \(StateBounds.tags) texts of 1 to \(StateBounds.tag) bytes") { list in
        guard let list = list.array, list.count <= StateBounds.tags else { return nil }
        let tags = list.compactMap { $0.string.flatMap { try? parseTag($0) } }
        return tags.count == list.count ? tags : nil
      } ?? []
    expiresMs = try optional("expiresMs", "a time in milliseconds since 1970") { $0.int.flatMap { $0 < 0 ? nil : $0 } }
    let size = try optional("size", "a number", { $0.int })
    guard size == nil || size == Int64(value.count) else {
      throw Problem("`size` is \(size!), the value has \(value.count) bytes")
    }
  }

  private static let names = [
    "store", "partition", "key", "keyBase64", "value", "valueBase64", "tags", "expiresMs", "size",
  ]

  /// What is wrong with a line.
  struct Problem: Error {
    var message: String
    init(_ message: String) { self.message = message }
  }

  /// Bytes that it takes in a request, roughly, from above.
  var byteCount: Int { value.count + 2 * key.count + tags.reduce(128) { $0 + 6 * $1.utf8.count } }
}
