internal import Histogram

/// What one slot has done since the node started.
struct SlotStatistics {
  var processed = 0
  var failed = 0
  var handlerNanoseconds: UInt64 = 0
  var rate = RateMeter()
  private var latency = Histogram<UInt64>(highestTrackableValue: 3_600_000_000, numberOfSignificantValueDigits: .two)

  /// `count` events took `microseconds` from their append to the commit of their result.
  mutating func record(latencyMicroseconds microseconds: Int64, count: Int) {
    guard count > 0 else { return }
    latency.record(UInt64(min(max(microseconds, 0), 3_600_000_000)), count: UInt64(count))
  }

  /// Latency at a percentile, milliseconds.
  func latencyMilliseconds(atPercentile percentile: Double) -> Double {
    Double(latency.valueAtPercentile(percentile)) / 1000
  }
}

/// Events per second over the last ten seconds.
struct RateMeter {
  private static let seconds = 10
  private var buckets = [Int](repeating: 0, count: seconds + 1)
  private var currentSecond: Int64 = 0

  mutating func add(_ count: Int, now: Int64) {
    rotate(to: now / 1_000_000_000)
    buckets[Int(currentSecond % Int64(buckets.count))] += count
  }

  /// `now` is monotonic, nanoseconds.
  mutating func perSecond(now: Int64) -> Double {
    rotate(to: now / 1_000_000_000)
    return Double(buckets.reduce(0, +)) / Double(Self.seconds)
  }

  private mutating func rotate(to second: Int64) {
    guard second > currentSecond else { return }
    let steps = min(second - currentSecond, Int64(buckets.count))
    for step in 1...steps { buckets[Int((second - steps + step) % Int64(buckets.count))] = 0 }
    currentSecond = second
  }
}
