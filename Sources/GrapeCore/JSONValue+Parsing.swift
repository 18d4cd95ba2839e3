internal import GrapeWire

extension JSONValue {
  /// Deepest nesting that is taken: deeper input is refused rather than allowed to exhaust the stack.
  public static let depthLimit = 128

  /// Parses a document (RFC 8259, UTF-8, nothing behind it). O(n).
  public init(parsing bytes: UnsafeRawBufferPointer) throws(JSONError) {
    var parser = JSONParser(bytes)
    self = try parser.document()
  }

  /// Parses a document.
  public init(parsing text: String) throws(JSONError) {
    let bytes = ByteSlice(text)
    self = try bytes.withUnsafeBytes { (bytes) throws(JSONError) in try JSONValue(parsing: bytes) }
  }
}

private struct JSONParser {
  private let bytes: UnsafeRawBufferPointer
  private var position = 0

  init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  private func failure(_ message: String) -> JSONError { JSONError(message: message, offset: position) }
  private var current: UInt8? { position < bytes.count ? bytes[position] : nil }

  private mutating func skipSpace() {
    while let byte = current, byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 { position += 1 }
  }

  mutating func document() throws(JSONError) -> JSONValue {
    let value = try value(depth: 0)
    skipSpace()
    guard position == bytes.count else { throw failure("something follows the document") }
    return value
  }

  private mutating func value(depth: Int) throws(JSONError) -> JSONValue {
    guard depth < JSONValue.depthLimit else { throw failure("nested deeper than \(JSONValue.depthLimit)") }
    skipSpace()
    switch current {
    case UInt8(ascii: "{"): return try object(depth: depth)
    case UInt8(ascii: "["): return try array(depth: depth)
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "t"): return try literal("true", .bool(true))
    case UInt8(ascii: "f"): return try literal("false", .bool(false))
    case UInt8(ascii: "n"): return try literal("null", .null)
    case .some(let byte) where byte == UInt8(ascii: "-") || (0x30...0x39).contains(byte): return try number()
    case .some: throw failure("a value is expected here")
    case nil: throw failure("the text ends where a value is expected")
    }
  }

  private mutating func literal(_ text: StaticString, _ value: JSONValue) throws(JSONError) -> JSONValue {
    let count = text.utf8CodeUnitCount
    guard bytes.count - position >= count,
      UnsafeRawBufferPointer(rebasing: bytes[position..<position + count])
        .elementsEqual(UnsafeBufferPointer(start: text.utf8Start, count: count))
    else { throw failure("a value is expected here") }
    position += count
    return value
  }

  private mutating func object(depth: Int) throws(JSONError) -> JSONValue {
    position += 1
    var members: [JSONValue.Member] = []
    skipSpace()
    if current == UInt8(ascii: "}") {
      position += 1
      return .object(members)
    }
    while true {
      skipSpace()
      guard current == UInt8(ascii: "\"") else { throw failure("a member's name in double quotes is expected here") }
      let name = try string()
      skipSpace()
      guard current == UInt8(ascii: ":") else { throw failure("a colon is expected here") }
      position += 1
      members.append(JSONValue.Member(name, try value(depth: depth + 1)))
      skipSpace()
      switch current {
      case UInt8(ascii: ","): position += 1
      case UInt8(ascii: "}"):
        position += 1
        return .object(members)
      default: throw failure("a comma or the end of the object is expected here")
      }
    }
  }

  private mutating func array(depth: Int) throws(JSONError) -> JSONValue {
    position += 1
    var elements: [JSONValue] = []
    skipSpace()
    if current == UInt8(ascii: "]") {
      position += 1
      return .array(elements)
    }
    while true {
      elements.append(try value(depth: depth + 1))
      skipSpace()
      switch current {
      case UInt8(ascii: ","): position += 1
      case UInt8(ascii: "]"):
        position += 1
        return .array(elements)
      default: throw failure("a comma or the end of the array is expected here")
      }
    }
  }

  private mutating func number() throws(JSONError) -> JSONValue {
    let start = position
    if current == UInt8(ascii: "-") { position += 1 }
    let firstDigit = position
    digits()
    guard position > firstDigit else { throw failure("a digit is expected here") }
    if bytes[firstDigit] == 0x30, position > firstDigit + 1 { throw failure("a number does not begin with 0") }
    var whole = true
    if current == UInt8(ascii: ".") {
      whole = false
      position += 1
      let fraction = position
      digits()
      guard position > fraction else { throw failure("a digit is expected here") }
    }
    if current == UInt8(ascii: "e") || current == UInt8(ascii: "E") {
      whole = false
      position += 1
      if current == UInt8(ascii: "+") || current == UInt8(ascii: "-") { position += 1 }
      let exponent = position
      digits()
      guard position > exponent else { throw failure("a digit is expected here") }
    }
    let text = String(decoding: bytes[start..<position], as: UTF8.self)
    if whole, let value = Int64(text) { return .int(value) }
    guard let value = Double(text), value.isFinite else { throw failure("the number \(text) is out of range") }
    return .double(value)
  }

  private mutating func digits() {
    while let byte = current, (0x30...0x39).contains(byte) { position += 1 }
  }

  private mutating func string() throws(JSONError) -> String {
    position += 1
    var text: [UInt8] = []
    var run = position
    while let byte = current {
      if byte == UInt8(ascii: "\"") {
        text.append(contentsOf: bytes[run..<position])
        guard let string = String(validating: text, as: UTF8.self) else { throw failure("the string is not UTF-8") }
        position += 1
        return string
      }
      guard byte >= 0x20 else { throw failure("a control character in a string must be escaped") }
      guard byte == UInt8(ascii: "\\") else {
        position += 1
        continue
      }
      text.append(contentsOf: bytes[run..<position])
      position += 1
      try escape(into: &text)
      run = position
    }
    throw failure("the string does not end")
  }

  private mutating func escape(into text: inout [UInt8]) throws(JSONError) {
    guard let byte = current else { throw failure("the string does not end") }
    position += 1
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(byte)
    case UInt8(ascii: "b"): text.append(0x08)
    case UInt8(ascii: "f"): text.append(0x0c)
    case UInt8(ascii: "n"): text.append(0x0a)
    case UInt8(ascii: "r"): text.append(0x0d)
    case UInt8(ascii: "t"): text.append(0x09)
    case UInt8(ascii: "u"):
      var unit = UInt32(try hexUnit())
      if (0xd800..<0xdc00).contains(unit) {
        guard current == UInt8(ascii: "\\"), position + 1 < bytes.count, bytes[position + 1] == UInt8(ascii: "u") else {
          throw failure("half of a surrogate pair")
        }
        position += 2
        let low = UInt32(try hexUnit())
        guard (0xdc00..<0xe000).contains(low) else { throw failure("half of a surrogate pair") }
        unit = 0x10000 + (unit - 0xd800) << 10 + (low - 0xdc00)
      }
      guard let scalar = Unicode.Scalar(unit) else { throw failure("half of a surrogate pair") }
      text.append(contentsOf: String(Character(scalar)).utf8)
    default: throw failure("unknown escape in a string")
    }
  }

  private mutating func hexUnit() throws(JSONError) -> UInt16 {
    guard position + 4 <= bytes.count else { throw failure("four hex digits are expected here") }
    var value: UInt16 = 0
    for _ in 0..<4 {
      guard let digit = Character(Unicode.Scalar(bytes[position])).hexDigitValue else {
        throw failure("four hex digits are expected here")
      }
      value = value << 4 | UInt16(digit)
      position += 1
    }
    return value
  }
}
