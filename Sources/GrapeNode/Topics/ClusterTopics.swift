internal import GrapeCore
public import GrapeKafka
public import GrapeLog

/// What topics are on a cluster: their names there, all their settings, and the commands of Kafka's own tools that make
/// them so.
public struct ClusterTopics: Sendable {
  /// Without anything that could be a secret.
  private let configuration: KafkaConfiguration

  public init(_ configuration: KafkaConfiguration) {
    var bare = KafkaConfiguration(bootstrapServers: configuration.bootstrapServers, transactionalID: "none")
    bare.namespace = configuration.namespace
    bare.replicationFactor = configuration.replicationFactor
    bare.topicSettings = configuration.topicSettings
    self.configuration = bare
  }

  public var brokers: String { configuration.bootstrapServers }
  public var namespace: String { configuration.namespace }
  /// Copies of each partition; nil: as the brokers have it.
  public var replication: Int? { configuration.replicationFactor < 0 ? nil : Int(configuration.replicationFactor) }
  /// What new topics get besides cleanup and retention.
  public var topicSettings: [String: String] { configuration.topicSettings }

  /// The topic's name on the cluster.
  public func name(of topic: String) -> String { configuration.clusterName(of: topic) }

  /// All settings of the topic, in order of name.
  public func settings(of topic: TopicConfiguration) -> [(name: String, value: String)] {
    configuration.settings(of: topic)
  }

  /// The command that creates the topic.
  public func createCommand(_ topic: PlannedTopic) -> String {
    var words = [
      "kafka-topics.sh", "--bootstrap-server", brokers, "--create", "--if-not-exists", "--topic", name(of: topic.name),
      "--partitions",
      String(topic.configuration.partitions),
    ]
    if let replication { words += ["--replication-factor", String(replication)] }
    for (name, value) in settings(of: topic.configuration) { words += ["--config", "\(name)=\(value)"] }
    return words.map(Self.quoted).joined(separator: " ")
  }

  /// The command that gives the topic the settings that it must have; nil if there is nothing that it could mend.
  public func alterCommand(_ topic: PlannedTopic, _ differences: [TopicDifference]) -> String? {
    let names = differences.compactMap { difference -> String? in
      switch difference {
      case .partitions, .copies: nil
      case .setting(let name, _, _): name
      case .cleanup: "cleanup.policy"
      case .age: "retention.ms"
      case .size: "retention.bytes"
      }
    }
    guard !names.isEmpty else { return nil }
    let changed = settings(of: topic.configuration).filter { names.contains($0.name) }
    let words = [
      "kafka-configs.sh", "--bootstrap-server", brokers, "--alter", "--entity-type", "topics", "--entity-name",
      name(of: topic.name), "--add-config", changed.map { "\($0.name)=\($0.value)" }.joined(separator: ","),
    ]
    return words.map(Self.quoted).joined(separator: " ")
  }

  /// A word as a shell must be given it.
  private static func quoted(_ word: String) -> String {
    let plain = word.utf8.allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"):
        true
      default: ".,:;_-=/@%+".utf8.contains(byte) && byte != UInt8(ascii: ";")
      }
    }
    return plain && !word.isEmpty
      ? word : "'" + word.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''") + "'"
  }
}
