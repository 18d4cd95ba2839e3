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

      A Swift application gets the sources of the SDK that travel inside this program, in vendor/grape: Swift and the
      headers of zstd and LMDB (libzstd-dev, liblmdb-dev) are all that building it needs. --sdk names another place for the SDK.

      EXAMPLES
        grape init my-app --runtime python
        grape init services/pricing --runtime swift
        grape init my-app --runtime swift --sdk ../grape
        grape init my-app --runtime swift --sdk ssh://git@host/team/grape.git#1.2.0
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
      "For Swift: a folder with the Grape package, or a git repository with #VERSION, #COMMIT or #BRANCH behind it.",
      valueName: "path-or-url"))
  var sdk: String?

  @Flag(help: "Print JSON.")
  var json = false

  func validate() throws {
    if sdk != nil, runtime != "swift" {
      throw ValidationError("--sdk is for Swift: Python workers get theirs from the node")
    }
  }

  func run() throws {
    try reporting(json: json) {
      let name = try applicationName()
      let template: ProjectTemplate =
        runtime == "swift" ? .swift(grape: try swiftDependency()) : .python(sdk: EmbeddedSDK.python)
      try template.write(name: name, to: folder)
      let all = template.files(name: name).map { $0.path }
      let files = all.filter { !$0.hasPrefix("vendor/grape/") } + (all.count > 20 ? ["vendor/grape"] : [])
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
    guard let sdk else { return .embedded(EmbeddedSDK.swift) }
    if sdk.contains("://") || sdk.hasPrefix("git@") {
      guard let mark = sdk.lastIndex(of: "#"), sdk.index(after: mark) < sdk.endIndex else {
        throw CommandFailure(
          .usage, "--sdk \(sdk): say which state of the repository, as \(sdk)#1.2.0 (a version), #COMMIT or #BRANCH")
      }
      return .url(String(sdk[..<mark]), .init(String(sdk[sdk.index(after: mark)...])))
    }
    guard let path = realpath(sdk, nil) else { throw FileContent.unreadable(sdk) }
    defer { free(path) }
    let folder = String(cString: path)
    guard access(folder + "/Package.swift", R_OK) == 0, access(folder + "/Sources/GrapeWire", F_OK) == 0 else {
      throw CommandFailure(
        .noInput,
        "--sdk \(sdk): there is no Grape package (Package.swift, Sources/GrapeWire); name its folder or a repository, or leave --sdk out to get the SDK that travels inside this program"
      )
    }
    return .path(folder)
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

  /// The files of the Swift SDK, a package.
  static var swift: [ProjectFile] {
    UnsafeBufferPointer(start: grape_sdk_swift_files(), count: grape_sdk_swift_count).map { file in
      ProjectFile(String(cString: file.path), Array(UnsafeRawBufferPointer(start: file.bytes, count: file.size)))
    }
  }
}
