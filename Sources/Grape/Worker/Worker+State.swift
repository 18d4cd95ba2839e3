internal import CGrapeLinux
internal import Glibc
internal import GrapeCore
internal import GrapeState
internal import GrapeWire

/// Questions about state: the worker's thread asks and waits, in the middle of a handler. Other frames that come meanwhile are kept for later.
extension Worker: StateAuthority {
  /// An answer must have come within this time, in milliseconds.
  private static let answerMilliseconds: Int64 = 30_000

  func ask(_ question: ByteSlice) throws(StateError) -> ByteSlice {
    lastQuestion += 1
    let id = lastQuestion
    try sendQuestion(question, id)
    mayHoldFrames = true
    let deadline = grape_monotonic_ns() / 1_000_000 + Self.answerMilliseconds
    while true {
      if let answer = try nextAnswer(to: id) { return try answer.get() }
      switch receiver.receive() {
      case .received: liveness.hear()
      case .closed: throw StateError(.unavailable, "the connection to the node ended while it was asked about state")
      case .wouldBlock: try waitForNode(until: deadline)
      }
    }
  }

  /// What the frames at hand say to the question; nil: nothing.
  private func nextAnswer(to id: UInt64) throws(StateError) -> Result<ByteSlice, StateError>? {
    do throws(WireError) {
      while let frame = try receiver.next() {
        if let answer = try answer(frame, to: id) { return answer }
      }
      return nil
    } catch {
      // The worker's loop meets the same, and ends the worker.
      throw StateError(.unavailable, "the node sent a frame that breaks the protocol: \(error.message)")
    }
  }

  private func sendQuestion(_ question: ByteSlice, _ id: UInt64) throws(StateError) {
    var head = ByteWriter(capacity: FrameHeader.size + question.count)
    let start = head.beginFrame(.state, id: id)
    head.bytes(question.unsafeBytes)
    head.endFrame(start)
    let bytes = head.finish()
    var pieces = [
      iovec(iov_base: UnsafeMutableRawPointer(mutating: bytes.unsafeBytes.baseAddress), iov_len: bytes.count)
    ]
    let outcome = sender.send(&pieces)
    withExtendedLifetime(bytes) {}
    guard case .sent = outcome else {
      throw StateError(.unavailable, "the connection to the node ended when it was to be asked about state")
    }
  }

  /// What a frame says to the question; nil: it is about something else.
  private func answer(
    _ frame: FrameReceiver.Frame, to id: UInt64
  ) throws(WireError) -> Result<ByteSlice, StateError>? {
    switch frame.header.type {
    case .stated where frame.header.id == id: return .success(frame.body)
    case .error where frame.header.id == id:
      let document = try? JSONValue(parsing: frame.body.unsafeBytes)
      let message = document?["message"]?.string ?? frame.body.string
      return .failure(StateError(.unavailable, "the node does not answer about state: \(message)"))
    case .stated where isLate(frame.header.id), .error where isLate(frame.header.id), .heartbeat: return nil
    default:
      postponed.append(frame)
      guard postponed.count <= postponedLimit else {
        throw WireError(.malformed, "\(postponed.count) frames came while an answer about state was expected")
      }
      return nil
    }
  }

  /// The answer to a question that nobody waits for any more.
  func isLate(_ id: UInt64) -> Bool { id != 0 && id <= lastQuestion }

  private func waitForNode(until deadline: Int64) throws(StateError) {
    let left = deadline - grape_monotonic_ns() / 1_000_000
    guard left > 0 else {
      throw StateError(
        .unavailable, "the node did not answer a question about state within \(Self.answerMilliseconds / 1000) s")
    }
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    _ = poll(&entry, 1, Int32(clamping: left))
  }
}
