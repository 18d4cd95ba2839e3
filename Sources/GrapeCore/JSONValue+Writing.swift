extension JSONValue {
  /// The document as text on one line.
  public var text: String {
    var output: [UInt8] = []
    write(to: &output, indent: nil, depth: 0)
    return String(decoding: output, as: UTF8.self)
  }

  /// The document as text for people: indented by two spaces.
  public var prettyText: String {
    var output: [UInt8] = []
    write(to: &output, indent: 2, depth: 0)
    return String(decoding: output, as: UTF8.self)
  }

  /// The document's UTF-8 on one line.
  public var utf8: [UInt8] {
    var output: [UInt8] = []
    write(to: &output, indent: nil, depth: 0)
    return output
  }

  private func write(to output: inout [UInt8], indent: Int?, depth: Int) {
    switch self {
    case .null: output += "null".utf8
    case .bool(let value): output += (value ? "true" : "false").utf8
    case .int(let value): output += String(value).utf8
    case .double(let value):
      // JSON has no infinities; null is what other writers put in their place.
      output += (value.isFinite ? value.description : "null").utf8
    case .string(let value): Self.quote(value, to: &output)
    case .array(let elements):
      Self.writeList("[", "]", elements, to: &output, indent: indent, depth: depth) { element, output in
        element.write(to: &output, indent: indent, depth: depth + 1)
      }
    case .object(let members):
      Self.writeList("{", "}", members, to: &output, indent: indent, depth: depth) { member, output in
        Self.quote(member.name, to: &output)
        output += (indent == nil ? ":" : ": ").utf8
        member.value.write(to: &output, indent: indent, depth: depth + 1)
      }
    }
  }

  private static func writeList<Element>(
    _ open: String, _ close: String, _ elements: [Element], to output: inout [UInt8], indent: Int?, depth: Int,
    each: (Element, inout [UInt8]) -> Void
  ) {
    output += open.utf8
    for (index, element) in elements.enumerated() {
      if index > 0 { output += ",".utf8 }
      newLine(to: &output, indent: indent, depth: depth + 1)
      each(element, &output)
    }
    if !elements.isEmpty { newLine(to: &output, indent: indent, depth: depth) }
    output += close.utf8
  }

  private static func newLine(to output: inout [UInt8], indent: Int?, depth: Int) {
    guard let indent else { return }
    output.append(0x0a)
    output += [UInt8](repeating: 0x20, count: indent * depth)
  }

  private static func quote(_ text: String, to output: inout [UInt8]) {
    output.append(UInt8(ascii: "\""))
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "\""): output += "\\\"".utf8
      case UInt8(ascii: "\\"): output += "\\\\".utf8
      case 0x0a: output += "\\n".utf8
      case 0x0d: output += "\\r".utf8
      case 0x09: output += "\\t".utf8
      case 0..<0x20, 0x7f:
        let digits = String(byte, radix: 16)
        output += "\\u00\(digits.count == 1 ? "0" : "")\(digits)".utf8
      default: output.append(byte)
      }
    }
    output.append(UInt8(ascii: "\""))
  }
}
