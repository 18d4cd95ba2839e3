import ArgumentParser
import Glibc
import Grape
import GrapeCore

/// Where the node is.
enum NodeLocation {
  /// The node's data directory if nothing else is said: `$XDG_DATA_HOME/grape`, or `~/.local/share/grape`.
  static var defaultDataDirectory: String {
    if let base = environment("XDG_DATA_HOME"), base.hasPrefix("/") { return base + "/grape" }
    return (environment("HOME") ?? "/tmp") + "/.local/share/grape"
  }

  /// The socket that `--node`, `GRAPE_NODE` or the default leads to: a socket's path as it is, `node.sock` in a folder.
  static func socketPath(_ option: String?) -> String {
    let path = option ?? environment("GRAPE_NODE") ?? defaultDataDirectory
    var status = stat()
    if stat(path, &status) == 0 {
      return status.st_mode & S_IFMT == S_IFDIR ? path + "/node.sock" : path
    }
    // A node that is only starting has no folder yet.
    return path.hasSuffix(".sock") ? path : path + "/node.sock"
  }

  /// A variable of the environment; nil if it is unset or empty.
  static func environment(_ name: String) -> String? {
    guard let value = getenv(name), value.pointee != 0 else { return nil }
    return String(cString: value)
  }
}

/// Options of every command that speaks with a node.
struct NodeOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "The node: its socket, or its data directory. Without it: GRAPE_NODE, else the default data directory.",
      valueName: "path"))
  var node: String?

  @Flag(help: "Print JSON.")
  var json = false

  /// Connects.
  func connect(source: SourceEpoch? = nil) throws(ClientError) -> NodeConnection {
    try NodeConnection(path: NodeLocation.socketPath(node), agent: "grape-cli/0.1", source: source)
  }
}

/// A command that connects, does its work, and reports failures in the common way.
protocol NodeCommand: ParsableCommand {
  var options: NodeOptions { get }
  func execute(_ node: NodeConnection) throws
}

extension NodeCommand {
  func run() throws {
    try reporting(json: options.json) { try execute(try options.connect()) }
  }

  /// Runs an operation whose answer is printed by `text`, or as it is with `--json`.
  func show(_ response: JSONValue, _ text: (JSONValue) -> [String]) {
    if options.json { return Output.line(response.text) }
    for line in text(response) { Output.line(line) }
  }
}

extension NodeConnection {
  /// Runs an operation and gives its JSON.
  func ask(_ op: String, _ members: [(String, JSONValue)] = [], timeout: Duration = .seconds(30)) throws -> JSONValue {
    try request(op, members.map { JSONValue.Member($0.0, $0.1) }, timeout: timeout).json
  }
}
