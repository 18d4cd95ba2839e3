internal import GrapeLog
internal import GrapeWire

/// Replies of a lane that works at least once which everybody has who waited for them: they go to the log with what goes there next. Pure.
struct ToldReplies {
  private var appends: [Transaction.Append] = []
  private var bytes = 0
  /// More are not kept back, bytes and batches.
  private static let limit = 64 << 10
  private static let mostBatches = 256

  /// Keeps back what a transaction appends, if it `isTold` and there is room, or adds what was kept back so far.
  mutating func gather(_ transaction: inout Transaction, isTold: Bool) {
    let size = transaction.appends.reduce(0) { $0 + $1.batch.count }
    if isTold, bytes + size <= Self.limit, appends.count + transaction.appends.count <= Self.mostBatches {
      appends += transaction.appends
      bytes += size
      transaction.appends = []
    } else if !appends.isEmpty {
      transaction.appends = appends + transaction.appends
      self = ToldReplies()
    }
  }
}

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
