internal import GrapeCore

/// What plain scalars mean: the core schema of YAML 1.2, where `no` and `on` are texts.
enum YAMLScalar {
  /// The value of a scalar as JSON; nil for what JSON cannot say (`.inf`, `.nan`).
  static func json(_ text: String, plain: Bool) -> JSONValue? {
    guard plain else { return .string(text) }
    switch text {
    case "", "~", "null", "Null", "NULL": return .null
    case "true", "True", "TRUE": return .bool(true)
    case "false", "False", "FALSE": return .bool(false)
    default: break
    }
    if let value = integer(text) { return .int(value) }
    if isSpecialNumber(text) { return nil }
    if looksLikeNumber(text), let value = Double(text) { return value.isFinite ? .double(value) : nil }
    return .string(text)
  }

  /// A whole number: decimal, `0x…` or `0o…`.
  static func integer(_ text: String) -> Int64? {
    if text.hasPrefix("0x") { return text.contains("-") ? nil : Int64(text.dropFirst(2), radix: 16) }
    if text.hasPrefix("0o") { return text.contains("-") ? nil : Int64(text.dropFirst(2), radix: 8) }
    return Int64(text)
  }

  private static func isSpecialNumber(_ text: String) -> Bool {
    let unsigned = text.hasPrefix("-") || text.hasPrefix("+") ? String(text.dropFirst()) : text
    return [".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN"].contains(unsigned)
  }

  /// Digits, at most one point, an exponent: not what else `Double` would read, such as `infinity` or hexadecimal
  /// floats.
  private static func looksLikeNumber(_ text: String) -> Bool {
    var digits = 0
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): digits += 1
      case UInt8(ascii: "+"), UInt8(ascii: "-"), UInt8(ascii: "."): break
      case UInt8(ascii: "e"), UInt8(ascii: "E"): if digits == 0 { return false }
      default: return false
      }
    }
    return digits > 0
  }
}
