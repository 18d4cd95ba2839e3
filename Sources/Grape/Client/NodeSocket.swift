internal import CGrapeLinux
internal import Glibc
internal import GrapeWire

/// A non-blocking Unix stream socket to a node; closed when the last reference goes.
final class NodeSocket: Sendable {
  let descriptor: Int32

  /// Connects. Throws `unreachable` with what to do.
  init(path: String) throws(ClientError) {
    descriptor = grape_unix_connect(path)
    guard descriptor >= 0 else {
      let code = errno
      let reason = String(cString: strerror(code))
      let advice =
        switch code {
        case ENOENT, ECONNREFUSED: "is `grape serve` running?"
        case EACCES, EPERM: "the socket belongs to another user"
        case ENAMETOOLONG: "a socket's path has at most 107 bytes"
        default: "the path must name the node's socket"
        }
      throw ClientError(.unreachable, "cannot reach the node at \(path): \(reason); \(advice)")
    }
    guard grape_set_nonblocking(descriptor, true) == 0 else {
      let reason = String(cString: strerror(errno))
      close(descriptor)
      throw ClientError(.unreachable, "cannot reach the node at \(path): \(reason)")
    }
    // Best effort: the kernel's limit decides, and smaller buffers only cost speed.
    _ = grape_socket_buffers(descriptor, 1 << 20)
  }

  deinit { close(descriptor) }

  /// Ends both directions; whoever waits on the socket wakes.
  func shutDown() { _ = shutdown(descriptor, Int32(SHUT_RDWR)) }

  /// What one attempt to read or write achieved.
  enum Transfer {
    case moved(Int)
    case wouldBlock
    /// The peer closed, or the connection broke.
    case ended(String)
  }

  /// Reads what is there.
  func read(into room: UnsafeMutableRawBufferPointer) -> Transfer {
    while true {
      let count = recv(descriptor, room.baseAddress, room.count, 0)
      if count > 0 { return .moved(count) }
      if count == 0 { return .ended("the node closed the connection") }
      let code = errno
      if code == EINTR { continue }
      if code == EAGAIN { return .wouldBlock }
      return .ended("the connection to the node broke: \(String(cString: strerror(code)))")
    }
  }

  /// Writes as much of the pieces, from byte `skip` of `pieces[first]` on, as the socket takes.
  func write(_ pieces: [ByteSlice], first: Int, skip: Int) -> Transfer {
    // IOV_MAX is 1,024; 64 pieces are plenty for one call.
    withUnsafeTemporaryAllocation(of: iovec.self, capacity: 64) { vectors in
      var count = 0
      var index = first
      while index < pieces.count, count < 64 {
        let bytes = pieces[index].unsafeBytes
        let offset = index == first ? skip : 0
        if bytes.count > offset {
          vectors[count] = iovec(
            iov_base: UnsafeMutableRawPointer(mutating: bytes.baseAddress! + offset), iov_len: bytes.count - offset)
          count += 1
        }
        index += 1
      }
      var message = msghdr()
      message.msg_iov = vectors.baseAddress
      message.msg_iovlen = count
      while true {
        let sent = sendmsg(descriptor, &message, Int32(MSG_NOSIGNAL))
        if sent >= 0 { return .moved(sent) }
        let code = errno
        if code == EINTR { continue }
        if code == EAGAIN { return .wouldBlock }
        return .ended("the connection to the node broke: \(String(cString: strerror(code)))")
      }
    }
  }
}

/// Bytes on their way out: pieces, and how far they have been written.
struct OutgoingBytes {
  private var pieces: [ByteSlice] = []
  private var first = 0
  private var skip = 0

  var isEmpty: Bool { first == pieces.count }

  mutating func append(_ more: [ByteSlice]) {
    if isEmpty { reset() }
    pieces += more
  }

  mutating func append(_ piece: ByteSlice) {
    if isEmpty { reset() }
    pieces.append(piece)
  }

  private mutating func reset() {
    pieces.removeAll(keepingCapacity: true)
    first = 0
    skip = 0
  }

  /// Writes as much as the socket takes: `.moved` only once all is written.
  mutating func write(to socket: NodeSocket) -> NodeSocket.Transfer {
    while !isEmpty {
      switch socket.write(pieces, first: first, skip: skip) {
      case .moved(let count): advance(count)
      case .wouldBlock: return .wouldBlock
      case .ended(let reason): return .ended(reason)
      }
    }
    reset()
    return .moved(0)
  }

  private mutating func advance(_ count: Int) {
    var left = count
    while first < pieces.count, left >= pieces[first].count - skip {
      left -= pieces[first].count - skip
      skip = 0
      first += 1
    }
    skip += left
    // Written pieces are let go of now and then, so that a long queue does not keep what it has sent.
    if first >= 1024, first < pieces.count {
      pieces.removeFirst(first)
      first = 0
    }
  }
}

/// Waits for descriptors with poll(2).
enum Poll {
  static let readable = Int16(POLLIN)
  static let writable = Int16(POLLOUT)

  /// Milliseconds until `deadline`, rounded up; -1 without one.
  static func timeout(until deadline: ContinuousClock.Instant?) -> Int32 {
    guard let deadline else { return -1 }
    let left = deadline - ContinuousClock.now
    guard left > .zero else { return 0 }
    let (seconds, attoseconds) = left.components
    return Int32(clamping: min(seconds, 1_000_000) * 1000 + (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000)
  }

  /// Waits for one of two descriptors; a negative one is left out. Returns the events seen, zero for both when the time ran out.
  static func wait(
    _ descriptor: Int32, _ events: Int16, or second: Int32 = -1, until deadline: ContinuousClock.Instant?
  ) -> (first: Int16, second: Int16) {
    withUnsafeTemporaryAllocation(of: pollfd.self, capacity: 2) { set in
      while true {
        set[0] = pollfd(fd: descriptor, events: events, revents: 0)
        set[1] = pollfd(fd: second, events: readable, revents: 0)
        let count = poll(set.baseAddress, 2, timeout(until: deadline))
        if count < 0, errno == EINTR { continue }
        precondition(count >= 0, "poll failed: \(String(cString: strerror(errno)))")
        return (set[0].revents, set[1].revents)
      }
    }
  }
}
