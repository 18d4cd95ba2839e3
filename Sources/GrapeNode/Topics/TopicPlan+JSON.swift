public import GrapeCore
public import GrapeKafka
public import GrapeLog

extension TopicConfiguration {
  /// As in the answers to `log.topics` and `log.plan`.
  public var json: JSONValue {
    [
      "partitions": JSONValue(partitions), "cleanup": .string(cleanup.name),
      "retentionMs": retentionMilliseconds.map { .int($0) } ?? .null,
      "retentionBytes": retentionBytes.map { .int($0) } ?? .null,
    ]
  }

  /// Reads what `json` gives; nil if it is something else.
  public init?(json: JSONValue) {
    guard let partitions = json["partitions"]?.int, let cleanup = json["cleanup"]?.string,
      let partitions = Int32(exactly: partitions)
    else { return nil }
    self.init(
      partitions: partitions, cleanup: cleanup == "compact" ? .compact : .delete,
      retentionMilliseconds: json["retentionMs"]?.int, retentionBytes: json["retentionBytes"]?.int)
  }
}

extension PlannedTopic {
  /// As in the answer to `log.plan`.
  public var json: JSONValue {
    [
      "name": .string(name), "app": JSONValue(app), "purpose": .string(purpose), "configuration": configuration.json,
      "retentionFree": .bool(isRetentionFree),
    ]
  }

  /// Reads what `json` gives; nil if it is something else.
  public init?(json: JSONValue) {
    guard let name = json["name"]?.string, let purpose = json["purpose"]?.string,
      let configuration = json["configuration"].flatMap({ TopicConfiguration(json: $0) })
    else { return nil }
    self.init(
      name, configuration, purpose: purpose, app: json["app"]?.string,
      isRetentionFree: json["retentionFree"]?.bool ?? false)
  }
}

extension KafkaTopicDetails {
  /// As in the answer to `log.topics`, with the settings of these names.
  func json(_ names: Set<String>) -> JSONValue {
    let shown = settings.filter { names.contains($0.key) }.sorted { $0.key < $1.key }
    return [
      "replication": JSONValue(replication),
      "settings": .object(shown.map { JSONValue.Member($0.key, .string($0.value)) }),
    ]
  }

  /// Reads what `json` gives; nil if it is something else.
  public init?(json: JSONValue) {
    guard let replication = json["replication"]?.int, case .object(let members)? = json["settings"] else { return nil }
    var settings: [String: String] = [:]
    for member in members { settings[member.name] = member.value.string }
    self.init(replication: Int(replication), settings: settings)
  }
}

extension ClusterTopics {
  /// As in the answer to `log.plan`.
  public var json: JSONValue {
    let settings = topicSettings.sorted { $0.key < $1.key }.map { JSONValue.Member($0.key, .string($0.value)) }
    return [
      "brokers": .string(brokers), "namespace": .string(namespace),
      "replication": replication.map { JSONValue($0) } ?? .null, "topicSettings": .object(settings),
    ]
  }

  /// Reads what `json` gives; nil if it is something else.
  public init?(json: JSONValue) {
    guard let brokers = json["brokers"]?.string, let namespace = json["namespace"]?.string,
      case .object(let settings)? = json["topicSettings"]
    else { return nil }
    var configuration = KafkaConfiguration(bootstrapServers: brokers, transactionalID: "none")
    configuration.namespace = namespace
    configuration.replicationFactor = json["replication"]?.int.map { Int32(clamping: $0) } ?? -1
    configuration.topicSettings = [:]
    for setting in settings { configuration.topicSettings[setting.name] = setting.value.string }
    self.init(configuration)
  }
}
