internal import CRDKafka
internal import GrapeLog
internal import GrapeWire
internal import Synchronization

/// Reads partitions on a thread of its own, which sleeps until librdkafka has something or somebody asks for something.
///
/// `@unchecked Sendable`: everything but the inbox is used by that thread alone.
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
    case trim(TopicPartition, Int64)
    case deleted(topic: String)
    case stop(@Sendable () -> Void)
  }

  struct Watch: Sendable {
    let id: UInt64
    let offset: Int64
    let notify: @Sendable () -> Void
  }

  private struct Inbox {
    var requests: [Request] = []
    var closed = false
  }

  private struct Key: Hashable {
    let topic: OpaquePointer
    let partition: Int32
  }

  private let inbox = Mutex(Inbox())
  private let wakeup = Wakeup()
  private let client: RDKafkaClient
  private let queue: RDKafkaQueue
  private let configuration: KafkaConfiguration
  private let directory: TopicDirectory
  private let queries: PartitionQueries
  let watches = WatchTable()

  private var sessions: [TopicPartition: PartitionSession] = [:]
  private var byKey: [Key: PartitionSession] = [:]
  private var scratch = ByteWriter(capacity: 256)
  private var received = [UnsafeMutablePointer<rd_kafka_message_t>?](repeating: nil, count: 1_024)
  private var nextSweep: Int64 = 0
  /// Sessions that nobody uses for so long end, nanoseconds.
  private static let idleTime: Int64 = 60_000_000_000
  private static let sweepTime: Int64 = 1_000_000_000

  init(
    _ configuration: KafkaConfiguration, _ directory: TopicDirectory, _ queries: PartitionQueries
  ) throws(LogError) {
    self.configuration = configuration
    self.directory = directory
    self.queries = queries
    client = try RDKafkaClient(.consumer, configuration, own: Self.settings)
    queue = RDKafkaQueue(client)
    var one: UInt64 = 1
    // librdkafka copies the eight bytes, which an eventfd takes for a count.
    rd_kafka_queue_io_event_enable(queue.pointer, wakeup.descriptor, &one, 8)
  }

  static let settings = [
    ("isolation.level", "read_committed"), ("enable.partition.eof", "true"), ("auto.offset.reset", "error"),
    ("allow.auto.create.topics", "false"), ("enable.auto.commit", "false"), ("enable.auto.offset.store", "false"),
  ]

  func start() { LogThread.start("kafka-read") { self.run() } }

  /// Most requests from outside that wait; answers to the reader's own questions are never refused.
  private static let limit = 100_000

  /// Hands a request over, or says why not.
  @discardableResult
  func ask(_ request: Request) -> LogError? {
    let refusal = inbox.withLock { inbox -> LogError? in
      if inbox.closed { return .closedLog }
      switch request {
      case .read, .watch:
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

  private func run() {
    while true {
      let requests = inbox.withLock { inbox in
        defer { inbox.requests = [] }
        return inbox.requests
      }
      for request in requests {
        if case .stop(let last) = request {
          end()
          last()
          return
        }
        handle(request)
      }
      let busy = drain()
      if MonotonicClock.now >= nextSweep { sweep() }
      if requests.isEmpty && !busy { wakeup.wait(until: sessions.isEmpty ? nil : nextSweep) }
    }
  }

  private func handle(_ request: Request) {
    switch request {
    case .read(let partition, let offset, let maxBytes, let completion):
      read(partition, offset, maxBytes, completion)
    case .found(let partition, let offset, let maxBytes, let found, let completion):
      go(on: partition, offset, maxBytes, found, completion)
    case .watch(let partition, let watch): begin(watch, on: partition)
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

  private func end() {
    for partition in Array(sessions.keys) { drop(partition, .closedLog) }
    watches.fire(where: { _ in true })
    rd_kafka_queue_io_event_enable(queue.pointer, -1, nil, 0)
  }

  // MARK: reads

  private func read(
    _ partition: TopicPartition, _ offset: Int64, _ maxBytes: Int,
    _ completion: @escaping @Sendable (Result<ReadResult, LogError>) -> Void
  ) {
    if let session = sessions[partition], session.reads.isEmpty, session.covers(offset) {
      session.skip(to: offset)
      if !session.buffer.isEmpty {
        completion(.success(take(session, maxBytes)))
        return
      }
    }
    // Whether there is anything is for the cluster to say.
    let refusal = queries.lane.add {
      let found = Result { () throws(LogError) in try self.queries.bounds(of: partition) }
      let request = Request.found(
        partition, offset: offset, maxBytes: maxBytes, found, completion: completion)
      if let refusal = self.ask(request) { completion(.failure(refusal)) }
    }
    if let refusal { completion(.failure(refusal)) }
  }

  private func go(
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
  private func serve(_ session: PartitionSession) {
    session.lastUsed = MonotonicClock.now
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

  private func take(_ session: PartitionSession, _ maxBytes: Int) -> ReadResult {
    session.lastUsed = MonotonicClock.now
    let batches = session.buffer.takeBatches(maxBytes: maxBytes, scratch: &scratch)
    session.noteTaken(batches)
    if !session.isFetching && session.buffer.bytes < readAhead / 2 { resume(session) }
    return ReadResult(batches: batches, bounds: PartitionBounds(start: session.start, end: session.end))
  }

  private func resume(_ session: PartitionSession) {
    do throws(LogError) {
      try session.resume()
    } catch {
      drop(session.partition, error)
    }
  }

  /// Bytes that each session may read ahead.
  private var readAhead: Int { max(1 << 20, configuration.readAheadBytes / max(1, sessions.count)) }

  // MARK: sessions

  private func session(for partition: TopicPartition) throws(LogError) -> PartitionSession {
    if let session = sessions[partition] { return session }
    let topic = try RDKafkaTopic(client, directory.clusterName(partition.topic))
    let session = PartitionSession(partition, topic, queue)
    sessions[partition] = session
    byKey[Key(topic: topic.pointer, partition: partition.partition)] = session
    return session
  }

  private func drop(_ partition: TopicPartition, _ error: LogError) {
    guard let session = sessions.removeValue(forKey: partition) else { return }
    byKey[Key(topic: session.topic.pointer, partition: partition.partition)] = nil
    session.stop()
    for read in session.reads { read.completion(.failure(error)) }
    session.reads = []
  }

  /// Takes what librdkafka has. False if it had nothing.
  private func drain() -> Bool {
    var touched: [TopicPartition: PartitionSession] = [:]
    var any = false
    while true {
      let count = rd_kafka_consume_batch_queue(queue.pointer, 0, &received, received.count)
      if count <= 0 { break }
      any = true
      var last: (key: Key, session: PartitionSession)?
      for place in 0..<count {
        guard let message = received[place] else { continue }
        let key = Key(topic: message.pointee.rkt, partition: message.pointee.partition)
        if last?.key != key { last = byKey[key].map { (key, $0) } }
        guard let session = last?.session else {
          rd_kafka_message_destroy(message)
          continue
        }
        touched[session.partition] = session
        if message.pointee.err == RD_KAFKA_RESP_ERR_NO_ERROR {
          session.receive(message)
        } else {
          handleError(message, session)
          last = nil
        }
      }
      if touched.values.contains(where: { $0.buffer.bytes > readAhead }) { break }
    }
    for session in touched.values where sessions[session.partition] === session { settle(session) }
    return any
  }

  private func settle(_ session: PartitionSession) {
    serve(session)
    watches.fire(session.partition, end: session.end)
    if session.isFetching && session.buffer.bytes > readAhead {
      session.stop()
      // Watches behind what fits cannot be told by this session.
      for watch in watches.take(session.partition) { begin(watch, on: session.partition) }
    }
  }

  private func handleError(_ message: MessageBuffer.Message, _ session: PartitionSession) {
    let code = message.pointee.err
    let offset = message.pointee.offset
    rd_kafka_message_destroy(message)
    if code == RD_KAFKA_RESP_ERR__PARTITION_EOF { return session.reachedEnd(offset) }
    let partition = session.partition
    let error = KafkaError.log(code, "reading \(partition)")
    switch error.code {
    case .busy: return  // librdkafka tries again by itself; reads have their deadlines.
    case .noSuchTopic, .noSuchPartition:
      directory.doubt(partition.topic)
      drop(partition, error)
      watches.fire(where: { $0 == partition })
    case .offsetOutOfRange:
      // What was to be read is gone: those who wait ask anew and are told where the partition begins.
      let reads = session.reads
      session.reads = []
      drop(partition, error)
      for read in reads { self.read(partition, read.offset, read.maxBytes, read.completion) }
      for watch in watches.take(partition) { begin(watch, on: partition) }
    default:
      drop(partition, error)
      for watch in watches.take(partition) { begin(watch, on: partition) }
    }
  }

  /// Ends reads whose time is over and sessions that nobody uses.
  private func sweep() {
    let now = MonotonicClock.now
    nextSweep = now + Self.sweepTime
    for (partition, session) in sessions {
      let late = session.reads.filter { $0.deadline <= now }
      if !late.isEmpty {
        session.reads.removeAll { $0.deadline <= now }
        let error = KafkaError.log(RD_KAFKA_RESP_ERR__TIMED_OUT, "reading \(partition)")
        for read in late { read.completion(.failure(error)) }
      }
      if session.reads.isEmpty && !watches.has(partition) && session.lastUsed + Self.idleTime < now {
        drop(partition, .closedLog)
      }
    }
  }

  // MARK: watches

  private func begin(_ watch: Watch, on partition: TopicPartition) {
    if watches.isCancelled(watch.id) { return }
    if let session = sessions[partition] {
      if session.end > watch.offset { return watches.notify(watch) }
      if session.isFetching { return watches.add(watch, on: partition) }
    }
    let refusal = queries.lane.add {
      let found = Result { () throws(LogError) in try self.queries.bounds(of: partition) }
      if self.ask(.watchFound(partition, watch, found)) != nil { self.watches.notify(watch) }
    }
    if refusal != nil { watches.notify(watch) }
  }

  private func go(on watch: Watch, _ partition: TopicPartition, _ found: Result<PartitionBounds, LogError>) {
    do throws(LogError) {
      let bounds = try found.get()
      let session = try session(for: partition)
      session.start = bounds.start
      session.end = max(session.end, bounds.end)
      if session.end > watch.offset { return watches.notify(watch) }
      if !session.isFetching { try session.begin(at: bounds.end) }
      session.lastUsed = MonotonicClock.now
      watches.add(watch, on: partition)
    } catch {
      // Whoever watches will read, and be told what is wrong.
      watches.notify(watch)
    }
  }
}
