internal import CGrapeLinux

/// Where a reactor, and all that lives on it, takes the time from.
public struct ReactorClock: Sendable {
  private let readMonotonic: @Sendable () -> Int64
  private let readWall: @Sendable () -> Int64

  /// A clock of one's own.
  package init(monotonic: @escaping @Sendable () -> Int64, wall: @escaping @Sendable () -> Int64) {
    readMonotonic = monotonic
    readWall = wall
  }

  /// The machine's.
  public static let system = ReactorClock(monotonic: { grape_monotonic_ns() }, wall: { grape_realtime_ms() })

  /// Nanoseconds since some moment; never goes back.
  public var monotonic: Int64 { readMonotonic() }
  /// Milliseconds since 1970 UTC.
  public var wall: Int64 { readWall() }
}
