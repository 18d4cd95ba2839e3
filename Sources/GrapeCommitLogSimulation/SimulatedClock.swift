package import GrapeCommitLog

/// Time that passes only when the simulation says so.
package final class SimulatedClock: @unchecked Sendable {
  // A simulation lives on one thread.
  /// Milliseconds since 1970 UTC.
  package var wallMilliseconds: Int64 = 1_700_000_000_000
  /// Nanoseconds since some moment.
  package private(set) var monotonicNanoseconds: Int64 = 0

  package init() {}

  package func advance(milliseconds: Int) {
    wallMilliseconds += Int64(milliseconds)
    monotonicNanoseconds += Int64(milliseconds) * 1_000_000
  }

  /// What the log is given.
  package var logClock: LogClock {
    LogClock(
      wallMilliseconds: { self.wallMilliseconds }, monotonicNanoseconds: { self.monotonicNanoseconds })
  }
}
