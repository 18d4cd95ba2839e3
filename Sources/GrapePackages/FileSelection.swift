internal import GrapeCore

/// Which files of a folder belong to its package.
struct FileSelection: Sendable {
  /// Never of use to a worker: version control, caches, build products, virtual environments, editors' files.
  static let defaultExcludes = [
    ".git", ".hg", ".svn", ".DS_Store", "__pycache__", "*.pyc", "*.pyo", ".pytest_cache", ".mypy_cache", ".ruff_cache",
    ".venv", "venv", "node_modules", ".build", ".swiftpm", ".grape", ".idea", ".vscode", "*.swp", "*~",
  ]

  private let include: [GlobPattern]
  private let exclude: [GlobPattern]
  /// Belong to it whatever the patterns say: the manifest, the profile, and what the manifest starts.
  private let needed: Set<String>

  init(include: [String], exclude: [String], needed: Set<String> = []) throws(GlobError) {
    var patterns: [GlobPattern] = []
    for text in include { patterns.append(try GlobPattern(text)) }
    self.include = patterns
    patterns = []
    for text in Self.defaultExcludes + exclude { patterns.append(try GlobPattern(text)) }
    self.exclude = patterns
    self.needed = needed
  }

  /// What the manifest says. Its patterns were checked when it was read; a bad one is an error all the same.
  init(_ manifest: Manifest) throws(PackageError) {
    var needed: Set<String> = [Manifest.fileName, Profile.fileName]
    if let file = manifest.runtime.file { needed.insert(file) }
    do throws(GlobError) {
      try self.init(include: manifest.include, exclude: manifest.exclude, needed: needed)
    } catch {
      throw PackageError(.invalidManifest, error.message)
    }
  }

  /// Whether something in the folder is needed though the folder is excluded.
  func needsPart(of folder: String) -> Bool { needed.contains { $0.hasPrefix(folder + "/") } }

  /// Whether a file belongs to the package. `inExcludedFolder`: it lies in a folder that is excluded.
  func selects(_ path: String, inExcludedFolder: Bool) -> Bool {
    if needed.contains(path) { return true }
    return !inExcludedFolder && !excludes(path, isFolder: false) && includes(path)
  }

  /// Whether a file belongs to the package, by its path alone.
  func selects(_ path: String) -> Bool {
    var end = path.startIndex
    while let slash = path[end...].firstIndex(of: "/") {
      if excludes(String(path[..<slash]), isFolder: true) { return selects(path, inExcludedFolder: true) }
      end = path.index(after: slash)
    }
    return selects(path, inExcludedFolder: false)
  }

  /// Whether `exclude` leaves a folder or file out. The last pattern that fits decides.
  func excludes(_ path: String, isFolder: Bool) -> Bool {
    exclude.last { $0.matches(path, isFolder: isFolder) }.map { !$0.isNegated } ?? false
  }

  /// Whether `include` wants a file: it, or a folder it lies in, fits the last pattern that says something about it.
  func includes(_ path: String) -> Bool {
    guard !include.isEmpty else { return true }
    let names = path.split(separator: "/")
    return include.last { pattern in
      names.indices.contains { last in
        pattern.matches(names[...last].joined(separator: "/"), isFolder: last < names.count - 1)
      }
    }.map { !$0.isNegated } ?? false
  }
}
