import GrapeCore
import GrapeWire

/// Figures and times as people read them.
enum Format {
  /// `27,004`
  static func count(_ value: some BinaryInteger) -> String {
    let digits = String(value.magnitude)
    var text = ""
    for (index, digit) in digits.enumerated() {
      if index > 0, (digits.count - index) % 3 == 0 { text += "," }
      text.append(digit)
    }
    return value < 0 ? "-" + text : text
  }

  /// `1.4 MiB`
  static func bytes(_ value: Int64) -> String {
    guard value >= 1024 else { return "\(value) B" }
    var amount = Double(value)
    var unit = 0
    let units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024, unit < units.count - 1 {
      amount /= 1024
      unit += 1
    }
    return "\(decimal(amount, amount < 10 ? 1 : 0)) \(units[unit])"
  }

  /// `12,345` events per second, with a decimal below 10.
  static func rate(_ value: Double) -> String {
    guard value.isFinite else { return "-" }
    return value < 10 ? decimal(value, 1) : count(Int64(value.rounded()))
  }

  /// A number with a fixed count of decimals.
  static func decimal(_ value: Double, _ places: Int) -> String {
    var factor = 1.0
    for _ in 0..<places { factor *= 10 }
    let scaled = (value.magnitude * factor).rounded()
    guard scaled < 9e18 else { return "\(value)" }
    let whole = Int64(scaled)
    let sign = value < 0 && whole != 0 ? "-" : ""
    guard places > 0 else { return "\(sign)\(whole)" }
    let digits = String(whole)
    let padded = String(repeating: "0", count: max(0, places + 1 - digits.count)) + digits
    return "\(sign)\(padded.dropLast(places)).\(padded.suffix(places))"
  }

  /// Milliseconds as `3.4 ms`, `12 s`, `5 min`.
  static func milliseconds(_ value: Double) -> String {
    switch value {
    case ..<1: decimal(value, 2) + " ms"
    case ..<10: decimal(value, 1) + " ms"
    case ..<10_000: decimal(value, 0) + " ms"
    case ..<120_000: decimal(value / 1000, 0) + " s"
    case ..<7_200_000: decimal(value / 60_000, 0) + " min"
    case ..<172_800_000: decimal(value / 3_600_000, 0) + " h"
    default: decimal(value / 86_400_000, 0) + " d"
    }
  }

  /// A duration in milliseconds.
  static func duration(_ value: Duration) -> String {
    let (seconds, attoseconds) = value.components
    return milliseconds(Double(seconds) * 1000 + Double(attoseconds) / 1e15)
  }

  /// `2013-01-31T12:05:07.123Z`
  static func time(_ milliseconds: Int64) -> String { CalendarTime(milliseconds: milliseconds).text }

  /// Bytes as text on one line: control characters escaped, and hexadecimal if they are not UTF-8.
  static func inline(_ bytes: UnsafeRawBufferPointer, limit: Int = .max) -> String {
    guard let text = String(validating: bytes, as: UTF8.self) else {
      let shown = bytes.prefix(min(limit / 2, 256))
      let digits = shown.map { $0 < 16 ? "0" + String($0, radix: 16) : String($0, radix: 16) }.joined()
      return "0x\(digits)" + (shown.count < bytes.count ? "… (\(bytes.count) bytes)" : "")
    }
    var line = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\n": line += "\\n"
      case "\r": line += "\\r"
      case "\t": line += "\\t"
      case "\\": line += "\\\\"
      case _ where scalar.value < 0x20 || (0x7f..<0xa0).contains(scalar.value):
        line += "\\u{\(String(scalar.value, radix: 16))}"
      default: line.unicodeScalars.append(scalar)
      }
      if line.utf8.count >= limit { return line + "… (\(bytes.count) bytes)" }
    }
    return line
  }
}
