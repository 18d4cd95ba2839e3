internal import GrapeCore
public import GrapeKafka
public import GrapePackages

extension KafkaSettingRules {
  /// The rules of the log on Kafka.
  public static let kafka = KafkaSettingRules { name, value in
    guard let refusal = KafkaConfiguration.refusal(of: name, value: value) else { return nil }
    guard refusal.hasPrefix("is no setting"),
      let near = Suggestion.nearest(to: name, among: KafkaConfiguration.settingNames)
    else { return refusal }
    return "\(refusal): did you mean \(near)?"
  } topicRefusal: { name in
    KafkaConfiguration.refusal(ofTopicSetting: name)
  }
}

extension NodeSettings {
  /// The log that these settings lead to, with the values of secrets. Errors say which setting is wrong and where it was
  /// given; nothing in them tells a secret.
  public func logChoice(environment: [String: String]) throws(NodeError) -> NodeLogChoice {
    guard case .kafka(let brokers) = log?.value ?? .embedded else { return .embedded }
    var configuration = kafkaConfiguration(brokers: brokers)
    var problems: [String] = []
    if let conflict = kafka.conflict { problems.append("\(conflict.key): \(conflict.message)") }
    for (name, source) in kafka.secrets.sorted(by: { $0.key < $1.key }) {
      do throws(NodeError) {
        let value = try source.value.read(environment: environment)
        if KafkaConfiguration.refusal(of: name, value: value) != nil {
          // Not the reason: it may quote the value.
          throw NodeError("librdkafka does not take what stands there (\(source.value))")
        }
        configuration.settings[name] = value
      } catch {
        problems.append("\(source.place): secret \(name): \(error.message)")
      }
    }
    guard problems.isEmpty else { throw NodeError(problems.joined(separator: "\n")) }
    return .kafka(configuration)
  }

  /// Everything but secrets.
  public func kafkaConfiguration(brokers: String) -> KafkaConfiguration {
    var configuration = KafkaConfiguration(bootstrapServers: brokers, transactionalID: name?.value ?? "node")
    configuration.namespace = kafka.namespace?.value ?? ""
    configuration.externalNamespace = kafka.externalNamespace?.value ?? ""
    configuration.isExternal = { TopicName.isExternal($0) }
    if let copies = kafka.replication { configuration.replicationFactor = Int32(copies.value) }
    if let timeout = kafka.requestTimeout { configuration.requestTimeout = Int(timeout.value.wholeMilliseconds) }
    if let timeout = kafka.commitTimeout { configuration.commitTimeout = Int(timeout.value.wholeMilliseconds) }
    if let interval = kafka.commitInterval { configuration.commitInterval = Int(interval.value.wholeMilliseconds) }
    if let size = kafka.commitSize { configuration.commitBytes = size.value }
    if let timeout = kafka.sessionTimeout {
      let milliseconds = timeout.value.wholeMilliseconds
      configuration.settings["session.timeout.ms"] = String(milliseconds)
      // Several within a session, so that one that is late ends nothing.
      configuration.settings["heartbeat.interval.ms"] = String(min(3_000, milliseconds / 3))
    }
    if let timeout = kafka.transactionTimeout {
      configuration.transactionTimeout = Int(timeout.value.wholeMilliseconds)
    }
    if let timeout = kafka.revocationTimeout {
      configuration.revocationTimeout = Int(timeout.value.wholeMilliseconds)
    }
    for (name, setting) in kafka.settings { configuration.settings[name] = setting.value }
    for (name, setting) in kafka.topicSettings { configuration.topicSettings[name] = setting.value }
    return configuration
  }

  /// What works and should be known nevertheless.
  public var warnings: [String] {
    var warnings: [String] = []
    for (name, setting) in kafka.settings.sorted(by: { $0.key < $1.key }) where KafkaConfiguration.isSecret(name) {
      warnings.append("\(setting.place): \(name) stands here openly: kafka.secrets takes it from elsewhere")
    }
    for (name, source) in kafka.secrets.sorted(by: { $0.key < $1.key }) {
      if let warning = source.value.warning { warnings.append("\(source.place): secret \(name): \(warning)") }
    }
    if case .kafka = log?.value ?? .embedded {
      for (name, place) in [("segment-size", segmentSize?.place), ("low-space", lowSpace?.place)] {
        if let place { warnings.append("\(place): \(name) is of the embedded log and means nothing on Kafka") }
      }
    } else if !kafka.isEmpty {
      warnings.append("the section kafka means nothing: the log is embedded")
    }
    return warnings
  }

  /// The environment without the variables that hold secrets: workers must not get at them, whatever their profiles ask
  /// for.
  public func withoutSecrets(_ environment: [String: String]) -> [String: String] {
    var result = environment
    for source in kafka.secrets.values {
      if case .environment(let name) = source.value { result[name] = nil }
    }
    return result
  }
}
