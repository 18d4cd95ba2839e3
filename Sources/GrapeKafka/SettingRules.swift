internal import CRDKafka
internal import Glibc
public import GrapeLog

extension KafkaConfiguration {
  /// Why a setting of librdkafka cannot be given, or not with this value; nil: it can. Nothing in it tells the value.
  ///
  /// - Parameter value: nil: only the name is checked.
  public static func refusal(of name: String, value: String?) -> String? {
    if reserved.contains(name) { return "is Grape's own and cannot be given: what Grape promises rests on it" }
    guard let conf = rd_kafka_conf_new() else { return "cannot be checked: librdkafka has no memory" }
    defer { rd_kafka_conf_destroy(conf) }
    var reason = [CChar](repeating: 0, count: 512)
    // No value stands for the default, which every setting has.
    guard rd_kafka_conf_set(conf, name, nil, &reason, reason.count) != RD_KAFKA_CONF_UNKNOWN else {
      return "is no setting that the librdkafka used here knows"
    }
    guard let value else { return nil }
    guard rd_kafka_conf_set(conf, name, value, &reason, reason.count) != RD_KAFKA_CONF_OK else { return nil }
    let text = String(decoding: reason.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    // librdkafka's reason may quote the value.
    return !value.isEmpty && text.contains(value) && isSecret(name) ? "librdkafka does not take the value given" : text
  }

  /// Why new topics cannot be given this setting; nil: they can, as far as can be said without the brokers.
  public static func refusal(ofTopicSetting name: String) -> String? {
    guard TopicSettings.settings(TopicConfiguration(partitions: 1)).contains(where: { $0.name == name }) else {
      return nil
    }
    return "is Grape's own and cannot be given: it follows from what each topic is for"
  }

  /// True for settings whose values nobody should see.
  public static func isSecret(_ name: String) -> Bool {
    let name = name.lowercased()
    return ["password", "secret", ".pem", "ssl.key", "oauthbearer.config", "token"].contains { name.contains($0) }
      && !name.hasSuffix(".location") && !name.hasSuffix(".url")
  }

  /// Names of all settings that librdkafka knows.
  public static var settingNames: [String] { Array(settingUsers.keys) }

  /// Which clients a setting is for: `C` consumers, `P` producers, `*` both.
  private static let settingUsers: [String: Character] = {
    // librdkafka only prints them: a table whose first two columns are these.
    var text: UnsafeMutablePointer<CChar>?
    var size = 0
    guard let file = open_memstream(&text, &size) else { return [:] }
    rd_kafka_conf_properties_show(file)
    fclose(file)
    guard let text else { return [:] }
    defer { free(text) }
    var users: [String: Character] = [:]
    for line in String(cString: text).split(separator: "\n") {
      let columns = line.split(separator: "|", maxSplits: 2).map { $0.filter { $0 != " " } }
      guard columns.count == 3, let user = columns[1].first, columns[1].count == 1,
        columns[0].contains("."), columns[0].allSatisfy({ $0.isLetter || $0 == "." || $0 == "_" })
      else { continue }
      users[columns[0]] = user
    }
    return users
  }()

  /// Whether a producer, or else a consumer, has a use for a setting. Others would warn of it.
  static func isForProducers(_ name: String) -> Bool { settingUsers[name] != "C" }
  static func isForConsumers(_ name: String) -> Bool { settingUsers[name] != "P" }

  /// Checks the configuration as far as that goes without asking the cluster: librdkafka makes a client of it, and reads
  /// certificates and keys for that. Errors: `invalidArgument`, saying what would be right, without the values of
  /// settings.
  public func validate() throws(LogError) {
    try check()
    var quiet = self
    quiet.log = { _ in }
    _ = try RDKafkaClient(.consumer, quiet, own: [])
    _ = try RDKafkaClient(.producer, quiet, own: [])
  }

  /// What the topic is called on the cluster.
  public func clusterName(of topic: String) -> String { namespace + topic }

  /// All settings that the topic is created with, in order of name.
  public func settings(of topic: TopicConfiguration) -> [(name: String, value: String)] {
    (TopicSettings.settings(topic) + topicSettings.map { ($0.key, $0.value) }).sorted { $0.name < $1.name }
  }
}
