import ArgumentParser

/// Reads `250ms`, `5s`, `2m`, `1h`, `3d`, also with a decimal point (`1.5s`); `0` needs no unit.
func parseDuration(_ text: String) throws -> Duration {
  func refuse() -> ValidationError {
    ValidationError("a duration is a number and a unit: 250ms, 5s, 2m, 1h or 3d")
  }
  let number = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
  guard let amount = Double(number), amount.isFinite, number.first != ".", number.last != "." else { throw refuse() }
  let milliseconds: Double
  switch text.dropFirst(number.count) {
  case "ms": milliseconds = amount
  case "s": milliseconds = amount * 1000
  case "m", "min": milliseconds = amount * 60_000
  case "h": milliseconds = amount * 3_600_000
  case "d": milliseconds = amount * 86_400_000
  case "" where amount == 0: milliseconds = 0
  default: throw refuse()
  }
  guard milliseconds < 1e13 else { throw ValidationError("\(text) is longer than this program will live") }
  return .milliseconds(Int64(milliseconds.rounded()))
}

/// The same for an option that must wait for something: more than nothing.
func parseTimeout(_ text: String) throws -> Duration {
  let duration = try parseDuration(text)
  guard duration > .zero else { throw ValidationError("a timeout is longer than 0") }
  return duration
}

/// Reads `100`, `4k`, `2M`, `1G` (powers of 1,000) and `64KiB`, `8MiB`, `1GiB` (powers of 1,024).
func parseCount(_ text: String) throws -> Int {
  let number = text.prefix { $0.isASCII && ($0.isNumber || $0 == "." || $0 == "_") }
  let factor: Double
  switch text.dropFirst(number.count) {
  case "": factor = 1
  case "k", "K", "kB", "KB": factor = 1e3
  case "M", "MB": factor = 1e6
  case "G", "GB": factor = 1e9
  case "KiB": factor = 1024
  case "MiB": factor = 1_048_576
  case "GiB": factor = 1_073_741_824
  default: throw ValidationError("a number is expected, as in 5000, 20k, 2M or 8MiB")
  }
  guard let amount = Double(number.filter { $0 != "_" }), amount * factor <= 1e15 else {
    throw ValidationError("a number is expected, as in 5000, 20k, 2M or 8MiB")
  }
  return Int((amount * factor).rounded())
}

/// The same for a number that is 1 or more.
func parsePositiveCount(_ text: String) throws -> Int {
  let count = try parseCount(text)
  guard count > 0 else { throw ValidationError("1 or more is expected") }
  return count
}
