/// A quick look at a JSON text: is it well-formed, and what do two members of it say? Nothing is allocated.
///
/// It knows only what is common. Where it finds anything else, be it an escape in a name, a number with an exponent or
/// a mistake, it says that it does not know, and the full parser must be asked.
struct JSONScanner {
  /// Members of the outermost object, in place, without quotes. Nil: not there, or null.
  struct Fields {
    var key: UnsafeRawBufferPointer?
    var event: UnsafeRawBufferPointer?
  }

  private static let depthLimit = 64

  private let bytes: UnsafeRawBufferPointer
  private let keyField: UnsafeRawBufferPointer?
  private let eventField: UnsafeRawBufferPointer?
  private var position = 0
  private var fields = Fields()
  private var keyCount = 0
  private var eventCount = 0
  private var isASCII = true

  private init(_ bytes: UnsafeRawBufferPointer, key: UnsafeRawBufferPointer?, event: UnsafeRawBufferPointer?) {
    self.bytes = bytes
    keyField = key
    eventField = event
  }

  /// The members asked for, if `bytes` are a JSON text that has each of them, as a string without escapes or as a whole number;
  /// nil if that is not certain.
  static func scan(_ bytes: UnsafeRawBufferPointer, key: UnsafeRawBufferPointer?, event: UnsafeRawBufferPointer?)
    -> Fields?
  {
    var scanner = JSONScanner(bytes, key: key, event: event)
    scanner.skipSpace()
    guard scanner.value(depth: 0) else { return nil }
    scanner.skipSpace()
    guard scanner.position == bytes.count, scanner.keyCount == (key == nil ? 0 : 1),
      scanner.eventCount == (event == nil ? 0 : 1),
      scanner.isASCII || String(validating: bytes, as: UTF8.self) != nil
    else { return nil }
    return scanner.fields
  }

  private var current: UInt8 { position < bytes.count ? bytes[position] : 0 }

  private mutating func skipSpace() {
    while position < bytes.count {
      let byte = bytes[position]
      guard byte == 0x20 || byte == 0x09 || byte == 0x0a || byte == 0x0d else { return }
      position += 1
    }
  }

  private mutating func take(_ byte: UInt8) -> Bool {
    guard current == byte else { return false }
    position += 1
    return true
  }

  private mutating func value(depth: Int) -> Bool {
    guard depth < Self.depthLimit else { return false }
    switch current {
    case UInt8(ascii: "{"): return object(depth: depth)
    case UInt8(ascii: "["): return array(depth: depth)
    case UInt8(ascii: "\""): return string() != nil
    case UInt8(ascii: "t"): return literal("true")
    case UInt8(ascii: "f"): return literal("false")
    case UInt8(ascii: "n"): return literal("null")
    default: return number() != nil
    }
  }

  private mutating func object(depth: Int) -> Bool {
    position += 1
    skipSpace()
    if take(UInt8(ascii: "}")) { return true }
    while true {
      guard current == UInt8(ascii: "\""), let (name, isPlain) = string() else { return false }
      // A name with escapes might be one that is asked for.
      guard isPlain else { return false }
      skipSpace()
      guard take(UInt8(ascii: ":")) else { return false }
      skipSpace()
      if depth == 0, Self.equal(name, keyField) {
        keyCount += 1
        guard let text = member() else { return false }
        fields.key = text
        if Self.equal(name, eventField) {
          eventCount += 1
          fields.event = fields.key
        }
      } else if depth == 0, Self.equal(name, eventField) {
        eventCount += 1
        guard let text = member() else { return false }
        fields.event = text
      } else {
        guard value(depth: depth + 1) else { return false }
      }
      skipSpace()
      if take(UInt8(ascii: "}")) { return true }
      guard take(UInt8(ascii: ",")) else { return false }
      skipSpace()
    }
  }

  private mutating func array(depth: Int) -> Bool {
    position += 1
    skipSpace()
    if take(UInt8(ascii: "]")) { return true }
    while true {
      guard value(depth: depth + 1) else { return false }
      skipSpace()
      if take(UInt8(ascii: "]")) { return true }
      guard take(UInt8(ascii: ",")) else { return false }
      skipSpace()
    }
  }

  /// A member that is asked for.
  private mutating func member() -> UnsafeRawBufferPointer? {
    if current == UInt8(ascii: "\"") {
      guard let (text, isPlain) = string(), isPlain else { return nil }
      return text
    }
    guard let (text, isWhole) = number(), isWhole else { return nil }
    return text
  }

  private mutating func literal(_ text: StaticString) -> Bool {
    let count = text.utf8CodeUnitCount
    guard bytes.count - position >= count else { return false }
    for index in 0..<count where bytes[position + index] != text.utf8Start[index] { return false }
    position += count
    return true
  }

  /// The text between the quotes, and whether it is free of escapes. Escapes other than `\u` are checked; with `\u` nil.
  private mutating func string() -> (UnsafeRawBufferPointer, isPlain: Bool)? {
    position += 1
    let start = position
    var isPlain = true
    while position < bytes.count {
      let byte = bytes[position]
      if byte == UInt8(ascii: "\"") {
        position += 1
        return (UnsafeRawBufferPointer(rebasing: bytes[start..<position - 1]), isPlain)
      }
      guard byte >= 0x20 else { return nil }
      if byte >= 0x80 { isASCII = false }
      if byte == UInt8(ascii: "\\") {
        isPlain = false
        position += 1
        switch current {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "b"), UInt8(ascii: "f"),
          UInt8(ascii: "n"), UInt8(ascii: "r"), UInt8(ascii: "t"):
          break
        default: return nil
        }
      }
      position += 1
    }
    return nil
  }

  /// The digits, and whether it is a whole number as JSON would write it again. Exponents and long numbers: nil.
  private mutating func number() -> (UnsafeRawBufferPointer, isWhole: Bool)? {
    let start = position
    let isNegative = take(UInt8(ascii: "-"))
    let first = position
    while (0x30...0x39).contains(current), position < bytes.count { position += 1 }
    let digits = position - first
    guard (1...18).contains(digits), digits == 1 || bytes[first] != 0x30 else { return nil }
    var isWhole = !(isNegative && digits == 1 && bytes[first] == 0x30)
    if take(UInt8(ascii: ".")) {
      isWhole = false
      let fraction = position
      while (0x30...0x39).contains(current), position < bytes.count { position += 1 }
      guard (1...18).contains(position - fraction) else { return nil }
    }
    guard current != UInt8(ascii: "e"), current != UInt8(ascii: "E") else { return nil }
    return (UnsafeRawBufferPointer(rebasing: bytes[start..<position]), isWhole)
  }

  private static func equal(_ name: UnsafeRawBufferPointer, _ field: UnsafeRawBufferPointer?) -> Bool {
    guard let field, field.count == name.count else { return false }
    for index in 0..<name.count where name[index] != field[index] { return false }
    return true
  }
}
