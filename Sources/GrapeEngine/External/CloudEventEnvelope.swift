internal import GrapeCore
internal import GrapeWire

/// Why a record cannot become an event.
struct UnusableRecord: Error, Hashable {
  var message: String
}

/// A CloudEvent as one JSON object ("structured mode"), taken apart into what it would be in headers and value
/// ("binary mode"). By the CloudEvents specification 1.0: its JSON format and its Kafka protocol binding.
///
/// The data is not looked into: it may be large, and its numbers are to reach the handler as they were written.
struct CloudEventEnvelope {
  /// What the event is about.
  enum Data {
    case none
    /// Bytes of the value that the envelope was read from.
    case inPlace(UnsafeRawBufferPointer)
    case made(ByteSlice)

    /// Valid while this and the envelope's bytes are.
    var bytes: UnsafeRawBufferPointer? {
      switch self {
      case .none: nil
      case .inPlace(let bytes): bytes
      case .made(let bytes): bytes.unsafeBytes
      }
    }
  }

  /// `ce_…` headers in the order of the object, then `content-type` if the data has one.
  private(set) var headers: [(name: String, value: [UInt8])] = []
  private(set) var data = Data.none

  private static let required = ["specversion", "id", "source", "type"]

  /// Reads `envelope`, which must outlive the value.
  init(_ envelope: UnsafeRawBufferPointer) throws(UnusableRecord) {
    var members = MemberScanner(envelope)
    var contentType: String?
    var missing = Self.required
    var payload: UnsafeRawBufferPointer?
    var isEncoded = false
    while let member = try members.next() {
      switch member.name {
      case "data", "data_base64":
        if payload != nil { throw UnusableRecord(envelope: "it has data twice") }
        payload = member.value
        isEncoded = member.name == "data_base64"
      case "datacontenttype": contentType = try parse(member.value).string
      case let name:
        guard let text = try Self.attribute(name, parse(member.value)) else { continue }
        missing.removeAll { $0 == name }
        headers.append(("ce_" + name, Array(text.utf8)))
      }
    }
    guard missing.isEmpty else {
      throw UnusableRecord(envelope: "it lacks \(missing.joined(separator: ", "))")
    }
    try take(payload, isEncoded: isEncoded, contentType: &contentType)
    if let contentType { headers.append(("content-type", Array(contentType.utf8))) }
  }

  /// An attribute's value as a header has it; nil: null, as if it were not there.
  private static func attribute(_ name: String, _ value: JSONValue) throws(UnusableRecord) -> String? {
    guard !name.isEmpty, name.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f }) else {
      throw UnusableRecord(envelope: "\(name.quotedForMessage) is no name of an attribute")
    }
    let text: String
    switch value {
    case .null: return nil
    case .string(let string): text = string
    case .bool(let flag): text = flag ? "true" : "false"
    case .int(let number): text = String(number)
    default: throw UnusableRecord(envelope: "its attribute \(name) is neither a text, a whole number nor true or false")
    }
    if required.contains(name), text.isEmpty { throw UnusableRecord(envelope: "its attribute \(name) is empty") }
    if name == "specversion", !text.hasPrefix("1.") {
      throw UnusableRecord(envelope: "version \(text.quotedForMessage) of CloudEvents is not understood, 1.0 is")
    }
    return text
  }

  private mutating func take(
    _ payload: UnsafeRawBufferPointer?, isEncoded: Bool, contentType: inout String?
  ) throws(UnusableRecord) {
    guard let payload, !payload.elementsEqual("null".utf8) else { return }
    if isEncoded {
      guard let text = try parse(payload).string, let bytes = Base64.bytes(text) else {
        throw UnusableRecord(envelope: "data_base64 is not base64")
      }
      data = .made(bytes)
      return
    }
    // The format's rule: without a content type the data is JSON, and JSON stays as it is written.
    let type = contentType ?? "application/json"
    contentType = type
    guard payload.first == UInt8(ascii: "\""), !Self.isJSON(type) else {
      data = .inPlace(payload)
      return
    }
    guard let text = try parse(payload).string else {
      throw UnusableRecord(envelope: "its data is no text")
    }
    data = .made(ByteSlice(text))
  }

  /// `application/json`, `text/json`, `…+json`, with parameters behind or without.
  private static func isJSON(_ type: String) -> Bool {
    let media = type.lowercased().prefix { $0 != ";" && $0 != " " }
    return media.hasSuffix("/json") || media.hasSuffix("+json")
  }
}

extension UnusableRecord {
  fileprivate init(envelope problem: String) { self.init(message: "its value is no CloudEvent: \(problem)") }
}

/// A value of the envelope, apart from its data.
private func parse(_ bytes: UnsafeRawBufferPointer) throws(UnusableRecord) -> JSONValue {
  do throws(JSONError) {
    return try JSONValue(parsing: bytes)
  } catch {
    throw UnusableRecord(envelope: error.message)
  }
}

/// Walks the members of one JSON object without making values of them: what is nested is passed over.
private struct MemberScanner {
  private let bytes: UnsafeRawBufferPointer
  private var position = 0
  private var isFirst = true

  init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  private var current: UInt8? { position < bytes.count ? bytes[position] : nil }

  private func failure(_ message: String) -> UnusableRecord {
    UnusableRecord(envelope: "\(message) (byte \(position))")
  }

  /// The next member: its name, and its value's bytes; nil behind the object, of which nothing must be left then.
  mutating func next() throws(UnusableRecord) -> (name: String, value: UnsafeRawBufferPointer)? {
    skipSpace()
    if isFirst {
      guard current == UInt8(ascii: "{") else { throw failure("it is no JSON object") }
      position += 1
      skipSpace()
    }
    if current == UInt8(ascii: "}") {
      position += 1
      skipSpace()
      guard position == bytes.count else { throw failure("something follows the object") }
      return nil
    }
    if !isFirst {
      guard current == UInt8(ascii: ",") else { throw failure("a comma is missing between its members") }
      position += 1
      skipSpace()
    }
    isFirst = false
    guard current == UInt8(ascii: "\"") else { throw failure("a member has no name") }
    let start = position
    try skipString()
    let name = try parse(UnsafeRawBufferPointer(rebasing: bytes[start..<position])).string ?? ""
    skipSpace()
    guard current == UInt8(ascii: ":") else { throw failure("a colon is missing behind \(name.quotedForMessage)") }
    position += 1
    skipSpace()
    let first = position
    try skipValue()
    guard position > first else { throw failure("\(name.quotedForMessage) has no value") }
    return (name, UnsafeRawBufferPointer(rebasing: bytes[first..<position]))
  }

  private mutating func skipSpace() {
    while let byte = current, byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 { position += 1 }
  }

  private mutating func skipString() throws(UnusableRecord) {
    position += 1
    while let byte = current {
      position += 1
      if byte == UInt8(ascii: "\"") { return }
      if byte == UInt8(ascii: "\\") { position += 1 }
    }
    position = bytes.count
    throw failure("a text does not end")
  }

  private mutating func skipValue() throws(UnusableRecord) {
    var depth = 0
    while let byte = current {
      switch byte {
      case UInt8(ascii: "\""):
        try skipString()
      case UInt8(ascii: "{"), UInt8(ascii: "["):
        depth += 1
        position += 1
      case UInt8(ascii: "}"), UInt8(ascii: "]"):
        if depth == 0 { return }
        depth -= 1
        position += 1
      case UInt8(ascii: ","), 0x20, 0x0a, 0x0d, 0x09:
        if depth == 0 { return }
        position += 1
        continue
      default:
        position += 1
        continue
      }
      if depth == 0 { return }
    }
    if depth > 0 { throw failure("the object does not end") }
  }
}
