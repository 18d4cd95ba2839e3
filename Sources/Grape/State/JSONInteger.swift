/// Whole numbers as JSON writes them, without a detour through text.
enum JSONInteger {
  /// Most bytes of one.
  static let size = 20

  /// The number that `bytes` are; nil if they are not simply one: digits, perhaps behind a minus sign.
  @inline(__always)
  static func parse(_ bytes: UnsafeRawBufferPointer) -> Int64? {
    guard var position = bytes.baseAddress, bytes.count > 0, bytes.count <= size else { return nil }
    let end = position + bytes.count
    let isNegative = position.load(as: UInt8.self) == UInt8(ascii: "-")
    if isNegative { position += 1 }
    let digits = end - position
    guard digits > 0, digits == 1 || position.load(as: UInt8.self) != UInt8(ascii: "0") else { return nil }
    if digits <= 18 {
      // No overflow is possible.
      var value: Int64 = 0
      while position < end {
        let digit = position.load(as: UInt8.self) &- UInt8(ascii: "0")
        guard digit <= 9 else { return nil }
        value = value &* 10 &+ Int64(digit)
        position += 1
      }
      return isNegative ? 0 &- value : value
    }
    return long(UnsafeRawBufferPointer(start: position, count: digits), isNegative)
  }

  @inline(never)
  private static func long(_ digits: UnsafeRawBufferPointer, _ isNegative: Bool) -> Int64? {
    var value: Int64 = 0
    for byte in digits {
      let digit = byte &- UInt8(ascii: "0")
      guard digit <= 9 else { return nil }
      let (shifted, overflowed) = value.multipliedReportingOverflow(by: 10)
      let (sum, passed) = shifted.subtractingReportingOverflow(Int64(digit))
      guard !overflowed, !passed else { return nil }
      value = sum
    }
    if isNegative { return value }
    return value == .min ? nil : 0 - value
  }

  /// Calls `body` with the digits of `value`.
  @inline(__always)
  static func withDigits<Result, Failure: Error>(
    of value: Int64, _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    var room: (UInt64, UInt64, UInt64) = (0, 0, 0)
    var begin = 24
    var rest = value.magnitude
    let outcome: Swift.Result<Result, Failure> = withUnsafeMutableBytes(of: &room) { bytes in
      let base = bytes.baseAddress.unsafelyUnwrapped
      repeat {
        let (quotient, digit) = rest.quotientAndRemainder(dividingBy: 10)
        begin -= 1
        (base + begin).storeBytes(of: UInt8(truncatingIfNeeded: digit) &+ UInt8(ascii: "0"), as: UInt8.self)
        rest = quotient
      } while rest > 0
      if value < 0 {
        begin -= 1
        (base + begin).storeBytes(of: UInt8(ascii: "-"), as: UInt8.self)
      }
      do throws(Failure) {
        return .success(try body(UnsafeRawBufferPointer(start: base + begin, count: 24 - begin)))
      } catch {
        return .failure(error)
      }
    }
    return try outcome.get()
  }
}
