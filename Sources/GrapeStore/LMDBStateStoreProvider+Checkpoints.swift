internal import CGrapeLinux
internal import Glibc
public import GrapeState

/// Checkpoints: a copy `ROOT/APP/PARTITION.checkpoint` beside the store's folder.
extension LMDBStateStoreProvider {
  private func checkpoint(_ app: String, _ partition: Int32) -> String { folder(app, partition) + ".checkpoint" }

  public func checkpointTime(_ app: String, partition: Int32) -> Int64? {
    var information = stat()
    guard stat(checkpoint(app, partition), &information) == 0 else { return nil }
    return Int64(information.st_mtim.tv_sec) * 1000
  }

  public func keepCheckpoint(
    _ snapshot: any StateSnapshot, of app: String, partition: Int32, taken: Int64
  ) throws(StateError) {
    let path = checkpoint(app, partition)
    let draft = path + ".new"
    try Self.removeFile(draft)
    try StateCopy.write(snapshot, to: draft, taken: taken)
    guard rename(draft, path) == 0 else { throw StateError(.system, systemMessage("rename \(draft)")) }
    let parent = grape_open(directory(of: app) ?? path, O_RDONLY | O_DIRECTORY, 0)
    guard parent >= 0 else { throw StateError(.system, systemMessage("open \(path)'s folder")) }
    defer { close(parent) }
    guard fsync(parent) == 0 else { throw StateError(.system, systemMessage("fsync \(path)'s folder")) }
  }

  public func openCheckpoint(
    _ app: String, partition: Int32, taken: ClosedRange<Int64>, discarded: (String) -> Void
  ) throws(StateError) -> (any StateStore)? {
    let path = checkpoint(app, partition)
    guard access(path, F_OK) == 0 else { return nil }
    do throws(StateError) {
      let content = try StateCopy.check(path)
      guard content.takenAt >= taken.lowerBound else {
        throw StateError(.corrupt, "\(path) is too old: removals of entries since then may not be in the changelog")
      }
      guard content.takenAt <= taken.upperBound else {
        throw StateError(.corrupt, "\(path) says that it was taken at a time that is yet to come")
      }
      return try make(folder(app, partition)) { (draft) throws(StateError) in
        try copyFile(path, to: draft + "/data.mdb")
      }
    } catch {
      guard error.code == .corrupt || error.code == .notFound || error.code == .unsupported else { throw error }
      discarded(error.message)
      try remove(app, partition: partition)
      try removeCheckpoint(app, partition: partition)
      return nil
    }
  }

  public func removeCheckpoint(_ app: String, partition: Int32) throws(StateError) {
    try Self.removeFile(checkpoint(app, partition))
  }
}

/// Copies a file to a new one. It is not put on the disk.
private func copyFile(_ path: String, to target: String) throws(StateError) {
  let source = grape_open(path, O_RDONLY, 0)
  guard source >= 0 else { throw StateError(.system, systemMessage("open \(path)")) }
  defer { close(source) }
  let file = grape_open(target, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
  guard file >= 0 else { throw StateError(.system, systemMessage("open \(target)")) }
  defer { close(file) }
  var buffer = [UInt8](repeating: 0, count: 1024 * 1024)
  while true {
    let count = read(source, &buffer, buffer.count)
    if count < 0, errno == EINTR { continue }
    guard count >= 0 else { throw StateError(.system, systemMessage("read \(path)")) }
    if count == 0 { return }
    var done = 0
    while done < count {
      let written = buffer.withUnsafeBytes { write(file, $0.baseAddress! + done, count - done) }
      if written < 0, errno == EINTR { continue }
      guard written >= 0 else { throw StateError(.system, systemMessage("write \(target)")) }
      done += written
    }
  }
}
