/// Arrival delays of a group of flights, counted per minute. Mean and median are exact, and the memory needed depends
/// on how many different delays there are, not on the number of flights.
public struct DelayCounts: Sendable {
  /// Flights seen.
  public private(set) var flights = 0
  /// Flights among them that have no arrival delay.
  public private(set) var missing = 0
  /// Sum of the delays, minutes.
  public private(set) var sum = 0
  private var flightsPerMinute: [Int: Int] = [:]

  public init() {}

  /// Counts flights of the same delay; nil: they have none.
  public mutating func add(_ delay: Int?, flights count: Int = 1) {
    flights += count
    guard let delay else {
      missing += count
      return
    }
    sum += count * delay
    flightsPerMinute[delay, default: 0] += count
  }

  /// Flights whose delay is known.
  public var known: Int { flights - missing }

  /// Mean delay in minutes; nil if no delay is known.
  public var mean: Double? {
    known == 0 ? nil : Double(sum) / Double(known)
  }

  /// Median delay in minutes, the mean of the two middle ones if their number is even; nil if no delay is known.
  public var median: Double? {
    guard known > 0 else { return nil }
    let minutes = flightsPerMinute.sorted { $0.key < $1.key }
    return Double(delay(at: (known - 1) / 2, in: minutes) + delay(at: known / 2, in: minutes)) / 2
  }

  /// The delay that stands at `position` (from 0) when all are sorted.
  private func delay(at position: Int, in minutes: [(key: Int, value: Int)]) -> Int {
    var passed = 0
    for (minute, count) in minutes {
      passed += count
      if passed > position { return minute }
    }
    preconditionFailure("position \(position) is beyond the \(passed) delays counted")
  }
}
