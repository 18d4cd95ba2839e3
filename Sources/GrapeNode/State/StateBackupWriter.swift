internal import CGrapeLinux
internal import GrapeCore
internal import GrapeStore
internal import GrapeWire
internal import Glibc

/// Writes a backup: everything into `DIRECTORY.partial`, which becomes `DIRECTORY` when all of it is on the disk. Whoever finds `DIRECTORY` finds a
/// complete backup.
struct StateBackupWriter {
  private let directory: String
  private var draft: String { directory + ".partial" }
  private var names: [String] = []

  /// Makes the draft. `invalidArgument` if the directory is there already.
  init(_ directory: String) throws(StateError) {
    self.directory = directory
    guard access(directory, F_OK) != 0 else {
      throw StateError(.invalidArgument, "\(directory) is there already: a backup goes into a new directory")
    }
    try Self.removeLeftover(directory + ".partial")
    guard mkdir(directory + ".partial", 0o700) == 0 else { throw StateBackup.failure("mkdir \(directory).partial") }
  }

  /// What a backup that was killed left, and nothing else.
  private static func removeLeftover(_ draft: String) throws(StateError) {
    guard let folder = opendir(draft) else {
      if errno == ENOENT { return }
      throw StateBackup.failure("opendir \(draft)")
    }
    var found: [String] = []
    while let entry = readdir(folder) {
      let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      if name != ".", name != ".." { found.append(name) }
    }
    closedir(folder)
    for name in found where name.hasSuffix(".mdb") || name == StateBackup.manifestName {
      guard unlink("\(draft)/\(name)") == 0 else { throw StateBackup.failure("unlink \(draft)/\(name)") }
    }
    guard rmdir(draft) == 0 else { throw StateBackup.failure("rmdir \(draft), left by a backup that was broken off") }
  }

  /// Copies a partition's state; nil: nothing was ever written in it.
  mutating func add(
    _ snapshot: (any StateSnapshot)?, partition: Int32, taken: Int64, progress: (String, Int, Int) -> Bool
  ) throws(StateError) -> StateBackup.Partition {
    guard let snapshot else {
      return StateBackup.Partition(
        partition: partition, file: nil, changelog: 0, processed: 0, entries: 0, bytes: 0, sha256: "")
    }
    let name = "\(partition).mdb"
    names.append(name)
    let path = "\(draft)/\(name)"
    let count = snapshot.count
    try StateCopy.write(snapshot, to: path, taken: taken) { progress("copying", $0, count) }
    let size = snapshot.byteCount
    let (bytes, hash) = try StateBackup.hash(of: path) { progress("hashing", $0, size) }
    return StateBackup.Partition(
      partition: partition, file: name, changelog: snapshot.position.changelog, processed: snapshot.position.processed,
      entries: count, bytes: bytes, sha256: hash)
  }

  /// Writes the manifest, and gives the backup its name.
  mutating func finish(_ backup: StateBackup) throws(StateError) {
    names.append(StateBackup.manifestName)
    let path = "\(draft)/\(StateBackup.manifestName)"
    let file = grape_open(path, O_WRONLY | O_CREAT | O_EXCL, 0o600)
    guard file >= 0 else { throw StateBackup.failure("open \(path)") }
    defer { close(file) }
    do throws(NodeError) {
      try ByteSlice(backup.json.prettyText + "\n").withUnsafeBytes { (bytes) throws(NodeError) in
        try Files.append(bytes, to: file, path: path)
      }
    } catch {
      throw StateError(.system, error.message)
    }
    guard fsync(file) == 0 else { throw StateBackup.failure("fsync \(path)") }
    try Self.synchronise(draft)
    // Not over another that came meanwhile.
    guard grape_rename_new(draft, directory) == 0 else { throw StateBackup.failure("rename \(draft)") }
    try Self.synchronise(Self.parent(of: directory))
  }

  /// Removes what was made.
  func abandon() {
    for name in names { unlink("\(draft)/\(name)") }
    rmdir(draft)
  }

  private static func parent(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/"), slash > path.startIndex else { return "/" }
    return String(path[..<slash])
  }

  private static func synchronise(_ directory: String) throws(StateError) {
    let file = grape_open(directory, O_RDONLY | O_DIRECTORY, 0)
    guard file >= 0 else { throw StateBackup.failure("open \(directory)") }
    defer { close(file) }
    guard fsync(file) == 0 else { throw StateBackup.failure("fsync \(directory)") }
  }
}
