import ArgumentParser
import CGrapeResources
import Glibc
import GrapeCore
import GrapePackages

/// `grape init`
struct InitCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "init",
    abstract: "Make a new application: manifest, handlers, README, a test.",
    discussion: """
      The folder must not exist, or be empty. Its last part is the application's name unless --name says another.

      EXAMPLES
        grape init my-app --runtime python
        grape init services/pricing --runtime swift
      """)

  @Argument(help: ArgumentHelp("The folder to make.", valueName: "folder"))
  var folder: String

  @Option(help: ArgumentHelp("python or swift.", valueName: "runtime"), transform: parseRuntime)
  var runtime: String

  @Option(
    help: ArgumentHelp("The application's name. Default: the folder's.", valueName: "name"), transform: parseAppName)
  var name: String?

  @Option(
    help: ArgumentHelp(
      "For Swift: the folder or repository of the Grape package. Default: the one that this program was built from.",
      valueName: "path-or-url"))
  var grapePackage: String?

  @Flag(help: "Print JSON.")
  var json = false

  func run() throws {
    try reporting(json: json) {
      let name = try applicationName()
      let template: ProjectTemplate =
        runtime == "swift" ? .swift(grape: try swiftDependency()) : .python(sdk: EmbeddedSDK.python)
      try template.write(name: name, to: folder)
      let files = template.files(name: name).map { $0.path }
      if json {
        let result: JSONValue = [
          "app": .string(name.text), "folder": .string(folder), "files": JSONValue(strings: files),
        ]
        return Output.line(result.text)
      }
      Output.line("made \(folder): \(files.joined(separator: ", "))")
      Output.line("next:")
      Output.line("  grape serve &                                # a node, if none is running")
      Output.line("  grape deploy \(folder)")
      Output.line("  \(folder)/README.md tells how to send events and run the test")
    }
  }

  private func applicationName() throws -> AppName {
    let last = name ?? folder.split(separator: "/").last.map { String($0) } ?? ""
    do throws(NameError) {
      return try AppName(last)
    } catch {
      throw CommandFailure(.usage, "\(error.message); choose the application's name with --name")
    }
  }

  private func swiftDependency() throws -> ProjectTemplate.SwiftDependency {
    if let grapePackage {
      if grapePackage.contains("://") || grapePackage.hasPrefix("git@") { return .url(grapePackage, branch: "main") }
      guard let path = realpath(grapePackage, nil) else { throw FileContent.unreadable(grapePackage) }
      defer { free(path) }
      return .path(String(cString: path))
    }
    if let root = Self.sourceFolder() { return .path(root) }
    throw CommandFailure(
      .usage, "where the Grape package is must be said with --grape-package (a folder or a repository)")
  }

  /// The package's folder if this program runs from its build folder.
  private static func sourceFolder() -> String? {
    guard let path = realpath("/proc/self/exe", nil) else { return nil }
    defer { free(path) }
    var folder = String(cString: path)[...]
    while let slash = folder.lastIndex(of: "/"), slash > folder.startIndex {
      folder = folder[..<slash]
      if access(folder + "/Package.swift", F_OK) == 0, access(folder + "/Sources/GrapeWire", F_OK) == 0 {
        return String(folder)
      }
    }
    return nil
  }
}

private func parseRuntime(_ text: String) throws -> String {
  guard ProjectTemplate.runtimes.contains(text) else {
    throw ValidationError("a runtime is \(ProjectTemplate.runtimes.joined(separator: " or "))")
  }
  return text
}

/// Files that travel inside this program.
enum EmbeddedSDK {
  /// `grape.py`
  static var python: [UInt8] {
    Array(UnsafeRawBufferPointer(start: grape_sdk_python_bytes(), count: grape_sdk_python_size))
  }
}
