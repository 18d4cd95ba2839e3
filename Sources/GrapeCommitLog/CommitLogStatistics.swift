/// What the log has done since it was opened.
public struct CommitLogStatistics: Sendable {
  /// Transactions committed.
  public var commits: UInt64 = 0
  /// Commit groups written: `commits / groups` transactions shared one write.
  public var groups: UInt64 = 0
  /// Bytes written to segments.
  public var bytes: UInt64 = 0
  /// Synchronisations (fdatasync), and how long they took.
  public var syncs: UInt64 = 0
  public var syncTime = DurationHistogram()
  /// Groups written on the thread of `assist()`.
  public var assisted: UInt64 = 0
  /// Batches read from memory; from disk, where a read that needs index files counts as one.
  public var cachedReads: UInt64 = 0
  public var diskReads: UInt64 = 0

  /// Index files written for sealed segments.
  public var indexes: UInt64 = 0
  /// Segments rewritten or merged, and the bytes that became free by it, counting a segment not rewritten before as full.
  public var cleanedSegments: UInt64 = 0
  public var reclaimedBytes: UInt64 = 0
  /// Failures of work in the background (indexes, checkpoints, retention, compaction), which nobody waits for, and the
  /// last of them.
  public var backgroundFailures: UInt64 = 0
  public var lastBackgroundFailure: String?

  public init() {}
}

/// Durations counted in buckets whose width is an eighth of a power of two: percentiles within 12%.
public struct DurationHistogram: Sendable {
  private static let steps = 8
  private var buckets = [UInt32](repeating: 0, count: 64 * 8)
  /// Number of durations.
  public private(set) var count: UInt64 = 0

  public init() {}

  /// Adds one duration in nanoseconds. Negative ones count as 0.
  public mutating func add(nanoseconds: Int64) {
    let value = UInt64(max(nanoseconds, 0))
    buckets[Self.bucket(value)] &+= 1
    count += 1
  }

  /// The duration in nanoseconds that `share` (0 ... 1) of all durations do not exceed; 0 if there are none.
  public func percentile(_ share: Double) -> Int64 {
    if count == 0 { return 0 }
    let wanted = UInt64((Double(count) * min(max(share, 0), 1)).rounded(.up))
    var seen: UInt64 = 0
    for (place, bucket) in buckets.enumerated() {
      seen += UInt64(bucket)
      if seen >= max(wanted, 1) { return Self.top(place) }
    }
    return Self.top(buckets.count - 1)
  }

  private static func bucket(_ value: UInt64) -> Int {
    if value < UInt64(steps) { return Int(value) }
    let exponent = 63 - value.leadingZeroBitCount
    return (exponent - 2) * steps + Int((value >> UInt64(exponent - 3)) & 7)
  }

  private static func top(_ bucket: Int) -> Int64 {
    if bucket < steps { return Int64(bucket) }
    let exponent = bucket / steps + 2
    let low = (UInt64(8 + bucket % steps)) << UInt64(exponent - 3)
    return Int64(clamping: low + (UInt64(1) << UInt64(exponent - 3)) - 1)
  }
}
