internal import GrapeCore

/// What settings of a cluster's client and of topics are possible. The module that knows says so.
public struct KafkaSettingRules: Sendable {
  /// Why the client may not be given this setting with this value, or at all (value nil: the value is not known here);
  /// nil: it may. Must not tell the value.
  public var refusal: @Sendable (_ setting: String, _ value: String?) -> String?
  /// Why new topics may not be given this setting; nil: they may.
  public var topicRefusal: @Sendable (_ setting: String) -> String?

  public init(
    refusal: @escaping @Sendable (String, String?) -> String?,
    topicRefusal: @escaping @Sendable (String) -> String?
  ) {
    self.refusal = refusal
    self.topicRefusal = topicRefusal
  }
}

extension NodeSettings {
  /// Reads a node's configuration file; all problems are reported at once, with their places.
  ///
  /// - Parameters:
  ///   - file: what messages call the file.
  ///   - folder: where relative paths begin: the file's folder, absolute.
  public init(
    yaml: [UInt8], file: String, folder: String, rules: KafkaSettingRules
  ) throws(ManifestError) {
    let document = YAMLDocument(parsing: yaml, file: file)
    var reader = FieldReader(file: file, problems: document.problems)
    var settings = NodeSettings()
    if let root = document.root {
      settings = reader.nodeSettings(root, folder: folder, rules: rules)
    }
    guard reader.problems.isEmpty else { throw ManifestError(reader.problems.sorted { $0.mark < $1.mark }) }
    self = settings
  }
}

extension FieldReader {
  private static let topFields = SettingKey.all.filter { $0.path.count == 1 }.map(\.name) + ["kafka"]
  private static let kafkaFields =
    SettingKey.all.filter { $0.path.count == 2 }.map { $0.path[1] } + ["settings", "secrets", "topic-settings"]

  private static let topSynonyms = [
    "directory": "data", "data-directory": "data", "node": "name", "loglevel": "log-level", "json": "log-format: json",
    "namespace": "kafka.namespace", "replication": "kafka.replication", "settings": "kafka.settings",
    "secrets": "kafka.secrets", "brokers": "log: kafka://host:9092",
  ]
  private static let kafkaSynonyms = [
    "brokers": "log: kafka://host:9092", "bootstrap-servers": "log: kafka://host:9092",
    "bootstrap.servers": "log: kafka://host:9092", "replication-factor": "replication", "commit-bytes": "commit-size",
    "topics": "topic-settings", "session.timeout.ms": "session-timeout",
  ]

  fileprivate mutating func nodeSettings(_ root: YAMLNode, folder: String, rules: KafkaSettingRules) -> NodeSettings {
    var settings = NodeSettings()
    let top = fields(root, FieldPath(), allowed: Self.topFields, meant: Self.topSynonyms)
    let section = FieldPath().key("kafka")
    let kafka = top["kafka"].map { fields($0.value, section, allowed: Self.kafkaFields, meant: Self.kafkaSynonyms) }
    for key in SettingKey.all {
      let entry = key.path.count == 1 ? top[key.path[0]] : kafka?[key.path[1]]
      guard let entry, let text = text(entry, FieldPath(key), example: key.example) else { continue }
      do throws(QuantityError) {
        try key.set(text, at: place(entry.mark), in: &settings)
      } catch {
        report(entry.mark, FieldPath(key), error.message)
      }
    }
    settings.data?.value.resolve(in: folder)
    settings.socket?.value.resolve(in: folder)
    if let kafka {
      settings.kafka.settings = openSettings(kafka["settings"], section.key("settings"), rules.refusal)
      settings.kafka.topicSettings = openSettings(kafka["topic-settings"], section.key("topic-settings")) { name, _ in
        rules.topicRefusal(name)
      }
      secrets(kafka["secrets"], section.key("secrets"), folder, rules, &settings)
    }
    checkTogether(top, kafka, settings)
    return settings
  }

  /// A map of names to values that may be seen.
  private mutating func openSettings(
    _ section: YAMLNode.Entry?, _ path: FieldPath, _ refusal: (String, String?) -> String?
  ) -> [String: Placed<String>] {
    var result: [String: Placed<String>] = [:]
    guard let section else { return result }
    for entry in entries(section.value, path, example: "name: value") {
      guard let text = text(entry, path.key(entry.key), example: "\(entry.key): value") else { continue }
      if let refusal = refusal(entry.key, text) {
        report(entry.keyMark, path.key(entry.key), refusal)
      } else {
        result[entry.key] = Placed(text, place(entry.keyMark))
      }
    }
    return result
  }

  private mutating func secrets(
    _ section: YAMLNode.Entry?, _ path: FieldPath, _ folder: String, _ rules: KafkaSettingRules,
    _ settings: inout NodeSettings
  ) {
    guard let section else { return }
    for entry in entries(section.value, path, example: "sasl.password: {file: /run/secrets/kafka}") {
      let place = path.key(entry.key)
      // Whatever stands here instead may be the secret itself, so it is not shown.
      guard case .mapping = entry.value.content else {
        report(entry.keyMark, place, "write where the secret stands, not the secret: {file: PATH} or {env: NAME}")
        continue
      }
      let before = problems.count
      let source = fields(entry.value, place, allowed: ["file", "env"], meant: ["environment": "env", "path": "file"])
      guard source.count == 1 else {
        if problems.count == before {
          report(entry.keyMark, place, "write one of {file: PATH} and {env: NAME}")
        }
        continue
      }
      var found: SecretSource?
      if var file = text(source["file"], place.key("file"), example: "/run/secrets/kafka") {
        file.resolve(in: folder)
        found = .file(file)
      } else if let name = text(source["env"], place.key("env"), example: "KAFKA_PASSWORD") {
        found = .environment(name)
      }
      guard let found else { continue }
      if let refusal = rules.refusal(entry.key, nil) {
        report(entry.keyMark, place, refusal)
      } else if let open = settings.kafka.settings[entry.key] {
        report(entry.keyMark, place, "is given twice, here and at \(open.place): keep one of them")
      } else {
        settings.kafka.secrets[entry.key] = Placed(found, self.place(entry.keyMark))
      }
    }
  }

  /// What is right by itself and wrong together.
  private mutating func checkTogether(
    _ top: [String: YAMLNode.Entry], _ kafka: [String: YAMLNode.Entry]?, _ settings: NodeSettings
  ) {
    if let section = top["kafka"], settings.log?.value == .embedded, !settings.kafka.isEmpty {
      report(
        section.keyMark, FieldPath().key("kafka"),
        "is for a log on Kafka, and the log is embedded: write log: kafka://host:9092, or remove this section")
    }
    if let problem = settings.kafka.conflict {
      let key = problem.key.split(separator: ".").last.map(String.init) ?? ""
      let mark = kafka?[key]?.mark ?? SourceMark(line: 1, column: 1)
      report(mark, FieldPath().key("kafka").key(key), problem.message)
    }
  }

  private func place(_ mark: SourceMark) -> String { "\(file):\(mark.line):\(mark.column)" }
}

extension NodeSettings.Kafka {
  /// What is right by itself and wrong together: the setting's name, and a message.
  public var conflict: (key: String, message: String)? {
    // Without a timeout of its own the default holds, which no interval reaches.
    if let interval = commitInterval, let timeout = commitTimeout, interval.value >= timeout.value {
      return (
        "kafka.commit-interval",
        "\(DurationText.format(interval.value)) is not shorter than kafka.commit-timeout, "
          + "\(DurationText.format(timeout.value)): a commit must have time after it has waited for others"
      )
    }
    if sessionTimeout != nil, let other = settings["session.timeout.ms"] {
      return (
        "kafka.session-timeout", "is given twice, here and as session.timeout.ms at \(other.place): keep one of them"
      )
    }
    return nil
  }
}

extension FieldPath {
  fileprivate init(_ key: SettingKey) { self.init(key.path.map { .key($0) }) }
}

extension String {
  /// Makes a relative path begin at `folder`.
  mutating func resolve(in folder: String) {
    if hasPrefix("/") { return }
    let rest = hasPrefix("./") ? String(dropFirst(2)) : self
    self = folder.hasSuffix("/") ? folder + rest : "\(folder)/\(rest)"
  }
}
