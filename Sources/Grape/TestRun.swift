internal import CGrapeLinux
public import GrapeCore
internal import GrapeState
internal import GrapeWire
internal import Synchronization

/// Runs an application's handlers in a test, without a node.
///
/// ```swift
/// let run = try TestRun(app)
/// let result = try await run.send("received", "Ada", key: "k")
/// #expect(result.emitted.first?.text == "Hello, Ada")
/// ```
///
/// Events go through the same code as in a worker: headers, verdicts, rules of replies and limits are the real ones.
public final class TestRun {
  private let session: Session
  private let run: DeliveryRun
  private let log = LogQueue()
  private var hasStarted = false
  private let application: Application
  private var offset: Int64 = 0
  /// State by partition.
  private let memory: TestState

  /// Prepares the handlers of `application`.
  ///
  /// - Parameters:
  ///   - routes: for each name that may be emitted the slots it goes to, `["counted": ["stats@flight", "audit@seen"]]`,
  ///     and the topics that are not Grape's, `["shipped": ["topic:shipments"]]`; nil: every name may be emitted and goes to one slot of that name.
  ///   - config: what `Context.config` is to be.
  ///   - partitions: of every topic.
  public init(
    _ application: Application, routes: [String: [String]]? = nil, config: JSONValue = .object([]),
    partitions: Int32 = 1
  ) throws {
    self.application = application
    let slots = application.registry.withLock { $0.handlers.map(\.name) }
    var info = WorkerInfo(
      worker: "test-1", app: "test", version: "test", node: "test", config: config, routes: [:], slots: slots,
      limits: WorkerInfo.Limits())
    for (signal, targets) in routes ?? [:] {
      info.routes[signal] = targets.map { TestRun.route($0, app: info.app, partitions: partitions) }
    }
    memory = TestState(partitions: partitions)
    let state = StateSpace(info: memory.info, log: log) { [memory] in (memory.base($0), nil) }
    session = try Session(
      info: info, application: application, log: log, state: state, hasOpenRoutes: routes == nil)
    run = DeliveryRun(session: session)
  }

  private static func route(_ target: String, app: String, partitions: Int32) -> WorkerInfo.Route {
    if target.hasPrefix("topic:") {
      return WorkerInfo.Route(
        topic: String(target.dropFirst(6)), event: "", partitions: partitions, isExternal: true)
    }
    guard let at = target.firstIndex(of: "@") else {
      return WorkerInfo.Route(topic: "\(app).events", event: target, partitions: partitions)
    }
    return WorkerInfo.Route(
      topic: "\(target[..<at]).events", event: String(target[target.index(after: at)...]), partitions: partitions)
  }

  /// The application's default store, to be prepared before events and looked at after them.
  public var state: TestStore { TestStore(memory, name: "") }

  /// A store by name.
  ///
  /// - Throws: `StateError` if there can be no store of that name.
  public func store(_ name: String) throws(StateError) -> TestStore {
    try StateKey.check(store: name)
    return TestStore(memory, name: name)
  }

  /// Hands one event to its handler and waits for its end. `onStart` runs before the first.
  ///
  /// - Parameters:
  ///   - isAwaited: whether a caller waits for a reply.
  ///   - headers: the event's own.
  ///   - attempt: as in `Event.attempt`.
  ///   - hops: handlers that the event's chain has passed through.
  ///   - deadline: time of day in milliseconds since 1970 UTC.
  ///   - partition: which the event comes from; its state is that partition's.
  /// - Throws: what `onStart` throws, and an error if there is no such slot.
  public func send(
    _ name: String, _ value: some EventData, key: some EventData, isAwaited: Bool = true,
    headers: [Event.Header] = [], attempt: UInt32 = 1, hops: UInt8 = 0, deadline: Int64? = nil, partition: Int32 = 0
  ) async throws -> TestResult {
    if !hasStarted {
      hasStarted = true
      for handler in application.registry.withLock({ $0.start }) { try await handler(Context(session: session)) }
    }
    let batch = try makeBatch(
      name, value: value, key: key, isAwaited: isAwaited, headers: headers, hops: hops, deadline: deadline)
    defer { offset += 1 }
    run.begin(
      Delivery(
        id: 1, partition: partition, attempt: attempt, first: offset, end: offset + 1, skips: [], batches: [batch]))
    var step = try run.advance()
    while case .await(let handler, let event) = step {
      var failure: (any Error)?
      do { try await handler(event, run.context) } catch { failure = error }
      try run.endAwaited(failure)
      step = try run.advance()
    }
    defer { run.clear() }
    let result = try TestResult(run, changelog: memory.info.topic, log: log.take())
    try memory.apply(result.changes, partition: partition, processed: offset + 1)
    return result
  }

  /// Hands one event without key to its handler.
  public func send(
    _ name: String, _ value: some EventData, isAwaited: Bool = true, headers: [Event.Header] = []
  ) async throws -> TestResult {
    try await send(name, value, key: ByteSlice?.none, isAwaited: isAwaited, headers: headers)
  }

  private func makeBatch(
    _ name: String, value: some EventData, key: some EventData, isAwaited: Bool, headers: [Event.Header], hops: UInt8,
    deadline: Int64?
  ) throws -> ByteSlice {
    var section = HeaderSection()
    section.append(HeaderName.event, Array(name.utf8))
    if hops > 0 { section.append(HeaderName.hops, [hops]) }
    if let deadline { section.append(deadline: deadline) }
    if isAwaited {
      let address = ReplyAddress(
        correlation: CorrelationID(high: 0, low: UInt64(offset)), partition: 0, topic: "_grape.replies.test")
      section.append(HeaderName.replyAddress, address.encoded)
    }
    for header in headers {
      header.name.withEventBytes { name in
        if let name { section.append(name, header.value?.unsafeBytes) }
      }
    }
    let sectionBytes = section.finish()
    var builder = RecordBatchBuilder()
    value.withEventBytes { value in
      key.withEventBytes { key in
        builder.append(
          key: key, value: value, headerSection: sectionBytes.unsafeBytes, timestamp: grape_realtime_ms())
      }
    }
    let batch = try builder.take().bytes
    // Nobody else holds the batch yet.
    RecordBatch.setBaseOffset(
      offset, in: UnsafeMutableRawBufferPointer(start: batch.storage.base + batch.offset, count: batch.count))
    return batch
  }
}
