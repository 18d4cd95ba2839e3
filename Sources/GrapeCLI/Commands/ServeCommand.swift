import ArgumentParser
import Glibc
import GrapeCore
import GrapeNode
import GrapePackages
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
  /// What workers may get to see of it.
  var environment: [String: String]
}

/// `grape serve`
struct ServeCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "serve",
    abstract: "Run a node.",
    discussion: """
      The node keeps everything in its data directory, and listens at a Unix socket that only its user may open. Ctrl-C
      and SIGTERM stop it in order: workers finish what they hold. Its log goes to standard error.

      What the options say can also stand in a file (--config) or in variables of the environment, GRAPE_SERVE_DATA for
      --data and so on. Options are stronger than variables, variables than the file. `grape config check` checks a file
      and shows what holds.

      EXAMPLES
        grape serve
        grape serve --data ./node --log-level debug
        grape serve --data /srv/grape --name n1 --json
        grape serve --config /etc/grape/node.yaml
        grape serve --log kafka://kafka-1:9092,kafka-2:9092/shop. --kafka-setting security.protocol=sasl_ssl \\
          --kafka-setting sasl.mechanisms=PLAIN --kafka-setting sasl.username=grape \\
          --kafka-secret sasl.password=@/run/secrets/kafka
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

  @OptionGroup var settings: NodeSettingsOptions

  @Option(
    help: ArgumentHelp("trace, debug, info, notice, warning, error or critical. Default: info.", valueName: "level"),
    transform: parseLogLevel)
  var logLevel: String?

  @Option(
    help: ArgumentHelp("Bytes of one segment of the log. Default: 256MiB.", valueName: "bytes"),
    transform: parseSegmentSize)
  var segmentSize: Int?

  @Option(
    help: ArgumentHelp(
      "With fewer bytes free on the disk new events are refused. Default: two segments.", valueName: "bytes"),
    transform: parseCount)
  var lowSpace: Int?

  @Flag(help: "Write the node's log as JSON lines.")
  var json = false

  func run() async throws {
    try await reportingAsync(json: false) {
      let environment = processEnvironment()
      let settings = try settings.settings(and: options)
      let data = settings.data?.value ?? absolutePath(NodeLocation.defaultDataDirectory)
      let socketPath = settings.socket?.value ?? data + "/node.sock"
      guard socketPath.utf8.count <= 107 else {
        throw CommandFailure(
          .usage, "a socket's path has at most 107 bytes, \(socketPath) has \(socketPath.utf8.count): use --socket")
      }
      let log: NodeLogChoice
      do throws(NodeError) { log = try settings.logChoice(environment: environment) } catch {
        throw CommandFailure(.badInput, error.message)
      }
      let asJSON = settings.logFormat?.value == .json
      LoggingSystem.bootstrap { _ in LineLogHandler(json: asJSON) }
      var logger = Logger(label: "grape")
      logger.logLevel = settings.logLevel.flatMap { Logger.Level(rawValue: $0.value) } ?? .info
      for warning in settings.warnings { logger.warning("configuration", metadata: ["warning": "\(warning)"]) }
      try await runNode(
        ServeSettings(
          dataDirectory: data, socketPath: socketPath, name: settings.name?.value ?? hostName(),
          segmentSize: settings.segmentSize?.value ?? NodeSettings.defaultSegmentSize,
          lowSpace: settings.lowSpace?.value, log: log, logger: logger,
          environment: settings.withoutSecrets(environment)))
    }
  }

  /// What this command's own options say.
  private var options: NodeSettings {
    var options = NodeSettings()
    options.data = data.map { Placed(absolutePath($0), "--data") }
    options.name = name.map { Placed($0, "--name") }
    options.socket = socket.map { Placed(absolutePath($0), "--socket") }
    options.logLevel = logLevel.map { Placed($0, "--log-level") }
    options.logFormat = json ? Placed(.json, "--json") : nil
    options.segmentSize = segmentSize.map { Placed($0, "--segment-size") }
    options.lowSpace = lowSpace.map { Placed($0, "--low-space") }
    return options
  }
}

private func parseLogLevel(_ text: String) throws -> String {
  guard Logger.Level(rawValue: text) != nil else {
    throw ValidationError("a level is trace, debug, info, notice, warning, error or critical")
  }
  return text
}

private func parseSegmentSize(_ text: String) throws -> Int {
  let size = try parseCount(text)
  guard (1 << 20...8 << 30).contains(size) else { throw ValidationError("a segment has 1MiB to 8GiB") }
  return size
}
