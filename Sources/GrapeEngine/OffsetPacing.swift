/// When a lane that works at least once tells the log how far it is. Pure.
struct OffsetPacing {
  /// When progress that was not told must be, monotonic nanoseconds; nil: all was told.
  private(set) var due: Int64?
  private var last: Int64?

  /// The lane has moved on. True: tell the log with this commit.
  mutating func progressed(now: Int64, interval: Int64) -> Bool {
    guard let last, now - last < interval else {
      told(now: now)
      return true
    }
    due = due ?? last + interval
    return false
  }

  /// The log is being told.
  mutating func told(now: Int64) {
    last = now
    due = nil
  }
}
