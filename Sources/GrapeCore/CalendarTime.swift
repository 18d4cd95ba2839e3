/// A time of day in UTC, with milliseconds: ISO 8601 text to and from milliseconds since 1970.
///
/// Days to dates and back by counting from 1 March in eras of 400 years, which puts the leap day last.
public struct CalendarTime: Hashable, Sendable {
  public var year: Int64
  /// 1 to 12.
  public var month: Int64
  /// 1 to 31.
  public var day: Int64
  /// Milliseconds since midnight.
  public var millisecondOfDay: Int64

  /// The time so many milliseconds after 1970 began (UTC).
  public init(milliseconds: Int64) {
    let perDay: Int64 = 86_400_000
    let remainder = milliseconds % perDay
    millisecondOfDay = remainder < 0 ? remainder + perDay : remainder
    let days = (milliseconds - millisecondOfDay) / perDay + 719_468
    let era = (days >= 0 ? days : days - 146_096) / 146_097
    let dayOfEra = days - era * 146_097
    let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let shifted = (5 * dayOfYear + 2) / 153
    day = dayOfYear - (153 * shifted + 2) / 5 + 1
    month = shifted < 10 ? shifted + 3 : shifted - 9
    year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
  }

  /// Milliseconds since 1970 UTC.
  public var milliseconds: Int64 {
    let shiftedYear = month <= 2 ? year - 1 : year
    let era = (shiftedYear >= 0 ? shiftedYear : shiftedYear - 399) / 400
    let yearOfEra = shiftedYear - era * 400
    let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
    let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
    return (era * 146_097 + dayOfEra - 719_468) * 86_400_000 + millisecondOfDay
  }

  /// `2013-01-31T12:05:07.123Z`
  public var text: String {
    func padded(_ value: Int64, _ width: Int) -> String {
      let digits = String(value)
      return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
    let seconds = millisecondOfDay / 1000
    return "\(padded(year, 4))-\(padded(month, 2))-\(padded(day, 2))T\(padded(seconds / 3600, 2)):"
      + "\(padded(seconds / 60 % 60, 2)):\(padded(seconds % 60, 2)).\(padded(millisecondOfDay % 1000, 3))Z"
  }

  /// Reads `2013-01-31`, `2013-01-31T12:05`, `…:07`, `…:07.123`, each with `Z`, `+02:00` or nothing (UTC) behind a time.
  public init?(_ text: String) {
    var bytes = Array(text.utf8)[...]
    func digits(_ count: Int) -> Int64? {
      guard bytes.count >= count, bytes.prefix(count).allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
      defer { bytes = bytes.dropFirst(count) }
      return bytes.prefix(count).reduce(0) { $0 * 10 + Int64($1 - 0x30) }
    }
    func take(_ character: Character) -> Bool {
      guard bytes.first == character.asciiValue else { return false }
      bytes = bytes.dropFirst()
      return true
    }
    guard let year = digits(4), take("-"), let month = digits(2), take("-"), let day = digits(2) else { return nil }
    guard (1...12).contains(month), (1...31).contains(day) else { return nil }
    self.init(milliseconds: 0)
    (self.year, self.month, self.day) = (year, month, day)
    // The 30th of February is the 2nd of March: not what was written, so not a date.
    guard CalendarTime(milliseconds: milliseconds) == self else { return nil }
    if bytes.isEmpty { return }
    guard take("T") || take(" "), let hour = digits(2), take(":"), let minute = digits(2), hour < 24, minute < 60 else {
      return nil
    }
    millisecondOfDay = (hour * 60 + minute) * 60_000
    if take(":") {
      guard let second = digits(2), second < 60 else { return nil }
      millisecondOfDay += second * 1000
      if take(".") {
        let fraction = bytes.prefix { (0x30...0x39).contains($0) }
        guard (1...9).contains(fraction.count) else { return nil }
        bytes = bytes.dropFirst(fraction.count)
        millisecondOfDay +=
          fraction.prefix(3).reduce(0) { $0 * 10 + Int64($1 - 0x30) }
          * (fraction.count == 1 ? 100 : fraction.count == 2 ? 10 : 1)
      }
    }
    if bytes.isEmpty || (take("Z") && bytes.isEmpty) { return }
    let sign: Int64 = take("+") ? 1 : take("-") ? -1 : 0
    guard sign != 0, let hours = digits(2), hours < 24 else { return nil }
    _ = take(":")
    guard let minutes = digits(2), minutes < 60, bytes.isEmpty else { return nil }
    self = CalendarTime(milliseconds: milliseconds - sign * (hours * 60 + minutes) * 60_000)
  }
}
