/// What a kind of name is made of, and the messages that say so.
struct NameRule: Sendable {
  var kind: String
  var example: String
  var maximumLength: Int
  /// Bytes allowed besides `a-z` and `0-9`, from the second on.
  var punctuation: [UInt8]
  var mayBeginWithDigit: Bool
  var allowed: String

  static let application = NameRule(
    kind: "application name", example: "flights", maximumLength: AppName.maximumLength,
    punctuation: [UInt8(ascii: "-")], mayBeginWithDigit: false,
    allowed: "lower-case letters, digits and \"-\"")

  static let event = NameRule(
    kind: "event name", example: "parsed", maximumLength: EventName.maximumLength,
    punctuation: [UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: ".")], mayBeginWithDigit: false,
    allowed: "lower-case letters, digits, \"-\", \"_\" and \".\"")

  static let node = NameRule(
    kind: "node name", example: "n1", maximumLength: NodeName.maximumLength,
    punctuation: [UInt8(ascii: "-")], mayBeginWithDigit: true,
    allowed: "lower-case letters, digits and \"-\"")

  func check(_ text: String) throws(NameError) {
    let utf8 = text.utf8
    guard !utf8.isEmpty else {
      throw NameError(text: text, message: "the \(kind) is empty: write a name such as \(example)")
    }
    var position = 0
    for byte in utf8 {
      guard allows(byte, first: position == 0) else { throw refusal(of: text) }
      position += 1
    }
    guard position <= maximumLength else {
      throw NameError(
        text: text,
        message: "\(kind) \(text.quotedForMessage) has \(position) characters: at most \(maximumLength) are allowed")
    }
  }

  private func allows(_ byte: UInt8, first: Bool) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"): true
    case UInt8(ascii: "0")...UInt8(ascii: "9"): !first || mayBeginWithDigit
    default: !first && punctuation.contains(byte)
    }
  }

  /// The message for the first character that is not allowed. Only failures pay for finding it by character.
  private func refusal(of text: String) -> NameError {
    var position = 1
    var culprit = ""
    for scalar in text.unicodeScalars {
      let byte = scalar.isASCII ? UInt8(scalar.value) : 0
      if !allows(byte, first: position == 1) {
        culprit = String(Character(scalar))
        break
      }
      position += 1
    }
    let what =
      position == 1
      ? "it must begin with a lower-case letter\(mayBeginWithDigit ? " or a digit" : ""), not "
        + "\(culprit.quotedForMessage)"
      : "\(culprit.quotedForMessage) at character \(position) is not allowed: use \(allowed)"
    let hint = suggestion(for: text).map { ", for instance \($0)" } ?? ""
    return NameError(text: text, message: "\(kind) \(text.quotedForMessage): \(what)\(hint)")
  }

  /// The nearest name that would be allowed; nil if too little is left of the text.
  private func suggestion(for text: String) -> String? {
    var bytes: [UInt8] = []
    for byte in text.utf8.prefix(1024) {
      var byte = byte
      if (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte) { byte += 32 }
      if allows(byte, first: bytes.isEmpty) {
        bytes.append(byte)
      } else if !bytes.isEmpty, bytes.last != UInt8(ascii: "-"), byte < 0x80 {
        bytes.append(UInt8(ascii: "-"))
      }
    }
    while bytes.last == UInt8(ascii: "-") { bytes.removeLast() }
    guard bytes.count >= 2, bytes.count <= maximumLength else { return nil }
    return String(decoding: bytes, as: UTF8.self)
  }
}

extension String {
  /// The text in quotes, fit for one line of a message: control characters escaped, cut off after 80 characters.
  package var quotedForMessage: String {
    var result = "\""
    var count = 0
    for scalar in unicodeScalars {
      if count == 80 { return result + "…\"" }
      count += 1
      switch scalar {
      case "\"": result += "\\\""
      case "\\": result += "\\\\"
      case "\n": result += "\\n"
      case "\r": result += "\\r"
      case "\t": result += "\\t"
      default:
        if scalar.value < 0x20 || (0x7f...0x9f).contains(scalar.value) {
          result += "\\u{\(String(scalar.value, radix: 16))}"
        } else {
          result.unicodeScalars.append(scalar)
        }
      }
    }
    return result + "\""
  }
}
