import ArgumentParser
import GrapeCore

/// `grape exit-codes`
struct ExitCodesCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "exit-codes",
    abstract: "List the exit codes.",
    discussion: """
      EXAMPLES
        grape exit-codes
        grape exec shop@order --block || echo "failed: $(grape exit-codes | grep "^ *$? ")"
      """)

  @Flag(help: "Print JSON.")
  var json = false

  func run() throws {
    try reporting(json: json) {
      if json {
        let codes = GrapeExit.allCases.map { exit -> JSONValue in
          ["exitCode": JSONValue(exit.rawValue), "name": .string(exit.name), "meaning": .string(exit.meaning)]
        }
        return Output.line(JSONValue.array(codes).text)
      }
      var table = Table([("CODE", .right), ("NAME", .left), ("MEANING", .left)])
      for exit in GrapeExit.allCases { table.add(["\(exit.rawValue)", exit.name, exit.meaning]) }
      for line in table.lines { Output.line(line) }
    }
  }
}
