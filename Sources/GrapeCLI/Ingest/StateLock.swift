import CGrapeLinux
import Glibc

/// Holds a state file for one command at a time, by a lock on a file beside it.
///
/// The lock ends with the process, however that ends. The file is removed by `release`.
final class StateLock {
  private let path: String
  private let descriptor: Int32

  /// Throws `conflict` if another process works with the state.
  init(state: String) throws {
    path = state + ".lock"
    while true {
      let descriptor = grape_open(path, O_RDWR | O_CREAT, 0o644)
      guard descriptor >= 0 else {
        throw CommandFailure(.failure, "cannot write \(path): \(String(cString: strerror(errno)))")
      }
      guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
        close(descriptor)
        throw CommandFailure(
          .conflict, "another ingest is working with \(state); wait for it, or name another state with --state")
      }
      // The one that held it may have removed the file in between: then this is no lock that others see.
      var held = stat()
      var named = stat()
      if fstat(descriptor, &held) == 0, stat(path, &named) == 0, held.st_ino == named.st_ino,
        held.st_dev == named.st_dev
      {
        self.descriptor = descriptor
        return
      }
      close(descriptor)
    }
  }

  func release() { unlink(path) }

  deinit { close(descriptor) }
}
