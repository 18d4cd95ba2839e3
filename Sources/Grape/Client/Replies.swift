internal import GrapeCore
internal import GrapeWire
internal import Synchronization

/// The replies to a blocking event as they come: `Client.replies`.
public struct Replies: AsyncSequence, Sendable {
  public typealias Element = CallReply

  let loop: ClientLoop
  let timeout: Duration
  let limit: Int
  let frame: @Sendable (UInt64) -> ByteSlice

  init(loop: ClientLoop, timeout: Duration, limit: Int, frame: @escaping @Sendable (UInt64) -> ByteSlice) {
    self.loop = loop
    self.timeout = timeout
    self.limit = limit
    self.frame = frame
  }

  public func makeAsyncIterator() -> Iterator { Iterator(self) }

  /// Sends the event with the first `next`; gives the call up when it is let go of before the final reply.
  public struct Iterator: AsyncIteratorProtocol {
    private let replies: Replies
    private var call: ReplyCall?

    init(_ replies: Replies) { self.replies = replies }

    /// The next reply; nil after the final one.
    public mutating func next() async throws -> CallReply? {
      if call == nil { call = ReplyCall(replies) }
      guard let call, let answer = try await call.next() else { return nil }
      let reply = try answer.reply()
      if let failure = reply.failure { throw failure }
      return reply
    }
  }
}

/// A call under way: cancelled with the last reference.
final class ReplyCall: Sendable {
  private let loop: ClientLoop
  private let id: UInt64
  private let buffer: ReplyBuffer

  init(_ replies: Replies) {
    loop = replies.loop
    id = loop.nextID()
    buffer = ReplyBuffer(limit: replies.limit)
    let frame = replies.frame(id)
    loop.submit(
      ClientRequest(
        id: id, frame: [frame], size: frame.count, deadline: ContinuousClock.now + replies.timeout, isCancellable: true,
        receiver: .replies(buffer)))
  }

  deinit { loop.cancel(id) }

  func next() async throws -> ReceivedFrame? {
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { buffer.wait($0) }
    } onCancel: {
      loop.cancel(id)
    }
  }
}

/// A bounded queue between the client's thread and one reader.
final class ReplyBuffer: Sendable {
  private struct State {
    var answers: [ReceivedFrame] = []
    var end: Result<Void, any Error>?
    var reader: CheckedContinuation<ReceivedFrame?, any Error>?
  }

  private let limit: Int
  private let state = Mutex(State())

  init(limit: Int) { self.limit = limit }

  /// Takes an answer; false if the buffer is full.
  func take(_ answer: ReceivedFrame, isFinal: Bool) -> Bool {
    let (taken, reader) = state.withLock { state -> (Bool, CheckedContinuation<ReceivedFrame?, any Error>?) in
      guard state.end == nil else { return (true, nil) }
      if let reader = state.reader {
        state.reader = nil
        if isFinal { state.end = .success(()) }
        return (true, reader)
      }
      guard isFinal || state.answers.count < limit else { return (false, nil) }
      state.answers.append(answer)
      if isFinal { state.end = .success(()) }
      return (true, nil)
    }
    reader?.resume(returning: answer)
    return taken
  }

  /// Ends the queue with an error; what is in it can still be read.
  func finish(_ error: any Error) {
    let reader = state.withLock { state in
      defer { state.reader = nil }
      // A reader that waits is told now; one that comes later finds the error.
      if state.end == nil { state.end = state.reader == nil ? .failure(error) : .success(()) }
      return state.reader
    }
    reader?.resume(throwing: error)
  }

  /// Resumes the reader with the next answer, once there is one. One reader at a time.
  func wait(_ reader: CheckedContinuation<ReceivedFrame?, any Error>) {
    let outcome: Result<ReceivedFrame?, any Error>? = state.withLock { state in
      if !state.answers.isEmpty { return .success(state.answers.removeFirst()) }
      switch state.end {
      case .success: return .success(nil)
      case .failure(let error):
        // Told once; after that the sequence is at its end.
        state.end = .success(())
        return .failure(error)
      case nil:
        precondition(state.reader == nil, "replies are read by one task at a time")
        state.reader = reader
        return nil
      }
    }
    if let outcome { reader.resume(with: outcome) }
  }
}
