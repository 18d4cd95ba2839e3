import CGrapeLinux
import Glibc
import GrapeCore

/// Standard output, collected in large pieces, and standard error.
///
/// Only the main thread writes. A reader that went away (`grape tail | head`) ends the process by SIGPIPE, quietly.
enum Output {
  nonisolated(unsafe) private static var buffer: [UInt8] = []
  private static let flushSize = 64 * 1024

  /// Whether standard output is a terminal.
  static var isTerminal: Bool { isatty(1) == 1 }
  /// Whether standard error is a terminal.
  static var errorIsTerminal: Bool { isatty(2) == 1 }

  static func write(_ text: String) {
    buffer += text.utf8
    if buffer.count >= flushSize { flushQuietly() }
  }

  static func write(_ bytes: UnsafeRawBufferPointer) {
    buffer += bytes
    if buffer.count >= flushSize { flushQuietly() }
  }

  static func line(_ text: String) {
    buffer += text.utf8
    buffer.append(0x0a)
    if buffer.count >= flushSize { flushQuietly() }
  }

  /// Remembered until the next `flush`, which throws it.
  nonisolated(unsafe) private static var failure: CommandFailure?

  /// Writes what was collected. Throws if standard output could not be written, now or earlier.
  static func flush() throws {
    flushQuietly()
    if let failure { throw failure }
  }

  static func flushQuietly() {
    guard !buffer.isEmpty else { return }
    if failure == nil, let reason = writeAll(1, buffer) {
      failure = CommandFailure(.failure, "cannot write to standard output: \(reason)")
    }
    buffer.removeAll(keepingCapacity: true)
  }

  /// One line on standard error.
  static func complain(_ text: String) { _ = writeAll(2, Array((text + "\n").utf8)) }

  /// Text on standard error as it is.
  static func writeError(_ text: String) { _ = writeAll(2, Array(text.utf8)) }

  /// nil, or why it failed.
  private static func writeAll(_ descriptor: Int32, _ bytes: [UInt8]) -> String? {
    bytes.withUnsafeBytes { bytes in
      var position = 0
      while position < bytes.count {
        let count = Glibc.write(descriptor, bytes.baseAddress! + position, bytes.count - position)
        if count >= 0 {
          position += count
        } else if errno == EAGAIN {
          // A non-blocking terminal or pipe that somebody shares with us.
          var entry = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
          _ = poll(&entry, 1, 1000)
        } else if errno != EINTR {
          return String(cString: strerror(errno))
        }
      }
      return nil
    }
  }

  /// Columns of the terminal at `descriptor`; nil if it is none or does not say.
  static func terminalWidth(_ descriptor: Int32) -> Int? {
    guard isatty(descriptor) == 1 else { return nil }
    var size = winsize()
    guard ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return nil }
    return Int(size.ws_col)
  }
}
