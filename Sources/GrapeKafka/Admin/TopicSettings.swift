internal import GrapeLog

/// A topic's configuration in Kafka's terms.
enum TopicSettings {
  /// Kafka drops by age and size whether consumed or not, so `dropsUnconsumed` changes nothing there; it is kept so
  /// that the configuration reads back as it was given. The settings of a topic are the one place that comes and goes
  /// with it, so it rides on one that tolerates it: a millisecond in the delay before files are deleted.
  private static let carrier = "file.delete.delay.ms"
  private static let drops = "60001"
  private static let spares = "60000"

  static func settings(_ configuration: TopicConfiguration) -> [(name: String, value: String)] {
    [
      ("cleanup.policy", configuration.cleanup == .compact ? "compact" : "delete"),
      ("retention.ms", String(configuration.retentionMilliseconds ?? -1)),
      ("retention.bytes", String(configuration.retentionBytes ?? -1)),
      (carrier, configuration.dropsUnconsumed ? drops : spares),
    ]
  }

  static func configuration(_ settings: [String: String], partitions: Int32) -> TopicConfiguration {
    let policy = settings["cleanup.policy"] ?? "delete"
    return TopicConfiguration(
      partitions: partitions,
      cleanup: policy.contains("compact") ? .compact : .delete,
      retentionMilliseconds: limit(settings["retention.ms"]), retentionBytes: limit(settings["retention.bytes"]),
      dropsUnconsumed: settings[carrier] == drops)
  }

  private static func limit(_ value: String?) -> Int64? { value.flatMap { Int64($0) }.flatMap { $0 < 0 ? nil : $0 } }
}
