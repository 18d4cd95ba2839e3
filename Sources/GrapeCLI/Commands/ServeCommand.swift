import ArgumentParser
import Glibc
import GrapeKafka
import GrapeNode
import Logging

/// What `grape serve` was asked to run.
struct ServeSettings: Sendable {
  var dataDirectory: String
  var socketPath: String
  var name: String
  /// Bytes of one segment of the log.
  var segmentSize: Int
  /// Bytes free on the disk below which new events are refused; nil: two segments.
  var lowSpace: Int?
  /// The log to work on.
  var log: NodeLogChoice
  var logger: Logger
}

/// `grape serve`
struct ServeCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "serve",
    abstract: "Run a node.",
    discussion: """
      The node keeps everything in its data directory, and listens at a Unix socket that only its user may open. Ctrl-C
      and SIGTERM stop it in order: workers finish what they hold. Its log goes to standard error.

      EXAMPLES
        grape serve
        grape serve --data ./node --log-level debug
        grape serve --data /srv/grape --name n1 --json
      """)

  @Option(
    help: ArgumentHelp(
      "The data directory, created if need be. Default: $XDG_DATA_HOME/grape or ~/.local/share/grape.",
      valueName: "folder"))
  var data: String?

  @Option(help: ArgumentHelp("The socket to listen at. Default: node.sock in the data directory.", valueName: "path"))
  var socket: String?

  @Option(help: ArgumentHelp("The node's name. Default: the host's.", valueName: "name"), transform: parseNodeName)
  var name: String?

  @Option(
    help: ArgumentHelp(
      "The log to work on: \"embedded\", or a cluster's as kafka://host:port,host:port/namespace (the namespace may be left out).",
      valueName: "log"), transform: parseLog)
  var log: NodeLogChoice = .embedded

  @Option(
    help: ArgumentHelp("A setting for librdkafka; may be given several times.", valueName: "name=value"),
    transform: parseSetting)
  var kafkaSetting: [KafkaSetting] = []

  @Option(
    help: ArgumentHelp("trace, debug, info, notice, warning, error or critical.", valueName: "level"),
    transform: parseLogLevel)
  var logLevel: Logger.Level = .info

  @Option(help: ArgumentHelp("Bytes of one segment of the log.", valueName: "bytes"), transform: parseSegmentSize)
  var segmentSize: Int = 256 << 20

  @Option(
    help: ArgumentHelp(
      "With fewer bytes free on the disk new events are refused. Default: two segments.", valueName: "bytes"),
    transform: parseCount)
  var lowSpace: Int?

  @Flag(help: "Write the node's log as JSON lines.")
  var json = false

  func run() async throws {
    try await reportingAsync(json: false) {
      let data = absolute(data ?? NodeLocation.defaultDataDirectory)
      let socketPath = absolute(socket ?? data + "/node.sock")
      guard socketPath.utf8.count <= 107 else {
        throw CommandFailure(
          .usage, "a socket's path has at most 107 bytes, \(socketPath) has \(socketPath.utf8.count): use --socket")
      }
      let asJSON = json
      LoggingSystem.bootstrap { _ in LineLogHandler(json: asJSON) }
      var logger = Logger(label: "grape")
      logger.logLevel = logLevel
      try await runNode(
        ServeSettings(
          dataDirectory: data, socketPath: socketPath, name: name ?? hostName(), segmentSize: segmentSize,
          lowSpace: lowSpace, log: try configuredLog(), logger: logger))
    }
  }
}

/// A setting of librdkafka.
struct KafkaSetting: Sendable {
  var name: String
  var value: String
}

extension ServeCommand {
  private func configuredLog() throws -> NodeLogChoice {
    guard case .kafka(var kafka) = log else {
      guard kafkaSetting.isEmpty else {
        throw CommandFailure(.usage, "--kafka-setting is for a log on Kafka: --log kafka://host:port")
      }
      return log
    }
    for setting in kafkaSetting { kafka.settings[setting.name] = setting.value }
    return .kafka(kafka)
  }
}

private func parseLog(_ text: String) throws -> NodeLogChoice {
  if text == "embedded" { return .embedded }
  let prefix = "kafka://"
  guard text.hasPrefix(prefix) else {
    throw ValidationError("a log is \"embedded\" or kafka://host:port,host:port/namespace")
  }
  let parts = text.dropFirst(prefix.count).split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
  guard let brokers = parts.first, !brokers.isEmpty else {
    throw ValidationError("kafka:// is followed by the cluster's brokers, as in kafka://host:9092,host:9092")
  }
  var configuration = KafkaConfiguration(bootstrapServers: String(brokers), transactionalID: "node")
  configuration.namespace = parts.count > 1 ? String(parts[1]) : ""
  return .kafka(configuration)
}

private func parseSetting(_ text: String) throws -> KafkaSetting {
  guard let equals = text.firstIndex(of: "="), equals > text.startIndex else {
    throw ValidationError("a setting is given as name=value, as in security.protocol=ssl")
  }
  return KafkaSetting(name: String(text[..<equals]), value: String(text[text.index(after: equals)...]))
}

/// A path from the root, so that a change of folder does not change its meaning.
private func absolute(_ path: String) -> String {
  if path.hasPrefix("/") { return path }
  guard let current = getcwd(nil, 0) else { return path }
  defer { free(current) }
  return String(cString: current) + "/" + path
}

/// The host's name as a node's, with what a node's name cannot have replaced.
private func hostName() -> String {
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

private func parseNodeName(_ text: String) throws -> String {
  guard let first = text.first, first != "-", text.count <= 63, text.allSatisfy({ isNodeNameCharacter($0) }) else {
    throw ValidationError("a node's name is 1 to 63 of a-z, 0-9 and -, not beginning with -")
  }
  return text
}

private func parseLogLevel(_ text: String) throws -> Logger.Level {
  guard let level = Logger.Level(rawValue: text) else {
    throw ValidationError("a level is trace, debug, info, notice, warning, error or critical")
  }
  return level
}

private func parseSegmentSize(_ text: String) throws -> Int {
  let size = try parseCount(text)
  guard (1 << 20...8 << 30).contains(size) else { throw ValidationError("a segment has 1MiB to 8GiB") }
  return size
}
