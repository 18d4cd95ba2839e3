/// A project in Swift.
struct SwiftTemplate {
  let app: String
  /// The executable product, its target and, with `_` for `-`, its module.
  private let product: String
  private let dependency: String
  private let package: String
  /// Of the SDK, if it is a part of the project.
  private let vendored: [ProjectFile]

  init(app: String, grape: ProjectTemplate.SwiftDependency) {
    self.app = app
    // A module cannot be called like a keyword, nor like one that the project uses.
    product = Self.taken.contains(app) ? app + "-app" : app
    switch grape {
    case .embedded(let files):
      dependency = ".package(path: \"\(Self.vendor)\")"
      package = "grape"
      vendored = files.map { ProjectFile("\(Self.vendor)/\($0.path)", $0.contents, isExecutable: $0.isExecutable) }
    case .path(let path):
      dependency = ".package(name: \"grape\", path: \(Self.literal(path)))"
      package = "grape"
      vendored = []
    case .url(let address, let requirement):
      let wanted =
        switch requirement {
        case .exact(let version): "exact: \(Self.literal(version))"
        case .revision(let commit): "revision: \(Self.literal(commit))"
        case .branch(let branch): "branch: \(Self.literal(branch))"
        }
      dependency = ".package(url: \(Self.literal(address)), \(wanted))"
      let last = address.split(separator: "/").last.map(String.init) ?? "grape"
      package = last.hasSuffix(".git") ? String(last.dropLast(4)) : last
      vendored = []
    }
  }

  /// Folder of the SDK. Its last part is the name by which the package manager knows the package.
  private static let vendor = "vendor/grape"

  private static let taken: Set<String> = [
    "grape", "main", "test", "tests", "associatedtype", "class", "deinit", "enum", "extension", "fileprivate", "func",
    "import",
    "init", "inout", "internal", "let", "open", "operator", "private", "precedencegroup", "protocol", "public",
    "rethrows", "static",
    "struct", "subscript", "typealias", "var", "break", "case", "catch", "continue", "default", "defer", "do", "else",
    "fallthrough",
    "for", "guard", "if", "in", "repeat", "return", "throw", "switch", "where", "while", "any", "as", "await", "false",
    "is", "nil",
    "self", "super", "throws", "true", "try",
  ]

  private var module: String { product.map { $0 == "-" ? "_" : String($0) }.joined() }

  var files: [ProjectFile] {
    [
      ProjectFile("grape.yaml", manifest), ProjectFile("Package.swift", packageManifest),
      ProjectFile("Sources/\(product)/Application.swift", application),
      ProjectFile("Sources/\(product)/Main.swift", main),
      ProjectFile("Tests/\(product)-tests/GreetingTests.swift", test), ProjectFile("README.md", readme),
      ProjectFile(".gitignore", ".build/\nPackage.resolved\n"),
    ] + vendored
  }

  private var manifest: String {
    """
    # What this application is. Every field is described in docs/manifest.md of Grape.
    grape: 1
    name: \(app)
    description: Greets whoever it hears of.
    runtime: swift
    # The executable product of Package.swift: "grape deploy" builds it and packs it as bin/\(product).
    entry: \(product)
    partitions: 4

    slots:
      received:
        description: A name
        emits: [greeted]
      greeted:
        description: A greeting; answers the caller

    # Files of the folder that workers do not need.
    exclude: [/Sources, /Tests, /vendor, Package.swift, Package.resolved, README.md, .gitignore]

    profile:
      workers: {min: 0, max: 2}

    """
  }

  private var packageManifest: String {
    """
    // swift-tools-version: 6.2
    import PackageDescription

    let package = Package(
      name: "\(app)",
      dependencies: [
        \(dependency)
      ],
      targets: [
        .executableTarget(name: "\(product)", dependencies: [.product(name: "Grape", package: "\(package)")]),
        .testTarget(
          name: "\(product)-tests",
          dependencies: ["\(product)", .product(name: "Grape", package: "\(package)")]),
      ],
      swiftLanguageModes: [.v6]
    )

    """
  }

  private var application: String {
    """
    import Grape

    /// The handlers: `received` makes a greeting, `greeted` answers with it.
    func makeApplication() -> Application {
      let app = Application()

      app.on("received") { event, context in
        let name = event.text
        guard !name.isEmpty else {
          // Final: the caller gets the code and the message; without a caller the event becomes a dead letter.
          throw Reject(code: 22, message: "a name is expected")
        }
        // The same key keeps all events about one person in order.
        try context.emit("greeted", "Hello, \\(name)!", key: event.key)
      }

      app.on("greeted") { event, context in
        // What a handler returns answers whoever waits for the event, here the caller of `received`.
        Reply(event.text)
      }

      return app
    }

    """
  }

  private var main: String {
    """
    import Grape

    @main
    struct Main {
      static func main() async throws {
        try await makeApplication().run()
      }
    }

    """
  }

  private var test: String {
    """
    import Grape
    import Testing

    @testable import \(module)

    /// Runs the handlers in this process, without a node.
    @Suite struct GreetingTests {
      @Test func receivedEmitsAGreetingWithTheSameKey() async throws {
        let run = try TestRun(makeApplication(), routes: ["greeted": ["greeted"]])
        let result = try await run.send("received", "Ada", key: "k")
        #expect(result.reply == nil, "the next slot answers")
        #expect(result.emitted.map(\\.name) == ["greeted"])
        #expect(result.emitted.first?.text == "Hello, Ada!")
        #expect(result.emitted.first?.key?.string == "k")
      }

      @Test func greetedAnswersTheCaller() async throws {
        let run = try TestRun(makeApplication(), routes: [:])
        let result = try await run.send("greeted", "Hello, Ada!")
        #expect(result.reply?.text == "Hello, Ada!")
      }

      @Test func anEmptyNameIsRefused() async throws {
        let run = try TestRun(makeApplication(), routes: ["greeted": ["greeted"]])
        let result = try await run.send("received", "")
        #expect(result.outcome == .rejected(code: 22, message: "a name is expected"))
        #expect(result.emitted.isEmpty)
      }
    }

    """
  }

  private var readme: String {
    """
    # \(app)

    A stream processing application for Grape, in Swift. It has two slots: `received` makes a greeting and emits it,
    `greeted` answers with it.

    | file | |
    |---|---|
    | `grape.yaml` | the manifest: name, slots, what they emit, how workers run |
    | `Sources/\(product)/Application.swift` | the handlers |
    | `Sources/\(product)/Main.swift` | the worker's entry point |
    | `Tests/\(product)-tests` | tests of the handlers, which need no node |
    \(vendored.isEmpty ? "" : "| `\(Self.vendor)` | the SDK, as it came with `grape` |\n")
    ## Test it

    Building needs Swift 6.2 or later and the headers of zstd and LMDB (Debian: `apt install libzstd-dev liblmdb-dev pkg-config`). In this
    folder:

    ```
    swift test
    ```

    \(TemplateText.running(app, folder: "."))
    `grape deploy` builds the release binary first.
    \(vendored.isEmpty ? "" : Self.updating)
    """
  }

  private static let updating = """

    ## The SDK

    `\(vendor)` holds the sources of the module `Grape`, written by `grape init`: the project builds without a
    download. After an update of `grape`, take the new ones:

    ```
    rm -r \(vendor) && grape sdk swift \(vendor)
    ```

    To take them from elsewhere, put another address into `Package.swift` (a folder with the Grape package, or a
    repository), or begin with `grape init --sdk PATH|URL#VERSION`.

    """

  /// A Swift string literal.
  private static func literal(_ text: String) -> String {
    "\"" + text.map { $0 == "\"" || $0 == "\\" ? "\\\($0)" : String($0) }.joined() + "\""
  }
}
