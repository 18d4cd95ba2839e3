internal import GrapeLog

/// What the node does by itself in one lane, between deliveries: writes from outside, and the removal of what has expired. Pure.
struct LaneChores {
  enum Chore: Equatable { case writes, expiry }

  /// All records of `APP.writes` below are dealt with.
  private(set) var position: Int64
  /// Writes that were read and not dealt with.
  private(set) var writes: [LogBatch] = []
  private(set) var isReading = false
  /// A chore is being done.
  private(set) var isBusy = false
  /// The earliest expiry in the store, milliseconds; nil: nothing expires.
  var nextExpiry: Int64?
  /// Monotonic time before which expiry is not looked at again.
  private var notBefore: Int64 = 0
  /// The last thing done in the lane was a chore: events that wait come first.
  private var isEventsTurn = false

  /// Expired entries are removed at most so often, nanoseconds.
  private static let sweepInterval: Int64 = 200_000_000

  init(position: Int64) { self.position = position }

  /// Where to read writes from; nil: not now. Marks the reading as begun.
  mutating func planRead() -> Int64? {
    guard !isReading, writes.isEmpty else { return nil }
    isReading = true
    return position
  }

  mutating func read(_ batches: [LogBatch]) {
    isReading = false
    writes = batches.filter { $0.lastOffset >= position }
  }

  /// Nothing came of the reading; the next goes on at `position`.
  mutating func readNothing(next position: Int64? = nil) {
    isReading = false
    if let position { self.position = max(self.position, position) }
  }

  /// What is to be done now, if anything. Events and chores take turns while both wait.
  func due(now: Int64, time: Int64, eventsWait: Bool) -> Chore? {
    if isBusy { return nil }
    if eventsWait, isEventsTurn { return nil }
    if !writes.isEmpty { return .writes }
    if let nextExpiry, nextExpiry <= time, now >= notBefore { return .expiry }
    return nil
  }

  /// Something waits, or may have to be removed in time.
  var hasWork: Bool { !writes.isEmpty || nextExpiry != nil }

  /// No write waits or is being done.
  var isIdle: Bool { !isBusy && writes.isEmpty }

  mutating func begin() { isBusy = true }

  mutating func ended(_ chore: Chore, now: Int64, upTo position: Int64? = nil, keepingWrites: Bool = false) {
    isBusy = false
    isEventsTurn = true
    switch chore {
    case .writes:
      if !keepingWrites { writes.removeAll() }
      if let position { self.position = position }
    case .expiry: notBefore = now + Self.sweepInterval
    }
  }

  mutating func delivered() { isEventsTurn = false }

  /// Nanoseconds until expiry is to be looked at; nil: nothing expires.
  func timeUntilExpiry(now: Int64, time: Int64) -> Int64? {
    guard let nextExpiry, !isBusy else { return nil }
    return max(0, max((nextExpiry - time) * 1_000_000, notBefore - now))
  }
}
