public import GrapeCore
public import GrapeWire

// One request at a time: sends it and waits for its answer. Not to be mixed with frames under way that the caller
// receives itself: an answer to another request is a `protocolViolation` here.
extension NodeConnection {
  /// Appends one event; returns once it is as durable as asked for.
  ///
  /// Throws `StatusError` if the node refuses it, `ClientError` if there is no answer.
  /// - Parameter expiry: not started any more when this much time has passed; nil: never expires.
  public func exec(
    _ event: OutgoingEvent, durability: AckDurability = .applicationDefault, expiry: Duration? = nil,
    timeout: Duration = .seconds(30)
  ) throws -> Receipt {
    let id = nextID()
    let deadline = ContinuousClock.now + timeout
    try send(
      ClientFrame.exec(
        event, id: id, durability: durability, blocking: false,
        timeoutMilliseconds: expiry.map { $0.protocolMilliseconds } ?? 0), until: deadline)
    let frame = try answer(to: id, until: deadline)
    if frame.type == .reply, let failure = try frame.reply().failure { throw failure }
    return try frame.receipt()
  }

  /// Sends one event and waits until its chain of handlers has answered. `progress` is called for replies before the
  /// last one. A reply with another status than ok is returned as it is.
  public func call(
    _ event: OutgoingEvent, durability: AckDurability = .applicationDefault, timeout: Duration = .seconds(30),
    progress: (CallReply) throws -> Void = { _ in }
  ) throws -> CallReply {
    let id = nextID()
    // The node keeps the time; the grace lets its answer arrive, which knows whether the handler ran.
    let deadline = ContinuousClock.now + timeout + .seconds(2)
    try send(
      ClientFrame.exec(
        event, id: id, durability: durability, blocking: true, timeoutMilliseconds: max(1, timeout.protocolMilliseconds)
      ),
      until: deadline)
    while true {
      let frame: ReceivedFrame
      do {
        frame = try answer(to: id, until: deadline)
      } catch let error as ClientError where error.code == .deadlineExceeded {
        throw StatusError(.deadlineExceeded, "no reply from \(event.target) within \(timeout)", ran: .unknown)
      }
      let reply = try frame.reply()
      if reply.isFinal { return reply }
      try progress(reply)
    }
  }

  /// Reads a partition from `offset` on (-1: the end, -2: the first there is), waiting up to `wait` for something to come.
  public func fetch(
    topic: String, partition: Int32, offset: Int64, maxBytes: Int = 1 << 20, wait: Duration = .zero,
    timeout: Duration = .seconds(30)
  ) throws -> FetchResult {
    let id = nextID()
    let deadline = ContinuousClock.now + timeout + wait
    try send(
      ClientFrame.fetch(
        topic: topic, partition: partition, offset: offset, maxBytes: UInt32(clamping: maxBytes),
        waitMilliseconds: wait.protocolMilliseconds, id: id), until: deadline)
    return try answer(to: id, until: deadline).fetchResult()
  }

  /// Runs an administrative operation (docs/admin.md).
  public func request(
    _ op: String, _ members: [JSONValue.Member] = [], blob: ByteSlice? = nil, timeout: Duration = .seconds(30)
  ) throws -> AdminResponse {
    let id = nextID()
    let deadline = ContinuousClock.now + timeout
    try send(ClientFrame.request(op, members, blob: blob, id: id), until: deadline)
    return try answer(to: id, until: deadline).adminResponse()
  }

  /// Waits for the answer to `id`; an ERROR is thrown as `StatusError`.
  private func answer(to id: UInt64, until deadline: ContinuousClock.Instant) throws -> ReceivedFrame {
    while true {
      let frame = try receive(until: deadline)
      // Answers to requests that were given up (their time ran out) may still come.
      guard frame.id >= id else { continue }
      guard frame.id == id else {
        throw ClientError(.protocolViolation, "the node answered request \(frame.id), which was not sent")
      }
      if let failure = frame.failure { throw failure }
      return frame
    }
  }
}

extension Duration {
  /// Whole milliseconds, rounded up, within the range of an unsigned 32-bit number.
  public var protocolMilliseconds: UInt32 {
    let (seconds, attoseconds) = components
    guard seconds >= 0, attoseconds >= 0 else { return 0 }
    guard seconds < 4_000_000 else { return UInt32.max }
    return UInt32(clamping: seconds * 1000 + (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000)
  }
}
