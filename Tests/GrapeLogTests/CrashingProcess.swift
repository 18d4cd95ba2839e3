import CGrapeLinux
import Glibc

/// A process that is read from and then killed. Descriptors are close-on-exec from their birth, so that processes that other tests start
/// at the same time do not hold the pipe open; every wait has an end.
struct CrashingProcess {
  struct Failure: Error { var message: String }

  private let pid: pid_t
  private let output: Int32

  init(_ program: String, _ arguments: [String]) throws {
    var ends: [Int32] = [0, 0]
    guard grape_pipe(&ends) == 0 else { throw Failure(message: "pipe: \(errno)") }
    defer { close(ends[1]) }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1)
    var words: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) }
    defer { for word in words { free(word) } }
    words.append(nil)
    var pid: pid_t = 0
    let result = posix_spawn(&pid, program, &actions, nil, words, environ)
    guard result == 0 else {
      close(ends[0])
      throw Failure(message: "posix_spawn \(program): \(result)")
    }
    self.pid = pid
    output = ends[0]
  }

  /// What it has written next; empty at the end. Waits 60 seconds at most.
  func read() throws -> [UInt8] {
    var waiting = pollfd(fd: output, events: Int16(POLLIN), revents: 0)
    guard poll(&waiting, 1, 60_000) > 0 else { throw Failure(message: "nothing was written for 60 s") }
    var buffer = [UInt8](repeating: 0, count: 65_536)
    let count = Glibc.read(output, &buffer, buffer.count)
    guard count >= 0 else { throw Failure(message: "read: \(errno)") }
    return Array(buffer[0..<count])
  }

  /// Kills it, reaps it, and returns what was still in the pipe.
  func kill() throws -> [UInt8] {
    Glibc.kill(pid, SIGKILL)
    var status: Int32 = 0
    while waitpid(pid, &status, 0) < 0, errno == EINTR {}
    guard status & 0x7f == SIGKILL else { throw Failure(message: "it had ended before, status \(status)") }
    var rest: [UInt8] = []
    while true {
      let piece = try read()
      if piece.isEmpty { break }
      rest += piece
    }
    close(output)
    return rest
  }
}
