private import GrapeCore

/// The paths of a package, to find those that are there twice or that lead through a file.
struct PathTree {
  /// True for folders, also those that are only mentioned on the way to something.
  private var isFolder: [String: Bool] = [:]

  /// Adds a path; what is wrong with it, or nil. A folder may come more than once.
  mutating func add(_ path: String, isFolder folder: Bool) -> String? {
    var end = path.startIndex
    while let slash = path[end...].firstIndex(of: "/") {
      let parent = String(path[..<slash])
      switch isFolder[parent] {
      case true?: break
      case false?: return "\(path.quotedForMessage) lies in \(parent.quotedForMessage), which is no folder"
      case nil: isFolder[parent] = true
      }
      end = path.index(after: slash)
    }
    switch isFolder[path] {
    case nil: isFolder[path] = folder
    case true? where folder: break
    case true?: return "\(path.quotedForMessage) is there as a folder and as a file"
    case false?: return "\(path.quotedForMessage) is there twice"
    }
    return nil
  }
}

/// Which symbolic links a package may hold: relative ones that stay inside.
enum LinkRule {
  /// Why a link at `path` must not point to `target`; nil if it may.
  ///
  /// `..` may stand at the beginning only: there it leaves real folders, for an entry never lies behind a link.
  /// Further on it could leave a folder that is itself a link, and where that leads the path does not say.
  static func problem(target: String, at path: String) -> String? {
    if target.isEmpty { return "which is empty" }
    if target.hasPrefix("/") { return "an absolute path: links must be relative and stay in the package" }
    if target.utf8.count > PackagePath.maximumLength || target.utf8.contains(where: { $0 < 0x20 || $0 == 0x7f }) {
      return "which is too long or holds control characters"
    }
    var depth = path.utf8.count { $0 == UInt8(ascii: "/") }
    var isAtStart = true
    for part in target.split(separator: "/", omittingEmptySubsequences: true) {
      switch part {
      case ".": continue
      case "..":
        guard isAtStart else { return "which has \"..\" after a name: where that leads cannot be told" }
        depth -= 1
        if depth < 0 { return "which leads out of the package" }
      default: isAtStart = false
      }
    }
    return nil
  }
}
