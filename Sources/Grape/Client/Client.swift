public import GrapeCore
public import GrapeWire

/// A client of a node for concurrent code: any number of tasks share one connection and one thread.
///
/// Requests beyond the window wait for their turn, in order. Every request has a deadline; cancelling the task that
/// waits gives the request up. All operations throw `StatusError` if the node (or a handler) refuses,
/// `ClientError` if there is no answer to be had, `CancellationError` if their task was cancelled.
public final class Client: Sendable {
  /// Limits of a client.
  public struct Configuration: Sendable {
    public var agent = "grape-swift/0.1"
    /// Requests under way at most; 1 or more.
    public var window = 1024
    /// Bytes of requests under way at most; a single larger request still goes, alone.
    public var windowBytes = 64 << 20
    /// Deadline of requests that state none.
    public var timeout: Duration = .seconds(30)
    /// Time for connecting and the handshake.
    public var connectTimeout: Duration = .seconds(10)

    public init() {}
  }

  /// What the node said when the connection was opened.
  public let welcome: NodeWelcome
  private let configuration: Configuration
  private let loop: ClientLoop

  /// Connects to the node's socket.
  public init(path: String, configuration: Configuration = .init()) async throws {
    self.configuration = configuration
    loop = try await ClientLoop.start(path: path, configuration: configuration)
    welcome = loop.welcome
  }

  deinit { loop.close() }

  /// Gives up all requests under way with `closed` and ends the connection. Idempotent.
  public func close() { loop.close() }

  // MARK: Events

  /// Appends one event; returns once it is as durable as asked for.
  /// - Parameter expiry: not started any more when this much time has passed; nil: never expires.
  public func exec(
    _ event: OutgoingEvent, durability: AckDurability = .applicationDefault, expiry: Duration? = nil,
    timeout: Duration? = nil
  ) async throws -> Receipt {
    let id = loop.nextID()
    let frame = ClientFrame.exec(
      event, id: id, durability: durability, blocking: false,
      timeoutMilliseconds: expiry.map { $0.protocolMilliseconds } ?? 0)
    let answer = try await send([frame], id: id, timeout: timeout, isCancellable: false)
    if answer.type == .reply, let failure = try answer.reply().failure { throw failure }
    return try answer.receipt()
  }

  /// Sends one event and waits for the final reply of its chain of handlers. Earlier replies are left out: `replies` brings them.
  public func call(
    _ event: OutgoingEvent, durability: AckDurability = .applicationDefault, timeout: Duration? = nil
  ) async throws -> CallReply {
    let timeout = timeout ?? configuration.timeout
    let id = loop.nextID()
    let frame = blockingExec(event, id: id, durability: durability, timeout: timeout)
    // The node keeps the time; the grace lets its answer arrive, which knows whether the handler ran.
    let reply = try await send([frame], id: id, timeout: timeout + .seconds(2), isCancellable: true).reply()
    if let failure = reply.failure { throw failure }
    return reply
  }

  /// Sends one event and gives all replies as they come, the final one last. A reply with another status than ok ends
  /// the sequence by being thrown.
  ///
  /// The event is sent when the iteration begins; a new iteration sends it again. A reader that falls more than `buffer` replies
  /// behind gets `queueFull`.
  public func replies(
    _ event: OutgoingEvent, durability: AckDurability = .applicationDefault, timeout: Duration? = nil, buffer: Int = 256
  ) -> Replies {
    let timeout = timeout ?? configuration.timeout
    return Replies(loop: loop, timeout: timeout + .seconds(2), limit: max(buffer, 1)) { [self] id in
      blockingExec(event, id: id, durability: durability, timeout: timeout)
    }
  }

  private func blockingExec(_ event: OutgoingEvent, id: UInt64, durability: AckDurability, timeout: Duration)
    -> ByteSlice
  {
    ClientFrame.exec(
      event, id: id, durability: durability, blocking: true, timeoutMilliseconds: max(1, timeout.protocolMilliseconds))
  }

  // MARK: Topics

  /// Appends record batches to an application's input topic, all in one commit or none. Partition -1: the node splits
  /// the batch by key.
  public func append(
    app: String, batches: [(partition: Int32, bytes: ByteSlice)], durability: AckDurability = .applicationDefault,
    timeout: Duration? = nil
  ) async throws -> AppendReceipt {
    guard !batches.isEmpty, batches.count <= Int(UInt16.max) else {
      throw StatusError(.badRequest, "\(batches.count) batches: an append carries 1 to 65,535")
    }
    let id = loop.nextID()
    let frame = ClientFrame.append(app: app, batches: batches, durability: durability, id: id)
    return try await send(frame, id: id, timeout: timeout, isCancellable: false).appendReceipt()
  }

  /// Reads a partition from `offset` on (-1: the end, -2: the first there is), waiting up to `wait` for something to come.
  public func fetch(
    topic: String, partition: Int32, offset: Int64, maxBytes: Int = 1 << 20, wait: Duration = .zero,
    timeout: Duration? = nil
  ) async throws -> FetchResult {
    let id = loop.nextID()
    let frame = ClientFrame.fetch(
      topic: topic, partition: partition, offset: offset, maxBytes: UInt32(clamping: maxBytes),
      waitMilliseconds: wait.protocolMilliseconds, id: id)
    let limit = (timeout ?? configuration.timeout) + wait
    return try await send([frame], id: id, timeout: limit, isCancellable: true).fetchResult()
  }

  /// Runs an administrative operation (docs/admin.md).
  public func request(
    _ op: String, _ members: [JSONValue.Member] = [], blob: ByteSlice? = nil, timeout: Duration? = nil
  ) async throws -> AdminResponse {
    let id = loop.nextID()
    let frame = ClientFrame.request(op, members, blob: blob, id: id)
    return try await send([frame], id: id, timeout: timeout, isCancellable: false).adminResponse()
  }

  private func send(_ frame: [ByteSlice], id: UInt64, timeout: Duration?, isCancellable: Bool) async throws
    -> ReceivedFrame
  {
    let size = frame.reduce(0) { $0 + $1.count }
    guard size <= welcome.maxFrame else {
      throw StatusError(.tooLarge, "a request of \(size) bytes; the node takes \(welcome.maxFrame)")
    }
    let deadline = ContinuousClock.now + (timeout ?? configuration.timeout)
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        loop.submit(
          ClientRequest(
            id: id, frame: frame, size: size, deadline: deadline, isCancellable: isCancellable,
            receiver: .single(continuation)))
      }
    } onCancel: {
      loop.cancel(id)
    }
  }
}
