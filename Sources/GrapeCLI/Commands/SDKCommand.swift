import ArgumentParser
import GrapeCore
import GrapePackages

/// `grape sdk`
struct SDKCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "sdk",
    abstract: "Hand out the SDKs that travel inside this program.",
    discussion: """
      EXAMPLES
        grape sdk python > grape.py
        grape sdk swift vendor/grape
      """,
    subcommands: [Python.self, Swift.self])

  struct Swift: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Write the Swift SDK's sources, a package, into a new folder.",
      discussion: """
        The folder must not exist, or be empty. The package manager knows the package by the folder's last part, which `grape init`
        takes to be grape.

        EXAMPLES
          grape sdk swift vendor/grape
        """)
    @Argument(help: ArgumentHelp("The folder to make.", valueName: "folder"))
    var folder: String
    @Flag(help: "Print JSON: the folder and its files.")
    var json = false

    func run() throws {
      try reporting(json: json) {
        let files = EmbeddedSDK.swift
        try ProjectTemplate.makeFolder(folder)
        try ProjectTemplate.write(files, to: folder)
        guard json else { return Output.line("wrote \(files.count) files to \(folder)") }
        let result: JSONValue = ["folder": .string(folder), "files": JSONValue(strings: files.map { $0.path })]
        Output.line(result.text)
      }
    }
  }

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
