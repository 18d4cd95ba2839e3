import ArgumentParser
import GrapeCore

/// `grape sdk`
struct SDKCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "sdk",
    abstract: "Print the SDKs that travel inside this program.",
    discussion: """
      EXAMPLES
        grape sdk python > grape.py
      """,
    subcommands: [Python.self])

  struct Python: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Print grape.py: one file, no dependencies, Python 3.9 or later.",
      discussion: """
        A deployed application need not bring it along: the node gives it to its Python workers. It is for tests and editors.

        EXAMPLES
          grape sdk python > grape.py
          grape sdk python --json
        """)
    @Flag(help: "Print JSON: file name and content.")
    var json = false

    func run() throws {
      try reporting(json: json) {
        let content = EmbeddedSDK.python
        guard json else { return content.withUnsafeBytes { Output.write($0) } }
        let result: JSONValue = [
          "file": "grape.py", "content": .string(String(decoding: content, as: UTF8.self)),
        ]
        Output.line(result.text)
      }
    }
  }
}
