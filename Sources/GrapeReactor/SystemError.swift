internal import CGrapeLinux
internal import Glibc

/// A system call that failed.
public struct SystemError: Error, Sendable, CustomStringConvertible {
  /// The system's error number.
  public var errno: Int32
  /// What was tried and on what, for instance `bind node.sock`.
  public var operation: String

  public init(_ operation: String, errno: Int32) {
    self.operation = operation
    self.errno = errno
  }

  /// The system's name for the error number.
  public var reason: String { String(cString: strerror(errno)) }
  public var description: String { "\(operation): \(reason)" }
}

/// Repeats `call` while a signal interrupts it; throws on its failure.
@discardableResult
package func system<Result: SignedInteger>(
  _ operation: @autoclosure () -> String, _ call: () -> Result
) throws(SystemError) -> Result {
  while true {
    let result = call()
    if result >= 0 { return result }
    let error = errno
    if error == EINTR { continue }
    // A descriptor or address that is not ours to use is a fault in this program, not in its world.
    precondition(error != EBADF && error != EFAULT, "\(operation()): \(String(cString: strerror(error)))")
    throw SystemError(operation(), errno: error)
  }
}
