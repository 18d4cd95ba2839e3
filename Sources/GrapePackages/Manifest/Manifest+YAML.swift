public import GrapeCore

extension Manifest {
  /// The manifest's name in a package's folder.
  public static let fileName = "grape.yaml"

  /// Reads and checks a manifest, and the profile if it comes as a file of its own.
  ///
  /// All problems of both files are reported at once. `file` and `profileFile` are what messages call them.
  public init(
    yaml: [UInt8], file: String = Manifest.fileName, profileYAML: [UInt8]? = nil, profileFile: String = Profile.fileName
  ) throws(ManifestError) {
    let document = YAMLDocument(parsing: yaml, file: file)
    var reader = FieldReader(file: file, problems: document.problems)
    var manifest: Manifest?
    var hasSection = false
    if let root = document.root, case .mapping(let entries) = root.content {
      if let section = entries.first(where: { $0.key == "profile" }), profileYAML != nil {
        hasSection = true
        reader.report(
          section.keyMark, FieldPath().key("profile"), "is given twice, here and in \(profileFile): keep one of them")
      }
      let read = reader.manifest(root)
      // A profile of its own is checked with its own file.
      reader.report(
        read.problems().filter { profileYAML == nil || hasSection || $0.path.steps.first != .key("profile") })
      manifest = read
    } else if document.problems.isEmpty {
      let what = document.root.map { $0.isNull ? "empty" : $0.kind } ?? "empty"
      reader.report(
        document.root?.mark ?? SourceMark(line: 1, column: 1), FieldPath(),
        "the manifest is \(what): write a mapping that begins with \"grape: \(Manifest.formatVersion)\"")
    }
    var problems = reader.problems.sorted { $0.mark < $1.mark }
    if let profileYAML {
      do throws(ManifestError) {
        manifest?.profile = try Profile(yaml: profileYAML, file: profileFile)
      } catch {
        problems += error.problems
      }
    }
    guard problems.isEmpty, let manifest else { throw ManifestError(problems) }
    self = manifest
  }

  /// Reads and checks a manifest.
  public init(yaml: String, file: String = Manifest.fileName) throws(ManifestError) {
    try self.init(yaml: Array(yaml.utf8), file: file)
  }
}

extension Profile {
  /// The profile's name in a package's folder.
  public static let fileName = "profile.yaml"

  /// Reads and checks a profile; all problems are reported at once. An empty file is a profile of defaults.
  public init(yaml: [UInt8], file: String = Profile.fileName) throws(ManifestError) {
    let document = YAMLDocument(parsing: yaml, file: file)
    var reader = FieldReader(file: file, problems: document.problems)
    var profile = Profile()
    if let root = document.root {
      profile = reader.profile(root, FieldPath())
      reader.report(profile.problems())
    }
    let problems = reader.problems.sorted { $0.mark < $1.mark }
    guard problems.isEmpty else { throw ManifestError(problems) }
    self = profile
  }

  /// Reads and checks a profile.
  public init(yaml: String, file: String = Profile.fileName) throws(ManifestError) {
    try self.init(yaml: Array(yaml.utf8), file: file)
  }
}
