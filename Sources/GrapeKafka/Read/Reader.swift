internal import CRDKafka
internal import GrapeLog
internal import GrapeWire
internal import Synchronization

/// Reads partitions on a thread of its own, which sleeps until librdkafka has something or somebody asks for something.
///
/// `@unchecked Sendable`: everything but the inbox is used by whoever holds `turn`, which is that thread while it works.
final class Reader: @unchecked Sendable {
  enum Request: Sendable {
    case read(
      TopicPartition, offset: Int64, maxBytes: Int,
      completion: @Sendable (Result<ReadResult, LogError>) -> Void)
    /// A read whose partition's bounds were asked for.
    case found(
      TopicPartition, offset: Int64, maxBytes: Int, Result<PartitionBounds, LogError>,
      completion: @Sendable (Result<ReadResult, LogError>) -> Void)
    case watch(TopicPartition, Watch)
    case watchFound(TopicPartition, Watch, Result<PartitionBounds, LogError>)
    /// See `offer`.
    case written(TopicPartition, UnpackedBatch, Int64)
    case trim(TopicPartition, Int64)
    case deleted(topic: String)
    case stop(@Sendable () -> Void)
  }

  struct Watch: Sendable {
    let id: UInt64
    let offset: Int64
    let notify: @Sendable () -> Void
  }

  struct Inbox {
    var requests: [Request] = []
    var closed = false
  }

  struct Key: Hashable {
    let topic: OpaquePointer
    let partition: Int32
  }

  /// Errors that librdkafka tells of without a message, though they are about one partition: of topics that are gone, or not to be read.
  final class Reported: Sendable {
    private let errors = Mutex<[(code: rd_kafka_resp_err_t, reason: String)]>([])
    private static let limit = 1_000

    func add(_ code: rd_kafka_resp_err_t, _ reason: String) {
      errors.withLock { if $0.count < Self.limit { $0.append((code, reason)) } }
    }

    func take() -> [(code: rd_kafka_resp_err_t, reason: String)] {
      errors.withLock { errors in
        defer { errors = [] }
        return errors
      }
    }
  }

  let reported = Reported()
  let inbox = Mutex(Inbox())
  private let turn = Mutex(())
  let wakeup = Wakeup()
  let client: RDKafkaClient
  let queue: RDKafkaQueue
  let configuration: KafkaConfiguration
  let directory: TopicDirectory
  let queries: PartitionQueries
  let meters: KafkaMeters
  let watches = WatchTable()

  var sessions: [TopicPartition: PartitionSession] = [:]
  var byKey: [Key: PartitionSession] = [:]
  var scratch = ByteWriter(capacity: 256)
  let received = UnsafeMutableBufferPointer<UnsafeMutablePointer<rd_kafka_message_t>?>.allocate(
    capacity: 1_024)
  var nextSweep: Int64 = 0
  /// Sessions that nobody uses for so long end, nanoseconds.
  static let idleTime: Int64 = 60_000_000_000
  static let sweepTime: Int64 = 1_000_000_000

  init(
    _ configuration: KafkaConfiguration, _ directory: TopicDirectory, _ queries: PartitionQueries,
    _ meters: KafkaMeters
  ) throws(LogError) {
    self.meters = meters
    self.configuration = configuration
    self.directory = directory
    self.queries = queries
    let reported = reported
    client = try RDKafkaClient(
      .consumer, configuration, own: Self.defaults(configuration) + Self.settings, failed: { reported.add($0, $1) })
    queue = RDKafkaQueue(client)
    queue.signal(wakeup)
  }

  deinit { received.deallocate() }

  static let settings = [
    ("isolation.level", "read_committed"), ("enable.partition.eof", "true"), ("auto.offset.reset", "error"),
    ("allow.auto.create.topics", "false"), ("enable.auto.commit", "false"), ("enable.auto.offset.store", "false"),
  ]

  /// Where not given. This thread sees to it that not too much is fetched; whenever librdkafka finds that by itself it sleeps for up to a second.
  private static func defaults(_ configuration: KafkaConfiguration) -> [(name: String, value: String)] {
    [("queued.min.messages", "10000000"), ("queued.max.messages.kbytes", "262144")].filter {
      configuration.settings[$0.0] == nil
    }
  }

  func start() { BackgroundThread.start("kafka-read") { self.run() } }

  /// Most requests from outside that wait; answers to the reader's own questions are never refused.
  static let limit = 100_000

  /// Hands a request over, or says why not.
  @discardableResult
  func ask(_ request: Request) -> LogError? {
    let refusal = inbox.withLock { inbox -> LogError? in
      if inbox.closed { return .closedLog }
      switch request {
      case .read, .watch, .written:
        if inbox.requests.count >= Self.limit {
          return LogError(.busy, "\(Self.limit) reads and watches wait already: try later")
        }
      default: break
      }
      inbox.requests.append(request)
      if case .stop = request { inbox.closed = true }
      return nil
    }
    if refusal == nil { wakeup.signal() }
    return refusal
  }

  func run() {
    while true {
      let requests = inbox.withLock { inbox in
        defer { inbox.requests = [] }
        return inbox.requests
      }
      var last: (@Sendable () -> Void)?
      var busy = false
      var rest: Int64?
      turn.withLock { _ in
        for request in requests {
          if case .stop(let told) = request {
            last = told
            return end()
          }
          handle(request)
        }
        busy = drain()
        if MonotonicClock.now >= nextSweep { sweep() }
        rest = sessions.isEmpty ? nil : nextSweep
      }
      if let last { return last() }
      if requests.isEmpty && !busy { wakeup.wait(until: rest) }
    }
  }

  /// What was fetched already, if the thread is at rest: whoever asks need not wake it, nor be woken by it. On any thread.
  func readNow(_ partition: TopicPartition, _ offset: Int64, _ maxBytes: Int) -> ReadResult? {
    let found: ReadResult?? = turn.withLockIfAvailable { _ in takeNow(partition, offset, maxBytes) }
    return found ?? nil
  }

  private func takeNow(_ partition: TopicPartition, _ offset: Int64, _ maxBytes: Int) -> ReadResult? {
    guard let session = sessions[partition], session.reads.isEmpty, session.covers(offset) else { return nil }
    session.skip(to: offset)
    return session.buffer.isEmpty ? nil : take(session, maxBytes)
  }

  /// Tells who waits for the end of a partition of a batch that this log itself has just written there, at `offset`: it need not be fetched first, and what
  /// is fetched of it later is dropped. Nothing happens if there is anything between it and what was fetched, or if nobody waits. On any thread.
  ///
  /// What stands at the end of all that was fetched has nothing undecided before it, so that readers who want committed records may see it.
  func offer(_ partition: TopicPartition, _ batch: UnpackedBatch, at offset: Int64) {
    if turn.withLockIfAvailable({ _ in take(batch, of: partition, at: offset) }) != nil { return }
    // The thread is at work. If it takes no more it will be fetched.
    if watches.has(partition) { ask(.written(partition, batch, offset)) }
  }

  private func take(_ batch: UnpackedBatch, of partition: TopicPartition, at offset: Int64) {
    guard let session = sessions[partition], watches.has(partition) || !session.reads.isEmpty,
      session.receive(batch, at: offset)
    else { return }
    serve(session)
    watches.fire(partition, end: session.end)
  }

  /// Begins a watch, if the thread is at rest and nobody has to be asked for it: as `readNow`. On any thread.
  func watchNow(_ partition: TopicPartition, _ watch: Watch) -> Bool {
    let isDone = turn.withLockIfAvailable { _ in
      guard let session = sessions[partition], session.isFetching || session.end > watch.offset else { return false }
      begin(watch, on: partition)
      return true
    }
    return isDone ?? false
  }

  func handle(_ request: Request) {
    switch request {
    case .read(let partition, let offset, let maxBytes, let completion):
      read(partition, offset, maxBytes, completion)
    case .found(let partition, let offset, let maxBytes, let found, let completion):
      go(on: partition, offset, maxBytes, found, completion)
    case .watch(let partition, let watch): begin(watch, on: partition)
    case .written(let partition, let batch, let offset): take(batch, of: partition, at: offset)
    case .watchFound(let partition, let watch, let found): go(on: watch, partition, found)
    case .trim(let partition, let offset): sessions[partition]?.trim(to: offset)
    case .deleted(let topic):
      for partition in sessions.keys where partition.topic == topic {
        drop(partition, LogError(.noSuchTopic, "there is no topic \"\(topic)\""))
      }
      watches.fire(where: { $0.topic == topic })
    case .stop: break
    }
  }

  func end() {
    for partition in Array(sessions.keys) { drop(partition, .closedLog) }
    watches.fire(where: { _ in true })
    queue.signal(nil)
  }

  // MARK: reads

  func read(
    _ partition: TopicPartition, _ offset: Int64, _ maxBytes: Int,
    _ completion: @escaping @Sendable (Result<ReadResult, LogError>) -> Void
  ) {
    if let found = takeNow(partition, offset, maxBytes) { return completion(.success(found)) }
    // Whether there is anything is for the cluster to say.
    let refusal = queries.lane.add {
      let found = Result { () throws(LogError) in try self.queries.bounds(of: partition) }
      let request = Request.found(
        partition, offset: offset, maxBytes: maxBytes, found, completion: completion)
      if let refusal = self.ask(request) { completion(.failure(refusal)) }
    }
    if let refusal { completion(.failure(refusal)) }
  }

  func go(
    on partition: TopicPartition, _ offset: Int64, _ maxBytes: Int, _ found: Result<PartitionBounds, LogError>,
    _ completion: @escaping @Sendable (Result<ReadResult, LogError>) -> Void
  ) {
    do throws(LogError) {
      let bounds = try found.get()
      guard (bounds.start...bounds.end).contains(offset) else {
        throw LogError(
          .offsetOutOfRange, "offset \(offset) of \(partition): the log has \(bounds.start) to \(bounds.end)")
      }
      let session = try session(for: partition)
      session.start = bounds.start
      session.end = max(session.end, bounds.end)
      if offset == bounds.end && session.buffer.isEmpty {
        completion(.success(ReadResult(batches: [], bounds: bounds)))
        return
      }
      session.reads.append(
        PartitionSession.PendingRead(
          offset: offset, maxBytes: maxBytes, bounds: bounds,
          deadline: MonotonicClock.after(milliseconds: configuration.requestTimeout), completion: completion))
      serve(session)
    } catch {
      completion(.failure(error))
    }
  }

  /// Answers what can be answered of a session's reads, in order, and sees to it that the next will be.
  func serve(_ session: PartitionSession) {
    if !session.reads.isEmpty { session.lastUsed = MonotonicClock.now }
    while let read = session.reads.first {
      do throws(LogError) {
        if !session.covers(read.offset) { try session.begin(at: read.offset) }
      } catch {
        session.reads.removeFirst()
        read.completion(.failure(error))
        continue
      }
      session.skip(to: read.offset)
      if !session.buffer.isEmpty {
        session.reads.removeFirst()
        read.completion(.success(take(session, read.maxBytes)))
      } else if session.fetched >= read.bounds.end {
        // Nothing but gaps up to there.
        session.reads.removeFirst()
        read.completion(
          .success(
            ReadResult(batches: [], bounds: PartitionBounds(start: read.bounds.start, end: session.fetched))))
      } else {
        return
      }
    }
  }

  func take(_ session: PartitionSession, _ maxBytes: Int) -> ReadResult {
    session.lastUsed = MonotonicClock.now
    session.buffer.batchBytes = min(max(maxBytes, Self.smallestBatch), Self.largestBatch)
    let batches = session.buffer.takeFirst(from: session.next, maxBytes: maxBytes)
    session.noteTaken(batches)
    meters.read(batches)
    if !session.isFetching && session.buffer.bytes < min(readAhead, session.window) / 2 { resume(session) }
    return ReadResult(batches: batches, bounds: PartitionBounds(start: session.start, end: session.end))
  }

  func resume(_ session: PartitionSession) {
    do throws(LogError) {
      try session.resume()
    } catch {
      drop(session.partition, error)
    }
  }

  private static let smallestBatch = 4 << 10
  private static let largestBatch = 1 << 20

  /// Bytes that each session may read ahead: those that have nothing leave their share to the others.
  var readAhead: Int {
    let sharers = sessions.values.count { !$0.buffer.isEmpty }
    return max(1 << 20, configuration.readAheadBytes / max(1, sharers))
  }
}
