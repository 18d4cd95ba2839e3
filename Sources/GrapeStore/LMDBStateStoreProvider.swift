internal import CGrapeLinux
internal import Glibc
public import GrapeState
internal import GrapeWire

/// Keeps stores in folders `ROOT/APP/PARTITION`, each beside a note of how far its file can be trusted.
///
/// The note (`owner`) says which boot of the machine wrote the file last, and whether it was closed in order. A file that was left open in an earlier boot may have lost any
/// of its pages and is removed: the changelog has everything. A process that is killed takes nothing with it: what it wrote is the kernel's.
public final class LMDBStateStoreProvider: StateStoreProvider {
  private let root: String
  private let initialMapSize: Int
  private let boot: String

  /// - Parameters:
  ///   - root: folder for all applications; made when needed.
  ///   - initialMapSize: bytes of address space that a store begins with, a multiple of the page size.
  ///   - boot: what tells this boot of the machine from others; nil: as the kernel says.
  public init(root: String, initialMapSize: Int = 64 * 1024 * 1024, boot: String? = nil) throws(StateError) {
    self.root = root
    self.initialMapSize = initialMapSize
    if let boot { self.boot = boot } else { self.boot = try Self.bootID() }
  }

  private static func bootID() throws(StateError) -> String {
    let path = "/proc/sys/kernel/random/boot_id"
    guard let text = try readFile(path) else { throw StateError(.system, "\(path) is not there") }
    return text.split(separator: "\n").first.map(String.init) ?? ""
  }

  public func directory(of app: String) -> String? { "\(root)/\(app)" }

  func folder(_ app: String, _ partition: Int32) -> String { "\(root)/\(app)/\(partition)" }

  public func open(
    _ app: String, partition: Int32, discarded: (String) -> Void
  ) throws(StateError) -> (any StateStore)? {
    let folder = folder(app, partition)
    // What a death in the midst of making or removing a store left.
    try removeFolder(folder + ".new")
    try removeFolder(folder + ".old")
    try Self.removeFile(folder + ".checkpoint.new")
    guard access(folder, F_OK) == 0 else { return nil }
    do throws(StateError) {
      try checkOwner(folder)
      return try use(folder)
    } catch {
      guard error.code == .corrupt || error.code == .notFound || error.code == .unsupported else { throw error }
      discarded("\(folder): \(error.message)")
      try remove(app, partition: partition)
      return nil
    }
  }

  private func checkOwner(_ folder: String) throws(StateError) {
    guard let note = try readFile(folder + "/owner") else {
      throw StateError(.corrupt, "nothing says whether it was closed in order")
    }
    let lines = note.split(separator: "\n").map(String.init)
    guard lines.count == 3, lines[0] == "grape state 1" else {
      throw StateError(.corrupt, "its file \"owner\" is not this program's")
    }
    guard lines[2] == "closed" || lines[1] == boot else {
      throw StateError(.corrupt, "it was open when the machine went down")
    }
    try LMDBFileCheck.check(folder + "/data.mdb")
  }

  private func use(_ folder: String) throws(StateError) -> any StateStore {
    let size = try fileSize(folder + "/data.mdb")
    var mapSize = initialMapSize
    while mapSize < 2 * size { mapSize *= 2 }
    let boot = boot
    let store = try LMDBStateStore(directory: folder, mapSize: mapSize) { () throws(StateError) in
      try writeFile(folder + "/owner", "grape state 1\n\(boot)\nclosed\n")
    }
    try writeFile(folder + "/owner", "grape state 1\n\(boot)\nopen\n")
    return store
  }

  public func create(_ app: String, partition: Int32) throws(StateError) -> any StateStore {
    let folder = folder(app, partition)
    return try make(folder) { (draft) throws(StateError) in
      try LMDBStateStore.prepare(draft, mapSize: initialMapSize)
    }
  }

  /// Makes a folder, with what `fill` puts into it. Made aside: whoever finds the folder finds all of it.
  func make(_ folder: String, _ fill: (_ draft: String) throws(StateError) -> Void) throws(StateError) -> any StateStore
  {
    let draft = folder + ".new"
    let parent = String(folder[..<(folder.lastIndex(of: "/") ?? folder.endIndex)])
    for path in [root, parent, draft] where mkdir(path, 0o700) != 0 && errno != EEXIST {
      throw StateError(.system, systemMessage("mkdir \(path)"))
    }
    try fill(draft)
    try writeFile(draft + "/owner", "grape state 1\n\(boot)\nopen\n")
    guard rename(draft, folder) == 0 else { throw StateError(.system, systemMessage("rename \(draft)")) }
    return try use(folder)
  }

  public func remove(_ app: String, partition: Int32) throws(StateError) {
    let folder = folder(app, partition)
    guard access(folder, F_OK) == 0 else { return }
    // Out of the way at once: the name belongs to the next.
    guard rename(folder, folder + ".old") == 0 else { throw StateError(.system, systemMessage("rename \(folder)")) }
    try removeFolder(folder + ".old")
  }

  static func removeFile(_ path: String) throws(StateError) {
    guard unlink(path) == 0 || errno == ENOENT else { throw StateError(.system, systemMessage("unlink \(path)")) }
  }

  private func removeFolder(_ folder: String) throws(StateError) {
    guard access(folder, F_OK) == 0 else { return }
    for name in ["data.mdb", "lock.mdb", "owner", "owner.new"] { try Self.removeFile("\(folder)/\(name)") }
    guard rmdir(folder) == 0 else { throw StateError(.system, systemMessage("rmdir \(folder)")) }
  }
}

extension LMDBStateStore {
  /// Makes an empty environment with its databases in folder `path`.
  static func prepare(_ path: String, mapSize: Int) throws(StateError) {
    let environment = try LMDBEnvironment(path: path, mapSize: mapSize)
    try StateWriter(environment).commit(.start)
  }
}

/// A small file's text; nil: there is none.
func readFile(_ path: String) throws(StateError) -> String? {
  let file = grape_open(path, O_RDONLY, 0)
  if file < 0, errno == ENOENT { return nil }
  guard file >= 0 else { throw StateError(.system, systemMessage("open \(path)")) }
  defer { close(file) }
  var bytes = [UInt8](repeating: 0, count: 4096)
  let count = read(file, &bytes, bytes.count)
  guard count >= 0 else { throw StateError(.system, systemMessage("read \(path)")) }
  return String(decoding: bytes[..<count], as: UTF8.self)
}

/// Replaces a small file: afterwards it has the new text, or, if the machine goes down, perhaps the old.
func writeFile(_ path: String, _ text: String) throws(StateError) {
  let draft = path + ".new"
  let file = grape_open(draft, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
  guard file >= 0 else { throw StateError(.system, systemMessage("open \(draft)")) }
  let bytes = Array(text.utf8)
  let written = bytes.withUnsafeBytes { write(file, $0.baseAddress, $0.count) }
  let isSafe = written == bytes.count && fdatasync(file) == 0
  let problem = systemMessage("write \(draft)")
  guard close(file) == 0, isSafe else { throw StateError(.system, problem) }
  guard rename(draft, path) == 0 else { throw StateError(.system, systemMessage("rename \(draft)")) }
}

func fileSize(_ path: String) throws(StateError) -> Int {
  var information = stat()
  guard stat(path, &information) == 0 else {
    throw StateError(errno == ENOENT ? .notFound : .system, systemMessage("stat \(path)"))
  }
  return Int(information.st_size)
}
