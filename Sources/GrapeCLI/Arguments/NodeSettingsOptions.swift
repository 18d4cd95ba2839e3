import ArgumentParser
import Glibc
import GrapeCore
import GrapeNode
import GrapePackages
import GrapeWire

/// Options that say how a node is set up, for the command that runs one and those that only want to know.
struct NodeSettingsOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "The node's configuration file. Default: GRAPE_SERVE_CONFIG, else none.", valueName: "file"))
  var config: String?

  @Option(
    help: ArgumentHelp(
      "The log to work on: \"embedded\", or a cluster's as kafka://host:port,host:port/namespace (the namespace may be left out).",
      valueName: "log"))
  var log: String?

  @Option(
    help: ArgumentHelp(
      "A setting for librdkafka; may be given several times. What stands on a command line is seen by every user of the machine (ps): not for secrets.",
      valueName: "name=value"))
  var kafkaSetting: [String] = []

  @Option(
    help: ArgumentHelp(
      "A setting for librdkafka whose value stands in a file (name=@/path) or in a variable of the environment (name=env:VARIABLE); may be given several times.",
      valueName: "name=@file"))
  var kafkaSecret: [String] = []

  /// What the file, the environment and the options say, each stronger than the one before.
  func settings(and options: NodeSettings = NodeSettings()) throws -> NodeSettings {
    var strongest = options
    try addLog(to: &strongest)
    try addKafkaSettings(to: &strongest)
    let weaker: NodeSettings
    do { weaker = try ConfigurationFile.settings(config, environment: processEnvironment()) } catch let error
      as ManifestError
    { throw CommandFailure(.badInput, error.description) }
    let merged = strongest.over(weaker)
    if case .kafka = merged.log?.value ?? .embedded { return merged }
    guard kafkaSetting.isEmpty, kafkaSecret.isEmpty else {
      throw CommandFailure(
        .usage, "--kafka-setting and --kafka-secret are for a log on Kafka: --log kafka://host:port")
    }
    guard merged.kafka.isEmpty || merged.log?.place == "--log" else {
      throw CommandFailure(
        .usage, "there are settings for a log on Kafka, but none is named: --log kafka://host:port, or --log embedded")
    }
    return merged
  }
}

extension NodeSettingsOptions {
  // These are taken apart here, and not by the parser of options, whose messages quote what was given.

  private func addLog(to settings: inout NodeSettings) throws {
    guard let log else { return }
    do throws(QuantityError) {
      let (address, namespace) = try LogAddress.parse(log)
      settings.log = Placed(address, "--log")
      settings.kafka.namespace = namespace.map { Placed($0, "--log") }
    } catch {
      throw CommandFailure(.usage, "--log: \(error.message)")
    }
  }

  private func addKafkaSettings(to settings: inout NodeSettings) throws {
    for text in kafkaSetting {
      guard let (name, value) = assignment(text) else {
        throw CommandFailure(.usage, "--kafka-setting: write name=value, as in security.protocol=ssl")
      }
      if let refusal = KafkaSettingRules.kafka.refusal(name, value) {
        throw CommandFailure(.usage, "--kafka-setting \(name): \(refusal)")
      }
      settings.kafka.settings[name] = Placed(value, "--kafka-setting")
    }
    for text in kafkaSecret {
      guard let (name, value) = assignment(text), let source = source(value) else {
        throw CommandFailure(
          .usage,
          "--kafka-secret: write name=@/path/of/file or name=env:VARIABLE, as in sasl.password=@/run/secrets/kafka")
      }
      if let refusal = KafkaSettingRules.kafka.refusal(name, nil) {
        throw CommandFailure(.usage, "--kafka-secret \(name): \(refusal)")
      }
      guard settings.kafka.settings[name] == nil else {
        throw CommandFailure(.usage, "--kafka-secret \(name): --kafka-setting gives it, too: keep one of them")
      }
      settings.kafka.secrets[name] = Placed(source, "--kafka-secret")
    }
  }

  private func assignment(_ text: String) -> (name: String, value: String)? {
    guard let equals = text.firstIndex(of: "="), equals > text.startIndex else { return nil }
    return (String(text[..<equals]), String(text[text.index(after: equals)...]))
  }

  private func source(_ text: String) -> SecretSource? {
    if text.hasPrefix("@"), text.count > 1 { return .file(absolutePath(String(text.dropFirst()))) }
    if text.hasPrefix("env:"), text.count > 4 { return .environment(String(text.dropFirst(4))) }
    return nil
  }
}

/// The file that says how a node is set up.
enum ConfigurationFile {
  /// What the file and the environment say, which is stronger.
  ///
  /// - Parameter option: the file; nil: the one that the environment names, if it does.
  static func settings(_ option: String?, environment: [String: String]) throws -> NodeSettings {
    var settings = NodeSettings()
    if let path = path(option, environment) { settings = try parse(path) }
    let variables: NodeSettings
    do throws(QuantityError) {
      variables = try NodeSettings(environment: environment, folder: absolutePath(""))
    } catch {
      throw CommandFailure(.usage, error.message)
    }
    return variables.over(settings)
  }

  /// The file that is to be read; nil: none.
  static func path(_ option: String?, _ environment: [String: String]) -> String? {
    if let option { return option }
    guard let variable = environment["GRAPE_SERVE_CONFIG"], !variable.isEmpty else { return nil }
    return variable
  }

  /// Reads a file. Errors: `CommandFailure` if it cannot be read, `ManifestError` with all that is wrong in it.
  static func parse(_ path: String) throws -> NodeSettings {
    let content = try FileContent.read(path: path, limit: 1 << 20)
    let folder = absolutePath(path).split(separator: "/").dropLast().joined(separator: "/")
    return try NodeSettings(yaml: Array(content.unsafeBytes), file: path, folder: "/" + folder, rules: .kafka)
  }
}

/// A path from the root, so that a change of folder does not change its meaning.
func absolutePath(_ path: String) -> String {
  if path.hasPrefix("/") { return path }
  guard let current = getcwd(nil, 0) else { return path }
  defer { free(current) }
  return path.isEmpty ? String(cString: current) : String(cString: current) + "/" + path
}

/// The host's name as a node's, with what a node's name cannot have replaced.
func hostName() -> String {
  var buffer = [CChar](repeating: 0, count: 256)
  guard gethostname(&buffer, 255) == 0 else { return "node" }
  let text = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  let name = text.lowercased().prefix { $0 != "." }.map { isNodeNameCharacter($0) ? $0 : "-" }
  let trimmed = String(name.drop { $0 == "-" }.prefix(63))
  return trimmed.isEmpty ? "node" : trimmed
}

private func isNodeNameCharacter(_ character: Character) -> Bool {
  ("a"..."z").contains(character) || ("0"..."9").contains(character) || character == "-"
}

func parseNodeName(_ text: String) throws -> String {
  guard let first = text.first, first != "-", text.count <= 63, text.allSatisfy({ isNodeNameCharacter($0) }) else {
    throw ValidationError("a node's name is 1 to 63 of a-z, 0-9 and -, not beginning with -")
  }
  return text
}
