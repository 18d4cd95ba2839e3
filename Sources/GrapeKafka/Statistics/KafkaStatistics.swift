/// What a log on Kafka has done since it was opened, and how the cluster looks from here.
public struct KafkaStatistics: Sendable {
  /// Transactions of `EventLog.commit` that were committed, and that were not, for whatever reason.
  public internal(set) var commits = 0
  public internal(set) var commitsRefused = 0
  /// Kafka transactions: each holds what was waiting together. Those that were begun and neither committed nor aborted were
  /// left to another producer, or are under way.
  public internal(set) var transactionsBegun = 0
  public internal(set) var transactionsCommitted = 0
  public internal(set) var transactionsAborted = 0
  /// Commits that went without a Kafka transaction, among `commits`.
  public internal(set) var plainCommits = 0
  /// Of those, single records that were sent by the thread that handed them over.
  public internal(set) var expressCommits = 0
  /// Committed, and handed to readers. Bytes are those of record batches, as handed over and as read.
  public internal(set) var recordsWritten = 0
  public internal(set) var bytesWritten = 0
  public internal(set) var recordsRead = 0
  public internal(set) var bytesRead = 0
  /// Rebalances of consumer groups that changed, or might have changed, what this node has.
  public internal(set) var rebalances = 0
  /// Partitions that members of this node were told to have, to give up, and to have lost.
  public internal(set) var partitionsAssigned = 0
  public internal(set) var partitionsRevoked = 0
  public internal(set) var partitionsLost = 0
  /// Tries that a group's coordinator refused because of who this node was in the group.
  public internal(set) var staleMembers = 0
  /// From handing over to receipt, of those that were committed.
  public internal(set) var commitLatency = LatencyHistogram()
  /// Brokers that this node has to do with, as librdkafka sees them, every few seconds (`statistics.interval.ms`).
  public internal(set) var brokers: [Broker] = []
  /// What went wrong last, oldest first; at most `errorLimit`.
  public internal(set) var lastErrors: [String] = []

  /// Most errors that are kept.
  public static let errorLimit = 8

  /// One broker.
  public struct Broker: Sendable, Equatable {
    /// `host:port/id`.
    public internal(set) var name: String
    /// True: connected. False: tried, and not connected.
    public internal(set) var isUp: Bool
    /// From request to response in the last interval, microseconds; 0 without requests.
    public internal(set) var roundTripMean: Int
    public internal(set) var roundTrip99: Int
  }
}

/// Counts durations in buckets that grow with what they hold: an eighth of a power of two each, so that percentiles are
/// off by an eighth at most.
public struct LatencyHistogram: Sendable {
  private var buckets = [Int](repeating: 0, count: 40 * 8)
  public private(set) var count = 0
  /// The longest, microseconds.
  public private(set) var maximum = 0

  mutating func add(microseconds: Int) {
    let value = max(0, microseconds)
    buckets[min(Self.bucket(of: value), buckets.count - 1)] += 1
    count += 1
    maximum = max(maximum, value)
  }

  /// So many microseconds or fewer took this share (0...1) of all; 0 if there are none. O(buckets).
  public func percentile(_ share: Double) -> Int {
    let wanted = max(1, Int((Double(count) * share).rounded(.up)))
    var seen = 0
    for (place, number) in buckets.enumerated() {
      seen += number
      if number > 0 && seen >= wanted { return min(maximum, Self.top(of: place)) }
    }
    return maximum
  }

  /// 0 to 7 are a bucket each; from there on the three bits behind the highest one tell.
  private static func bucket(of value: Int) -> Int {
    if value < 8 { return value }
    let exponent = Int.bitWidth - 1 - value.leadingZeroBitCount
    return (exponent - 2) * 8 + ((value >> (exponent - 3)) & 7)
  }

  /// The greatest value of a bucket.
  private static func top(of bucket: Int) -> Int {
    if bucket < 8 { return bucket }
    let exponent = bucket / 8 + 2
    return ((8 + bucket % 8 + 1) << (exponent - 3)) - 1
  }
}
