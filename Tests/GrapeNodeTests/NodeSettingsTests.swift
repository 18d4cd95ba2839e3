import Glibc
import GrapeCore
import GrapeKafka
import GrapePackages
import Testing

@testable import GrapeNode

/// A value that nobody may ever see.
private let secret = "hunter2-correct-horse"

private func read(_ yaml: String) throws(ManifestError) -> NodeSettings {
  try NodeSettings(yaml: Array(yaml.utf8), file: "node.yaml", folder: "/etc/grape", rules: .kafka)
}

/// The problems of a file, one a line; empty if it is good.
private func problems(_ yaml: String) -> String {
  do throws(ManifestError) {
    _ = try read(yaml)
    return ""
  } catch {
    return error.description
  }
}

@Suite struct NodeSettingsTests {
  @Test func everyKeyIsRead() throws {
    let settings = try read(
      """
      data: data
      socket: ./run/node.sock
      name: n1
      log: kafka://k1:9092,[::1]:9093,k3/shop.
      log-level: debug
      log-format: json
      segment-size: 64MiB
      low-space: 1GiB
      kafka:
        namespace: shop.
        replication: 3
        request-timeout: 5s
        commit-timeout: 20s
        commit-interval: 5ms
        commit-size: 1MiB
        transaction-timeout: 8s
        session-timeout: 6s
        revocation-timeout: 9s
        settings: {security.protocol: sasl_ssl, socket.keepalive.enable: true, socket.timeout.ms: 5000}
        secrets:
          sasl.password: {file: secrets/kafka}
          ssl.key.password: {env: KEY_PASSWORD}
        topic-settings: {min.insync.replicas: 2}
      """)
    #expect(settings.data == Placed("/etc/grape/data", "node.yaml:1:7"))
    #expect(settings.socket?.value == "/etc/grape/run/node.sock")
    #expect(settings.name?.value == "n1")
    #expect(settings.log?.value == .kafka(brokers: "k1:9092,[::1]:9093,k3"))
    #expect(settings.logLevel?.value == "debug")
    #expect(settings.logFormat?.value == .json)
    #expect(settings.segmentSize?.value == 64 << 20)
    #expect(settings.lowSpace?.value == 1 << 30)
    let kafka = settings.kafka
    #expect(kafka.namespace?.value == "shop.")
    #expect(kafka.replication?.value == 3)
    #expect(kafka.requestTimeout?.value == .seconds(5))
    #expect(kafka.commitTimeout?.value == .seconds(20))
    #expect(kafka.commitInterval?.value == .milliseconds(5))
    #expect(kafka.commitSize?.value == 1 << 20)
    #expect(kafka.sessionTimeout?.value == .seconds(6))
    #expect(kafka.settings.mapValues(\.value)["socket.timeout.ms"] == "5000")
    #expect(kafka.secrets["sasl.password"] == Placed(.file("/etc/grape/secrets/kafka"), "node.yaml:21:5"))
    #expect(kafka.secrets["ssl.key.password"]?.value == .environment("KEY_PASSWORD"))
    #expect(kafka.topicSettings["min.insync.replicas"]?.value == "2")

    let configuration = settings.kafkaConfiguration(brokers: "k1:9092")
    #expect(configuration.namespace == "shop." && configuration.replicationFactor == 3)
    #expect(configuration.requestTimeout == 5_000 && configuration.commitTimeout == 20_000)
    #expect(configuration.commitInterval == 5 && configuration.commitBytes == 1 << 20)
    #expect(configuration.settings["session.timeout.ms"] == "6000")
    #expect(configuration.settings["heartbeat.interval.ms"] == "2000")
    #expect(configuration.transactionTimeout == 8_000 && configuration.revocationTimeout == 9_000)
    #expect(configuration.settings["security.protocol"] == "sasl_ssl")
    #expect(configuration.topicSettings["min.insync.replicas"] == "2")
    #expect(configuration.topicSettings["max.message.bytes"] != nil)
  }

  @Test func anEmptyFileSaysNothing() throws {
    #expect(try read("") == NodeSettings())
    #expect(try read("# nothing\n") == NodeSettings())
    #expect(try read("kafka:\n") == NodeSettings())
  }

  /// Whatever key: rubbish is refused, at its place, under its name, in the file and in the environment.
  @Test(arguments: SettingKey.all.map(\.name))
  func rubbishIsRefusedAtItsPlace(_ name: String) throws {
    let key = try #require(SettingKey.named(name))
    let isPath = key.path.count == 1 && ["data", "socket"].contains(name)
    for rubbish in isPath ? ["", "[a]", "{}"] : ["", "\"\"", "[a]", "{}", "-1 x", "\" \"", "ü"] {
      let lines = key.path.count == 1 ? "\(name): \(rubbish)" : "kafka:\n  \(key.path[1]): \(rubbish)"
      let found = problems(lines)
      #expect(found.hasPrefix("node.yaml:\(key.path.count):"), "\(lines): \(found)")
      #expect(found.contains(": \(name): "), "\(lines): \(found)")
      #expect(found.split(separator: "\n").count == 1)
    }
    if isPath { return }
    #expect(throws: QuantityError.self) {
      _ = try NodeSettings(environment: [key.variable: "ü"], folder: "/")
    }
  }

  @Test func everyKeyIsAVariable() throws {
    var environment = ["HOME": "/", "GRAPE_NODE": "x", "GRAPE_SERVE_CONFIG": "node.yaml"]
    for key in SettingKey.all {
      environment[key.variable] =
        switch key.name {
        case "data", "socket": "rel"
        case "name": "n2"
        case "log": "kafka://k:1/ns"
        case "log-level": "error"
        case "log-format": "text"
        case "kafka.namespace": "ns"
        case "kafka.external-namespace": "theirs"
        case "kafka.replication": "2"
        case _ where key.name.hasSuffix("size") || key.name.hasSuffix("space"): "2MiB"
        default: "3s"
        }
    }
    let settings = try NodeSettings(environment: environment, folder: "/home/x")
    #expect(settings.data == Placed("/home/x/rel", "GRAPE_SERVE_DATA"))
    #expect(settings.kafka.commitInterval == Placed(.seconds(3), "GRAPE_SERVE_KAFKA_COMMIT_INTERVAL"))
    #expect(settings.kafka.replication?.value == 2 && settings.lowSpace?.value == 2 << 20)
    #expect(settings.kafka.sessionTimeout != nil && settings.socket != nil && settings.logFormat != nil)
    #expect(try NodeSettings(environment: ["GRAPE_SERVE_DATA": ""], folder: "/") == NodeSettings())
  }

  @Test func unknownVariablesAreRefusedWithTheNearestName() {
    let error = #expect(throws: QuantityError.self) {
      _ = try NodeSettings(environment: ["GRAPE_SERVE_LOW_SPACES": "1", "GRAPE_SERVE_NAME": "N"], folder: "/")
    }
    #expect(
      error?.message.contains("unknown variable GRAPE_SERVE_LOW_SPACES: did you mean GRAPE_SERVE_LOW_SPACE?") == true)
    #expect(error?.message.contains("GRAPE_SERVE_NAME: ") == true)
  }

  private static let mistakes: [(yaml: String, expected: String)] = [
    ("sockett: x", "node.yaml:1:1: unknown field \"sockett\": did you mean \"socket\"?"),
    ("kafka: {namspace: x}", "node.yaml:1:9: kafka: unknown field \"namspace\": did you mean \"namespace\"?"),
    ("brokers: x", "node.yaml:1:1: unknown field \"brokers\": use log: kafka://host:9092"),
    ("[a]", "node.yaml:1:1: is a list: write a mapping"),
    ("name: N1", "node.yaml:1:7: name: node name \"N1\""),
    ("log: redis://x", "node.yaml:1:6: log: \"redis://x\" is no log: write embedded, or kafka://"),
    ("log: kafka://", "log: a broker's name is empty"),
    ("log: \"kafka://a,,b\"", "log: a broker's name is empty"),
    ("log: kafka://a:0", "log: \"a:0\" is no broker"),
    ("log: kafka://a:x", "log: \"a:x\" is no broker"),
    ("log: \"kafka://[::1\"", "is no broker"),
    ("log: kafka://a:1/b/c", "log: \"b/c\" is no namespace"),
    (
      "log: kafka://a:1/x\nkafka: {namespace: y}",
      "node.yaml:2:20: kafka.namespace: the namespace is \"y\" here and \"x\" at"
    ),
    ("log-level: loud", "node.yaml:1:12: log-level: \"loud\" is not known: there are trace, debug"),
    ("log-level: inf", "did you mean \"info\"?"),
    ("segment-size: 10", "segment-size: \"10\" is not possible: use 1MiB to 8GiB"),
    ("segment-size: 10 MB x", "unknown unit"),
    ("kafka: {replication: 0}", "kafka.replication: \"0\" is no number of copies"),
    ("kafka: {commit-timeout: 1s}", "kafka.commit-timeout: \"1s\" is not possible: use 2s to 15m"),
    ("kafka: {commit-interval: 3}", "kafka.commit-interval: \"3\" has no unit"),
    (
      "kafka: {commit-interval: 5s, commit-timeout: 4s}",
      "node.yaml:1:26: kafka.commit-interval: 5s is not shorter than kafka.commit-timeout, 4s"
    ),
    (
      "kafka:\n  session-timeout: 5s\n  settings: {session.timeout.ms: 6}",
      "node.yaml:2:20: kafka.session-timeout: is given twice, here and as session.timeout.ms at node.yaml:3:14"
    ),
    ("log: embedded\nkafka: {replication: 3}", "node.yaml:2:1: kafka: is for a log on Kafka, and the log is embedded"),
    (
      "kafka: {settings: {security.protocl: ssl}}",
      "node.yaml:1:20: kafka.settings.security.protocl: is no setting that the librdkafka used here knows: did you "
        + "mean security.protocol?"
    ),
    ("kafka: {settings: {acks: 1}}", "kafka.settings.acks: is Grape's own and cannot be given"),
    ("kafka: {settings: {security.protocol: x}}", "kafka.settings.security.protocol: Invalid value \"x\""),
    ("kafka: {settings: {client.rack: [x]}}", "kafka.settings.client.rack: is a list: write a text"),
    ("kafka: {settings: [x]}", "kafka.settings: is a list: write a mapping"),
    ("kafka: {topic-settings: {retention.ms: 5}}", "kafka.topic-settings.retention.ms: is Grape's own"),
    ("kafka: {secrets: {sasl.password: \(secret)}}", "write where the secret stands, not the secret"),
    ("kafka: {secrets: {sasl.password: [\(secret)]}}", "write where the secret stands, not the secret"),
    ("kafka: {secrets: {sasl.password: {file: a, env: B}}}", "write one of {file: PATH} and {env: NAME}"),
    ("kafka: {secrets: {sasl.password: {}}}", "write one of {file: PATH} and {env: NAME}"),
    ("kafka: {secrets: {sasl.password: {fil: a}}}", "unknown field \"fil\": did you mean \"file\"?"),
    ("kafka: {secrets: {sasl.password: {env: [\(secret)]}}}", "kafka.secrets.sasl.password.env: is a list"),
    (
      "kafka: {secrets: {sasl.pasword: {env: A}}}",
      "is no setting that the librdkafka used here knows: did you mean sasl.password?"
    ),
    ("kafka: {secrets: {acks: {env: A}}}", "kafka.secrets.acks: is Grape's own"),
    (
      "kafka:\n  settings: {sasl.username: x}\n  secrets: {sasl.username: {env: A}}",
      "node.yaml:3:13: kafka.secrets.sasl.username: is given twice, here and at node.yaml:2:14"
    ),
    ("data: a\ndata: b", "the key \"data\" is there twice"),
    ("data: &x a", "anchors"),
    ("data: [", "node.yaml:"),
  ]

  @Test(arguments: mistakes.indices) func aMistakeIsToldWithItsPlaceAndWhatWouldBeRight(_ index: Int) {
    let (yaml, expected) = Self.mistakes[index]
    let found = problems(yaml)
    #expect(found.contains(expected), "\(yaml)\n\(found)")
    #expect(!found.contains(secret))
  }

  @Test func allMistakesAreToldAtOnceInTheirOrder() {
    let found = problems("dat: x\nname: A\nkafka: {replication: x, settings: {acks: 1}}").split(separator: "\n")
    #expect(found.map { $0.dropFirst("node.yaml:".count).first } == ["1", "2", "3", "3"])
  }

  @Test func whatIsStrongerHolds() throws {
    let file = try read(
      "data: /a\nname: file\nkafka: {settings: {client.rack: a, sasl.username: u}, secrets: {sasl.password: {env: A}}}")
    let variables = try NodeSettings(environment: ["GRAPE_SERVE_NAME": "variable"], folder: "/")
    var options = NodeSettings()
    options.kafka.settings["client.rack"] = Placed("b", "--kafka-setting")
    options.kafka.settings["sasl.password"] = Placed("open", "--kafka-setting")
    options.kafka.secrets["sasl.username"] = Placed(.environment("U"), "--kafka-secret")
    let merged = options.over(variables.over(file))
    #expect(merged.data?.value == "/a")
    #expect(merged.name == Placed("variable", "GRAPE_SERVE_NAME"))
    #expect(merged.kafka.settings.mapValues(\.value) == ["client.rack": "b", "sasl.password": "open"])
    #expect(merged.kafka.secrets.mapValues(\.value) == ["sasl.username": .environment("U")])
  }

  @Test func namesOfSettingsAreDistinctAsVariables() {
    #expect(Set(SettingKey.all.map(\.variable)).count == SettingKey.all.count)
    #expect(SettingKey.named("kafka.commit-interval")?.variable == "GRAPE_SERVE_KAFKA_COMMIT_INTERVAL")
  }
}

@Suite struct SecretTests {
  /// A folder of its own, gone when the test is over.
  private final class Folder {
    let path: String
    init() {
      var template = Array("/tmp/grape-secrets-XXXXXX".utf8CString)
      path = mkdtemp(&template).map { String(cString: $0) } ?? "/nowhere"
    }
    deinit {
      try? Files.empty(path)
      rmdir(path)
    }
    func file(_ content: [UInt8], mode: mode_t = 0o600) throws -> String {
      let path = "\(path)/secret"
      try content.withUnsafeBytes { try Files.write($0, to: path) }
      chmod(path, mode)
      return path
    }
  }

  @Test func aSecretIsItsFileWithoutTheEndOfLine() throws {
    let folder = Folder()
    for (content, expected) in [
      ("abc\n", "abc"), ("abc\r\n", "abc"), ("abc", "abc"), (" a b \n\n", " a b \n"), ("ü\n", "ü"),
    ] {
      #expect(try SecretSource.file(try folder.file(Array(content.utf8))).read(environment: [:]) == expected)
    }
    #expect(try SecretSource.environment("A").read(environment: ["A": "x\n"]) == "x\n")
  }

  @Test func whatIsNoSecretIsRefusedWithoutShowingIt() throws {
    let folder = Folder()
    let contents: [([UInt8], String)] = [
      ([], "is empty"), ([10], "is empty"), (Array(secret.utf8) + [0], "no text"),
      (Array(secret.utf8) + [0xff], "no text"),
      ([UInt8](repeating: 65, count: 70_000), "at most 65536"),
    ]
    for (content, expected) in contents {
      let source = SecretSource.file(try folder.file(content))
      let error = #expect(throws: NodeError.self) { _ = try source.read(environment: [:]) }
      #expect(error?.message.contains(expected) == true, "\(error?.message ?? "")")
      #expect(error?.message.contains(secret) == false)
    }
    for (source, expected) in [
      (SecretSource.file("/nowhere/at/all"), "No such file"), (.file("/tmp"), "is no file"),
      (.environment("MISSING"), "is not set"), (.environment("EMPTY"), "is empty"),
    ] {
      let error = #expect(throws: NodeError.self) { _ = try source.read(environment: ["EMPTY": ""]) }
      #expect(error?.message.contains(expected) == true, "\(error?.message ?? "")")
    }
  }

  @Test func readabilityForEverybodyIsPointedOut() throws {
    let folder = Folder()
    #expect(SecretSource.file(try folder.file([65], mode: 0o600)).warning == nil)
    #expect(SecretSource.file(try folder.file([65], mode: 0o644)).warning?.contains("chmod o-r") == true)
  }

  /// Whatever is done with settings that hold secrets: their values are seen nowhere but where they are used.
  @Test func secretsAreNeverShown() throws {
    let folder = Folder()
    let path = try folder.file(Array((secret + "\n").utf8))
    let settings = try read(
      """
      log: kafka://k:9092
      kafka:
        settings: {ssl.key.password: \(secret), security.protocol: sasl_ssl, sasl.mechanisms: PLAIN, sasl.username: u}
        secrets:
          sasl.password: {file: \(path)}
          ssl.keystore.password: {env: STORE}
      """)
    let environment = ["STORE": secret, "PATH": "/bin"]
    guard case .kafka(let configuration) = try settings.logChoice(environment: environment) else {
      Issue.record("not on Kafka")
      return
    }
    for name in ["sasl.password", "ssl.keystore.password", "ssl.key.password"] {
      #expect(configuration.settings[name] == secret)
    }
    var seen = "\(configuration) \(ClusterTopics(configuration)) \(ClusterTopics(configuration).json.text)"
    dump(configuration, to: &seen)
    dump(NodeLogChoice.kafka(configuration), to: &seen)
    seen +=
      settings.warnings.joined()
      + settings.effective(data: "/d", nodeName: "n").map { "\($0) \($0.json.text)" }.joined()
    #expect(!seen.contains(secret))
    #expect(seen.contains("(secret) from file \(path)"))
    #expect(settings.withoutSecrets(environment) == ["PATH": "/bin"])
  }

  @Test func asecretThatTheClientDoesNotTakeIsNotQuoted() throws {
    let settings = try read("log: kafka://k:9092\nkafka: {secrets: {socket.timeout.ms: {env: T}}}")
    let error = #expect(throws: NodeError.self) { _ = try settings.logChoice(environment: ["T": secret]) }
    #expect(error?.message.contains("node.yaml:2:19: secret socket.timeout.ms: ") == true)
    #expect(error?.message.contains(secret) == false)
  }

  @Test func namesOfSecretSettingsAreKnown() {
    for name in [
      "sasl.password", "ssl.key.password", "ssl.keystore.password", "ssl.key.pem", "sasl.oauthbearer.client.secret",
      "sasl.oauthbearer.config",
    ] { #expect(KafkaConfiguration.isSecret(name), "\(name)") }
    for name in ["sasl.username", "ssl.key.location", "ssl.ca.location", "security.protocol", "client.id"] {
      #expect(!KafkaConfiguration.isSecret(name), "\(name)")
    }
    #expect(KafkaConfiguration.settingNames.contains("sasl.password"))
    #expect(KafkaConfiguration.settingNames.count > 100)
  }

  @Test func certificatesThatAreNotThereAreFoundWithoutACluster() throws {
    let settings = try read(
      "log: kafka://k:9092\nkafka: {settings: {security.protocol: ssl, ssl.ca.location: /nowhere/ca.pem}}")
    guard case .kafka(let configuration) = try settings.logChoice(environment: [:]) else {
      Issue.record("not on Kafka")
      return
    }
    #expect(throws: (any Error).self) { try configuration.validate() }
  }
}
