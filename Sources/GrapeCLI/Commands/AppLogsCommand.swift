import ArgumentParser
import Grape
import GrapeCore

/// `grape app logs`
struct AppLogsCommand: NodeCommand {
  static let configuration = CommandConfiguration(
    commandName: "logs",
    abstract: "Print what an application's workers wrote and logged.",
    discussion: """
      With --json there is one object a line: timeMs, worker, stream, level, message.

      EXAMPLES
        grape app logs shop
        grape app logs shop --lines 500 --json
        grape app logs shop --follow
      """)

  @Argument(help: "The application's name.", transform: parseAppName) var app: String
  @Option(name: [.short, .long], help: ArgumentHelp("How many of the last lines.", valueName: "n")) var lines = 100
  @Flag(name: [.short, .long], help: "Go on with new lines as they come.") var follow = false
  @OptionGroup var options: NodeOptions

  func validate() throws {
    guard (1...1_000_000).contains(lines) else { throw ValidationError("--lines takes 1 to 1,000,000") }
  }

  func execute(_ node: NodeConnection) throws {
    var answer = try node.ask("app.logs", [("app", .string(app)), ("lines", JSONValue(lines))])
    while true {
      for line in answer["lines"]?.array ?? [] { print(line) }
      guard follow, let next = answer["next"] else { return }
      try Output.flush()
      answer = try node.ask(
        "app.logs", [("app", .string(app)), ("after", next), ("waitMs", 10_000)], timeout: .seconds(40))
    }
  }

  private func print(_ line: JSONValue) {
    if options.json { return Output.line(line.text) }
    let time = line["timeMs"]?.int.map { Format.time($0) } ?? ""
    let kind = line["level"]?.string ?? line["stream"]?.string ?? ""
    let fields = (line["fields"]?.object ?? []).map { " \($0.name)=\($0.value.string ?? $0.value.text)" }.joined()
    Output.line("\(time) \(line["worker"]?.string ?? "-") \(kind): \(line["message"]?.string ?? "")\(fields)")
  }
}
