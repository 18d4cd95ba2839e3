import ArgumentParser
import Grape
import GrapeCore

/// `grape app`
struct AppCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "app",
    abstract: "Deployed applications: list, look at, start, stop, restart, remove; read their logs.",
    discussion: """
      EXAMPLES
        grape app list
        grape app info shop
        grape app restart shop
        grape app logs shop --follow
      """,
    subcommands: [
      List.self, Info.self, Start.self, Stop.self, Restart.self, Remove.self, AppLogsCommand.self,
    ])

  struct List: NodeCommand {
    static let configuration = CommandConfiguration(
      abstract: "List the applications.",
      discussion: """
        EXAMPLES
          grape app list
          grape app list --json
        """)
    @OptionGroup var options: NodeOptions

    func execute(_ node: NodeConnection) throws {
      show(try node.ask("app.list")) { answer in
        let apps = answer["apps"]?.array ?? []
        guard !apps.isEmpty else { return ["no applications are deployed; `grape deploy FOLDER` deploys one"] }
        var table = Table([
          ("NAME", .left), ("VERSION", .left), ("RUNTIME", .left), ("STATE", .left), ("WORKERS", .right),
          ("LAG", .right),
          ("SLOTS", .left),
        ])
        for app in apps {
          table.add([
            app["name"]?.string ?? "", short(app["version"]?.string), app["runtime"]?.string ?? "",
            app["state"]?.string ?? "", "\(app["workers"]?.int ?? 0)", Format.count(app["lag"]?.int ?? 0),
            (app["slots"]?.array ?? []).compactMap { $0.string }.joined(separator: " "),
          ])
        }
        return table.lines + apps.compactMap(problem)
      }
    }
  }

  struct Info: NodeCommand {
    static let configuration = CommandConfiguration(
      abstract: "Show an application: state, version, slots, profile, files.",
      discussion: """
        EXAMPLES
          grape app info shop
          grape app info shop --json
        """)
    @Argument(help: "The application's name.", transform: parseAppName) var app: String
    @OptionGroup var options: NodeOptions

    func execute(_ node: NodeConnection) throws {
      show(try node.ask("app.info", [("app", .string(app))])) { info in
        var lines = [
          "name         \(info["name"]?.string ?? "")",
          "description  \(info["description"]?.string ?? "")",
          "version      \(short(info["version"]?.string))",
          "runtime      \(info["runtime"]?.string ?? "")",
          "state        \(info["state"]?.string ?? "")",
          "workers      \(info["workers"]?.int ?? 0)",
          "topic        \(info["topic"]?.string ?? ""), \(info["partitions"]?.int ?? 0) partitions",
          "lag          \(Format.count(info["lag"]?.int ?? 0))",
          "deployed     \(info["deployedMs"]?.int.map { Format.time($0) } ?? "")",
          "package      \(Format.bytes(info["packageBytes"]?.int ?? 0)), \(info["files"]?.array?.count ?? 0) files",
          "slots        \((info["slots"]?.array ?? []).compactMap { $0.string }.joined(separator: " "))",
        ]
        let profile = info["profile"]?.object ?? []
        if !profile.isEmpty { lines.append("profile") }
        let width = profile.map { $0.name.count }.max() ?? 0
        for member in profile {
          let padding = String(repeating: " ", count: width - member.name.count)
          lines.append("  \(member.name)\(padding)  \(member.value.inWords)")
        }
        return lines + [problem(info)].compactMap { $0 }
      }
    }
  }

  struct Start: NodeCommand {
    static let configuration = CommandConfiguration(
      abstract: "Let a stopped application take events again.",
      discussion: """
        EXAMPLES
          grape app start shop
        """)
    @Argument(help: "The application's name.", transform: parseAppName) var app: String
    @OptionGroup var options: NodeOptions
    func execute(_ node: NodeConnection) throws { try change("app.start", app, node) }
  }

  struct Stop: NodeCommand {
    static let configuration = CommandConfiguration(
      abstract: "Stop an application: its workers finish what they hold, events queue up.",
      discussion: """
        EXAMPLES
          grape app stop shop
        """)
    @Argument(help: "The application's name.", transform: parseAppName) var app: String
    @OptionGroup var options: NodeOptions
    func execute(_ node: NodeConnection) throws { try change("app.stop", app, node) }
  }

  struct Restart: NodeCommand {
    static let configuration = CommandConfiguration(
      abstract: "Replace an application's workers; also the way out of state `failed`.",
      discussion: """
        EXAMPLES
          grape app restart shop
        """)
    @Argument(help: "The application's name.", transform: parseAppName) var app: String
    @OptionGroup var options: NodeOptions
    func execute(_ node: NodeConnection) throws { try change("app.restart", app, node) }
  }

  struct Remove: NodeCommand {
    static let configuration = CommandConfiguration(
      abstract: "Remove an application. Its topics are kept.",
      discussion: """
        Refused while other applications emit to it, unless --force is given.

        EXAMPLES
          grape app remove shop
          grape app remove shop --force
        """)
    @Argument(help: "The application's name.", transform: parseAppName) var app: String
    @Flag(help: "Remove it even if others emit to it.") var force = false
    @OptionGroup var options: NodeOptions

    func execute(_ node: NodeConnection) throws {
      let answer = try node.ask("app.remove", [("app", .string(app)), ("force", .bool(force))], timeout: .seconds(120))
      show(answer) { answer in
        let topics = (answer["topics"]?.array ?? []).compactMap { $0.string }
        return ["removed \(app)" + (topics.isEmpty ? "" : "; its topics are kept: \(topics.joined(separator: ", "))")]
      }
    }
  }
}

extension NodeCommand {
  /// Starts, stops or restarts. Workers that hold events are waited for.
  fileprivate func change(_ op: String, _ app: String, _ node: NodeConnection) throws {
    show(try node.ask(op, [("app", .string(app))], timeout: .seconds(120))) { answer in
      ["\(app): \(answer["state"]?.string ?? "done")"]
    }
  }
}

extension JSONValue {
  /// For people: `4`, `text`, `min 0, max 2`, `HOME LANG`.
  fileprivate var inWords: String {
    switch self {
    case .string(let text): text
    case .object(let members): members.map { "\($0.name) \($0.value.inWords)" }.joined(separator: ", ")
    case .array(let elements): elements.isEmpty ? "-" : elements.map { $0.inWords }.joined(separator: " ")
    default: text
    }
  }
}

/// The first 12 digits of a version.
func short(_ version: String?) -> String { String((version ?? "").prefix(12)) }

private func problem(_ app: JSONValue) -> String? {
  guard let problem = app["problem"]?.string, !problem.isEmpty else { return nil }
  return "\(app["name"]?.string ?? ""): \(problem)"
}
