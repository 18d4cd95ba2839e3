internal import Glibc
internal import GrapeWire
internal import Synchronization

/// Writes whole frames to the node's socket from two threads: the worker's, which waits, and the heartbeat's, which
/// never does.
final class FrameSender: Sendable {
  enum Outcome {
    case sent
    /// Not a byte was written, and will be.
    case busy
    /// The connection is gone.
    case closed
  }

  private let descriptor: Int32
  /// Rest of a frame that was begun and must be ended before any other.
  private let unsent = Mutex<[UInt8]>([])

  /// Takes over the socket, which is closed once neither thread has use for it.
  init(descriptor: Int32) { self.descriptor = descriptor }

  deinit { close(descriptor) }

  /// Writes all `pieces`, waiting for the node as long as it takes: the heartbeat's thread watches that.
  func send(_ pieces: inout [iovec]) -> Outcome {
    unsent.withLock { unsent in
      if !unsent.isEmpty {
        let isSent = unsent.withUnsafeMutableBytes { bytes in
          var rest = [iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)]
          return write(&rest, flags: 0) == bytes.count
        }
        guard isSent else { return .closed }
        unsent = []
      }
      let total = pieces.reduce(0) { $0 + $1.iov_len }
      return write(&pieces, flags: 0) == total ? .sent : .closed
    }
  }

  /// Writes `bytes` (whole frames) if the socket takes them at once and nobody else is writing.
  func trySend(_ bytes: [UInt8]) -> Outcome {
    unsent.withLockIfAvailable { unsent -> Outcome in
      guard unsent.isEmpty else { return .busy }
      return bytes.withUnsafeBytes { bytes in
        var pieces = [iovec(iov_base: UnsafeMutableRawPointer(mutating: bytes.baseAddress), iov_len: bytes.count)]
        let count = write(&pieces, flags: Int32(MSG_DONTWAIT))
        if count < 0 { return .closed }
        if count == 0 { return .busy }
        if count < bytes.count { unsent = [UInt8](bytes[count...]) }
        return .sent
      }
    } ?? .busy
  }

  /// Bytes written before the socket had enough (with MSG_DONTWAIT only); -1 if the connection is gone.
  private func write(_ pieces: inout [iovec], flags: Int32) -> Int {
    var written = 0
    var index = 0
    return pieces.withUnsafeMutableBufferPointer { pieces in
      while index < pieces.count {
        if pieces[index].iov_len == 0 {
          index += 1
          continue
        }
        var message = msghdr()
        message.msg_iov = pieces.baseAddress.unsafelyUnwrapped + index
        message.msg_iovlen = min(pieces.count - index, 1024)
        var count = sendmsg(descriptor, &message, flags | Int32(MSG_NOSIGNAL))
        if count < 0 {
          if errno == EINTR { continue }
          return errno == EAGAIN ? written : -1
        }
        written += count
        while count > 0 {
          let step = min(count, pieces[index].iov_len)
          pieces[index].iov_base += step
          pieces[index].iov_len -= step
          count -= step
          if pieces[index].iov_len == 0 { index += 1 }
        }
      }
      return written
    }
  }
}
