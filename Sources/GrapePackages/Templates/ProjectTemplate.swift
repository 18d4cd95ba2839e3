public import GrapeCore

/// A file of a new project.
public struct ProjectFile: Hashable, Sendable {
  /// Relative to the project's folder.
  public var path: String
  public var contents: [UInt8]
  public var isExecutable: Bool

  public init(_ path: String, _ contents: [UInt8], isExecutable: Bool = false) {
    self.path = path
    self.contents = contents
    self.isExecutable = isExecutable
  }

  init(_ path: String, _ text: String) { self.init(path, Array(text.utf8)) }
}

/// What `grape init` makes: a working application with a manifest, two slots, a test and a README.
public enum ProjectTemplate: Sendable {
  /// In Python. `sdk` is the text of `grape.py`; it goes to `.grape/grape.py`, for tests and editors, and not into
  /// the package.
  case python(sdk: [UInt8])
  /// In Swift, with the SDK from where `grape` says.
  case swift(grape: SwiftDependency)

  /// Where a Swift project finds the SDK.
  public enum SwiftDependency: Hashable, Sendable {
    /// Its files, which become a part of the project: paths are relative to the SDK's own folder.
    case embedded([ProjectFile])
    /// A folder that holds the Grape package.
    case path(String)
    /// A repository, by its address, and what of it is wanted.
    case url(String, Requirement)

    /// Which state of a repository.
    public enum Requirement: Hashable, Sendable {
      case exact(String)
      case revision(String)
      case branch(String)

      /// What a user may write: `1.2.3` is a version, 40 hexadecimal digits are a commit, all else is a branch.
      public init(_ text: String) {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        if parts.count == 3, parts.allSatisfy({ !$0.isEmpty && $0.allSatisfy { ("0"..."9").contains($0) } }) {
          self = .exact(text)
        } else if text.utf8.count == 40, text.allSatisfy(\.isHexDigit) {
          self = .revision(text)
        } else {
          self = .branch(text)
        }
      }
    }
  }

  /// Names of the languages, as `grape init --runtime` takes them.
  public static let runtimes = ["python", "swift"]

  /// The project's files, for an application called `name`, in order of path.
  public func files(name: AppName) -> [ProjectFile] {
    let files: [ProjectFile]
    switch self {
    case .python(let sdk): files = PythonTemplate(app: name.text).files(sdk: sdk)
    case .swift(let grape): files = SwiftTemplate(app: name.text, grape: grape).files
    }
    return files.sorted { $0.path < $1.path }
  }

  /// Writes the project into `folder`, which is made. A folder that is there must be empty: nothing is overwritten.
  public func write(name: AppName, to folder: String) throws(PackageError) {
    try Self.makeFolder(folder)
    try Self.write(files(name: name), to: folder)
  }

  /// Makes a folder. One that is there must be empty: nothing is overwritten.
  public static func makeFolder(_ folder: String) throws(PackageError) {
    // With the dot, a link to a folder is a folder.
    if try File.status(of: folder + "/.") == nil, try File.status(of: folder) != nil {
      throw PackageError(.changed, "\(folder) is there already, and is no folder")
    }
    if try File.status(of: folder) != nil {
      guard try Folder.names(in: folder).isEmpty else {
        throw PackageError(.changed, "\(folder) is not empty: name a new folder, or remove what is in it")
      }
    } else {
      try Folder.create(folder)
    }
  }

  /// Writes files into a folder that is there, with the folders that they need. A file that is there is an error.
  public static func write(_ files: [ProjectFile], to folder: String) throws(PackageError) {
    for file in files {
      var end = file.path.startIndex
      while let slash = file.path[end...].firstIndex(of: "/") {
        let parent = folder + "/" + file.path[..<slash]
        if try File.status(of: parent) == nil { try Folder.create(parent) }
        end = file.path.index(after: slash)
      }
      let created = try File(creating: folder + "/" + file.path, mode: file.isExecutable ? 0o755 : 0o644)
      let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: file.contents.count, alignment: 16)
      defer { bytes.deallocate() }
      bytes.copyBytes(from: file.contents)
      try created.write(UnsafeRawBufferPointer(bytes))
    }
  }
}

/// Parts that the projects of all languages have.
enum TemplateText {
  /// The part of the README that tells how to run the application.
  static func running(_ app: String, folder: String) -> String {
    """
    ## Run it

    Start a node, in a terminal of its own:

    ```
    grape serve --data /tmp/grape
    ```

    Deploy the application and send it an event:

    ```
    export GRAPE_NODE=/tmp/grape
    grape deploy \(folder)
    grape exec \(app)@received --data Ada --block
    ```

    The last command prints `Hello, Ada!`. What happened: the event `received` was stored in the log; its handler
    emitted `greeted`; the handler of that returned the greeting, which answered the caller, who had been waiting all
    the time.

    ```
    grape exec \(app)@received --data Ada --key 42     # without --block: stored, and handled without an answer
    grape topology                                     # which slot emits to which
    grape stats                                        # rates, lag, latency
    grape app logs \(app)                              # what the workers wrote
    ```

    """
  }
}
