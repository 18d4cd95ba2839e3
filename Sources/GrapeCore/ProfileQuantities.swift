/// Why a text is no duration or size.
public struct QuantityError: Error, Hashable, Sendable, CustomStringConvertible {
  /// What is wrong and what would be right.
  public var message: String

  public init(_ message: String) { self.message = message }
  public var description: String { message }
}

/// Durations as people write them: `250ms`, `1.5s`, `2m`, `1h`.
public enum DurationText {
  private static let units: [(name: String, nanoseconds: Int64)] = [
    ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
  ]

  /// Reads a number with a unit (us, ms, s, m, h, d); `0` needs none.
  public static func parse(_ text: String) throws(QuantityError) -> Duration {
    let (digits, unit) = Quantity.split(text)
    if digits == "0", unit.isEmpty { return .zero }
    guard !digits.isEmpty else {
      throw QuantityError(
        "\(text.quotedForMessage) is no duration: write a number and a unit, for instance 250ms, 5s or 2m")
    }
    guard let scale = units.first(where: { $0.name == unit })?.nanoseconds else {
      let what = unit.isEmpty ? "has no unit" : "has the unknown unit \(unit.quotedForMessage)"
      throw QuantityError("\(text.quotedForMessage) \(what): use us, ms, s, m, h or d, for instance \(digits)s")
    }
    guard let nanoseconds = Quantity.scaled(digits, by: scale) else {
      throw QuantityError("\(text.quotedForMessage) is too long or too precise for a duration")
    }
    return .nanoseconds(nanoseconds)
  }

  /// The shortest exact text that `parse` reads back, for durations of whole microseconds.
  public static func format(_ duration: Duration) -> String {
    let nanoseconds = duration.wholeNanoseconds
    if nanoseconds == 0 { return "0" }
    for unit in units.reversed() where nanoseconds % unit.nanoseconds == 0 {
      return "\(nanoseconds / unit.nanoseconds)\(unit.name)"
    }
    return "\(nanoseconds / 1_000)us"
  }
}

/// Sizes as people write them: `64KiB`, `10MiB`, `262144`.
public enum ByteCountText {
  private static let units: [(name: String, bytes: Int64)] = [
    ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40),
    ("kB", 1_000), ("KB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000),
  ]

  /// Reads a number of bytes, alone or with a unit (B, KiB, MiB, GiB, TiB; kB, MB, GB, TB).
  public static func parse(_ text: String) throws(QuantityError) -> Int {
    let (digits, unit) = Quantity.split(text)
    guard !digits.isEmpty else {
      throw QuantityError(
        "\(text.quotedForMessage) is no size: write a number of bytes, for instance 262144, 64KiB or 10MiB")
    }
    guard let scale = unit.isEmpty ? 1 : units.first(where: { $0.name == unit })?.bytes else {
      throw QuantityError(
        "\(text.quotedForMessage) has the unknown unit \(unit.quotedForMessage): use B, KiB, MiB, GiB or "
          + "TiB, for instance \(digits)KiB"
      )
    }
    guard let bytes = Quantity.scaled(digits, by: scale) else {
      throw QuantityError("\(text.quotedForMessage) is no whole number of bytes, or too large")
    }
    return Int(bytes)
  }

  /// The shortest exact text that `parse` reads back.
  public static func format(_ bytes: Int) -> String {
    if bytes == 0 { return "0" }
    for unit in units[1...4].reversed() where Int64(bytes) % unit.bytes == 0 {
      return "\(Int64(bytes) / unit.bytes)\(unit.name)"
    }
    return "\(bytes)"
  }
}

/// Numbers with units.
private enum Quantity {
  /// The leading decimal number (empty if there is none) and what follows it.
  static func split(_ text: String) -> (digits: String, unit: String) {
    var end = text.startIndex
    var dots = 0
    while end < text.endIndex {
      let character = text[end]
      if character == ".", dots == 0, end > text.startIndex {
        dots += 1
      } else if !("0"..."9" ~= character && character.isASCII) {
        break
      }
      end = text.index(after: end)
    }
    var digits = String(text[..<end])
    if digits.hasSuffix(".") { digits = "" }
    var unit = text[end...]
    while unit.first == " " { unit = unit.dropFirst() }
    return (digits, String(unit))
  }

  /// `digits` times `scale`, exactly; nil if that is no whole number or does not fit.
  static func scaled(_ digits: String, by scale: Int64) -> Int64? {
    let parts = digits.split(separator: ".", omittingEmptySubsequences: false)
    guard let whole = Int64(parts[0]) else { return nil }
    let (product, overflow) = whole.multipliedReportingOverflow(by: scale)
    guard !overflow else { return nil }
    guard parts.count == 2 else { return product }
    guard parts[1].count <= 9, let fraction = Int64(parts[1]) else { return nil }
    var denominator: Int64 = 1
    for _ in 0..<parts[1].count { denominator *= 10 }
    let (numerator, large) = fraction.multipliedReportingOverflow(by: scale)
    guard !large, numerator % denominator == 0 else { return nil }
    let (sum, tooLarge) = product.addingReportingOverflow(numerator / denominator)
    return tooLarge ? nil : sum
  }
}

extension Duration {
  /// Whole nanoseconds, rounded towards zero; the bound of `Int64` (292 years) if it is beyond that.
  public var wholeNanoseconds: Int64 {
    let (seconds, attoseconds) = components
    let (product, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
    let (sum, tooLarge) = product.addingReportingOverflow(attoseconds / 1_000_000_000)
    return overflow || tooLarge ? (seconds < 0 ? .min : .max) : sum
  }

  /// Whole milliseconds, rounded towards zero.
  public var wholeMilliseconds: Int64 { wholeNanoseconds / 1_000_000 }
}
