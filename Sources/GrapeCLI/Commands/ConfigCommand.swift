import ArgumentParser
import GrapeCore
import GrapeKafka
import GrapeLog
import GrapeNode
import GrapePackages

/// `grape config`
struct ConfigCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "config",
    abstract: "The node's configuration file.",
    discussion: """
      EXAMPLES
        grape config check node.yaml
      """,
    subcommands: [Check.self])

  /// `grape config check`
  struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Check a configuration file and show what holds.",
      discussion: """
        Reads the file and the variables GRAPE_SERVE_… as `grape serve --config FILE` would, reads the secrets, and has
        librdkafka look at its settings, certificates and keys. No cluster is asked. Values of secrets are never shown.
        What is wrong is told with file, line and column; the exit code is 65 then.

        EXAMPLES
          grape config check /etc/grape/node.yaml
          grape config check node.yaml --json
        """)

    @Argument(help: ArgumentHelp("The file. Default: the one that GRAPE_SERVE_CONFIG names.", valueName: "file"))
    var file: String?

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
      try reporting(json: json) {
        let environment = processEnvironment()
        guard let path = ConfigurationFile.path(file, environment) else {
          throw CommandFailure(.usage, "no file is named: grape config check node.yaml")
        }
        do {
          let settings = try ConfigurationFile.settings(path, environment: environment)
          try tryOut(settings, environment)
          show(settings, path)
        } catch let error as ManifestError {
          try refuse(path, error.problems.map { Problem(message: $0.description, source: $0) })
        } catch let error as NodeError {
          try refuse(path, error.message.split(separator: "\n").map { Problem(message: String($0)) })
        }
      }
    }

    /// What only shows when the settings are used.
    private func tryOut(_ settings: NodeSettings, _ environment: [String: String]) throws {
      guard case .kafka(let configuration) = try settings.logChoice(environment: environment) else { return }
      do throws(LogError) { try configuration.validate() } catch { throw NodeError(error.message) }
    }

    private func show(_ settings: NodeSettings, _ path: String) {
      let data = absolutePath(NodeLocation.defaultDataDirectory)
      let effective = settings.effective(data: data, nodeName: hostName())
      if json {
        return Output.line(
          JSONValue.object([
            .init("file", .string(path)), .init("good", .bool(true)), .init("problems", .array([])),
            .init("warnings", JSONValue(strings: settings.warnings)), .init("settings", .array(effective.map(\.json))),
          ]).text)
      }
      var table = Table([("SETTING", .left), ("VALUE", .left), ("FROM", .left)])
      for setting in effective { table.add([setting.name, setting.value, setting.place]) }
      for line in table.lines { Output.line(line) }
      for warning in settings.warnings { Output.line("warning: \(warning)") }
      Output.line("\(path) is good")
    }

    private func refuse(_ path: String, _ problems: [Problem]) throws {
      if json {
        Output.line(
          JSONValue.object([
            .init("file", .string(path)), .init("good", .bool(false)),
            .init("problems", .array(problems.map(\.json))),
          ]).text)
      } else {
        for problem in problems { Output.line(problem.message) }
      }
      // The report is the answer; only the exit code says more.
      try Output.flush()
      throw ExitCode(GrapeExit.badInput.rawValue)
    }
  }

  /// Something wrong, with its place if it has one in the file.
  private struct Problem {
    var message: String
    var source: SourceProblem?

    var json: JSONValue {
      guard let source else { return ["message": .string(message)] }
      return [
        "message": .string(source.message), "line": JSONValue(source.mark.line),
        "column": JSONValue(source.mark.column),
        "path": .string(source.path.description),
      ]
    }
  }
}
