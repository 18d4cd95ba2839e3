internal import GrapeCore
public import GrapeKafka
public import GrapeLog

/// How a topic that is there differs from what it must be.
public enum TopicDifference: Hashable, Sendable {
  case partitions(has: Int32, wanted: Int32)
  case cleanup(has: CleanupPolicy, wanted: CleanupPolicy)
  /// Milliseconds; nil: for ever.
  case age(has: Int64?, wanted: Int64?)
  /// Bytes; nil: without end.
  case size(has: Int64?, wanted: Int64?)
  /// Fewer copies of a partition on a cluster than asked for.
  case copies(has: Int, wanted: Int)
  /// Another setting on a cluster than new topics get.
  case setting(name: String, has: String?, wanted: String)

  /// True if what Grape promises holds nevertheless: more is kept than need be, or an operator's wish is not met.
  public var isHarmless: Bool {
    switch self {
    case .partitions, .cleanup: false
    case .copies, .setting: true
    case .age(let has, let wanted), .size(let has, let wanted):
      has.map { has in wanted.map { has >= $0 } ?? false } ?? true
    }
  }

  /// What is so, and what would be right.
  public var text: String {
    switch self {
    case .partitions(let has, let wanted): "has \(has) partition\(has == 1 ? "" : "s") instead of \(wanted)"
    case .cleanup(let has, let wanted): "has cleanup policy \(has) instead of \(wanted)"
    case .age(let has, let wanted): "keeps records \(Self.age(has)) instead of \(Self.age(wanted))"
    case .size(let has, let wanted): "keeps \(Self.size(has)) in a partition instead of \(Self.size(wanted))"
    case .copies(let has, let wanted): "has \(has) cop\(has == 1 ? "y" : "ies") of a partition instead of \(wanted)"
    case .setting(let name, let has, let wanted): "has \(name)=\(has ?? "") instead of \(wanted)"
    }
  }

  private static func age(_ milliseconds: Int64?) -> String {
    milliseconds.map { "for " + DurationText.format(.milliseconds($0)) } ?? "for ever"
  }

  private static func size(_ bytes: Int64?) -> String {
    bytes.map { "at most " + ByteCountText.format(Int($0)) } ?? "everything"
  }
}

extension PlannedTopic {
  /// How a topic of this name differs from what it must be; empty: not at all.
  public func differences(from existing: TopicConfiguration) -> [TopicDifference] {
    var differences: [TopicDifference] = []
    if existing.partitions != configuration.partitions {
      differences.append(.partitions(has: existing.partitions, wanted: configuration.partitions))
    }
    if existing.cleanup != configuration.cleanup {
      differences.append(.cleanup(has: existing.cleanup, wanted: configuration.cleanup))
    }
    // A compacted topic drops nothing by age or size, whatever is set.
    guard !isRetentionFree, existing.cleanup == .delete || configuration.cleanup == .delete else { return differences }
    if existing.retentionMilliseconds != configuration.retentionMilliseconds {
      differences.append(.age(has: existing.retentionMilliseconds, wanted: configuration.retentionMilliseconds))
    }
    if existing.retentionBytes != configuration.retentionBytes {
      differences.append(.size(has: existing.retentionBytes, wanted: configuration.retentionBytes))
    }
    return differences
  }
}

extension ClusterTopics {
  /// How a topic of the cluster differs from what new topics get there, besides cleanup and retention.
  public func differences(of details: KafkaTopicDetails) -> [TopicDifference] {
    var differences: [TopicDifference] = []
    if let replication, details.replication < replication {
      differences.append(.copies(has: details.replication, wanted: replication))
    }
    // Without any, they may not be seen.
    if details.settings.isEmpty { return differences }
    for (name, wanted) in topicSettings.sorted(by: { $0.key < $1.key }) where details.settings[name] != wanted {
      differences.append(.setting(name: name, has: details.settings[name], wanted: wanted))
    }
    return differences
  }
}

extension CleanupPolicy {
  /// As Kafka calls it.
  var name: String { self == .compact ? "compact" : "delete" }
}
