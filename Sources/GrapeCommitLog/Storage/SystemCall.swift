import CGrapeLinux
import Glibc
import GrapeLog

/// The one place where system calls of the log are made: retried when interrupted, failures told with the path.
enum SystemCall {
  static func run(_ name: StaticString, _ path: String, _ body: () -> Int) throws(LogError) -> Int {
    while true {
      let result = body()
      if result >= 0 { return result }
      let code = errno
      if code == EINTR { continue }
      // Our own bugs, which no retry or message to a user can mend.
      precondition(code != EBADF && code != EFAULT, "\(name) on a descriptor or memory that is not ours")
      throw failure(name, path, code)
    }
  }

  static func failure(_ name: StaticString, _ path: String, _ code: Int32) -> LogError {
    let advice =
      switch code {
      case ENOSPC, EDQUOT: "; free some space"
      case EROFS: "; the file system is read-only"
      case EACCES, EPERM: "; check the owner and the permissions"
      case EMFILE, ENFILE: "; raise the limit of open files"
      default: ""
      }
    let kind = code == ENOSPC || code == EDQUOT ? LogError.Code.noSpace : .failed
    return LogError(kind, "\(name) \(path): \(describe(code))\(advice)")
  }

  static func describe(_ code: Int32) -> String { String(cString: strerror(code)) }

  static let clock = LogClock(
    wallMilliseconds: { grape_realtime_ms() }, monotonicNanoseconds: { grape_monotonic_ns() })
}
