internal import CGrapeLinux
internal import GrapeCore
internal import GrapeEngine
internal import GrapeLog
internal import GrapeReactor
internal import GrapeWire
internal import Logging

/// One application's requests with an idempotency key: a repeat is not run again, and gets the replies of the first. Lives on the reactor's thread.
///
/// The topic `APP.requests` has a marker for each request, in the commit of its event, and is the topic that its replies go to, in the
/// commit of the result. So what is known of a request is as durable as what it did, and there is nothing to be copied.
final class RequestTable {
  private let engine: ApplicationEngine
  private let gate: CommitGate
  private let reactor: Reactor
  private let calls: CallTable
  private let logger: Logger
  private let place: TopicPartition
  private var follower: TopicFollower!
  private var index = RequestIndex()
  private var random = RandomNumbers()
  /// What is remembered is still being read.
  private var isLoading = true
  /// Calls that wait for replies to a request of somebody else.
  private var waiting: [CorrelationID: [CorrelationID]] = [:]
  /// Those who wait until a request is in the log.
  private var whenPlaced: [CorrelationID: [(Intake.Outcome) -> Void]] = [:]
  /// Repeats that were recognised since the node started.
  private(set) var repeats = 0

  /// Read at a time for a repeat.
  private static let readBytes = 256 * 1024
  /// An event is looked for in so much of its partition.
  private static let searchBytes = 64 * 1024 * 1024

  init(_ engine: ApplicationEngine, gate: CommitGate, reactor: Reactor, calls: CallTable, logger: Logger) {
    self.engine = engine
    self.gate = gate
    self.reactor = reactor
    self.calls = calls
    self.logger = logger
    place = TopicPartition(engine.name.requestsTopic, 0)
    follower = TopicFollower(place, log: gate.log, reactor: reactor, logger: logger) {
      [unowned self] (placed) throws(WireError) in try take(placed)
    }
  }

  private var window: Profile.Idempotency { engine.deployment.profile.idempotency }

  /// Requests that are remembered.
  var count: Int { index.count }

  /// Reads what is remembered, and goes on with what comes. If it cannot be read the application runs all the same; requests with an
  /// idempotency key are refused until it can.
  func start(completion: @escaping (LogError?) -> Void) {
    gate.log.offset(
      of: place, at: grape_realtime_ms() - Int64(window.window / .milliseconds(1)),
      completion: reactor.completion { [self] result in
        switch result {
        case .success(let offset):
          var isAnswered = false
          follower.start(at: offset) { [self] progress in
            if case .caughtUp = progress { isLoading = false }
            if !isAnswered { completion(nil) }
            isAnswered = true
          }
        case .failure(let error): completion(error)
        }
      })
  }

  func close() { follower.close() }

  // MARK: Requests

  /// The first request of this name, if it is remembered. Throws `conflict` if this one is no repeat of it.
  func first(
    _ name: ByteSlice, fingerprint: UInt64, isBlocking: Bool
  ) throws(StatusError) -> CorrelationID? {
    guard !isLoading else {
      throw StatusError(
        .unavailable, "the requests that \(engine.name) remembers are not read yet; try later", ran: .never)
    }
    guard let entry = index.find(name, now: grape_realtime_ms(), window: window) else { return nil }
    guard entry.marker.fingerprint == fingerprint else {
      throw StatusError(
        .conflict,
        "the idempotency key was used for a request with another key or other data; a key is for one request and its repeats"
      )
    }
    guard entry.marker.isBlocking || !isBlocking else {
      throw StatusError(
        .conflict, "the first request with this idempotency key was non-blocking: no reply to it is kept")
    }
    repeats += 1
    return entry.marker.id
  }

  /// Remembers a request that is about to be appended; `placed` must follow. Returns what must go into the log with it.
  ///
  /// - Parameter call: who waits for it; nil: it is non-blocking.
  func begin(_ name: ByteSlice, call: CorrelationID?, fingerprint: UInt64, partition: Int32) -> (
    id: CorrelationID, companion: Intake.Companion
  ) {
    let id = call ?? CorrelationID(high: random.next(), low: random.next())
    let marker = RequestMarker(
      id: id, isBlocking: call != nil, fingerprint: fingerprint, partition: partition,
      offsetBound: engine.knownEnd(of: partition))
    let now = grape_realtime_ms()
    index.insert(name, .init(marker, time: now), now: now, window: window)
    trimIfWorthwhile()
    return (id, companion(name, marker))
  }

  private func companion(_ name: ByteSlice, _ marker: RequestMarker) -> Intake.Companion {
    .init(topic: place.topic, key: name, value: marker.encoded)
  }

  /// A request's event is in the log, or is not.
  func placed(_ id: CorrelationID, _ outcome: Intake.Outcome) {
    switch outcome {
    case .success(let place):
      index.update(id) {
        $0.markerOffset = place.companionOffset
        $0.offset = place.offset
        $0.durability = place.durability
      }
    case .failure(let error):
      index.remove(id)
      for call in waiting.removeValue(forKey: id) ?? [] { calls.fail(call, error) }
    }
    for completion in whenPlaced.removeValue(forKey: id) ?? [] { completion(outcome) }
  }

  /// The header value that sends a request's replies here.
  func address(of id: CorrelationID) -> [UInt8] {
    ReplyAddress(correlation: id, partition: place.partition, topic: place.topic).encoded
  }

  /// What is before the oldest marker that counts is of no use. Not for every one: a trim is a commit.
  private func trimIfWorthwhile() {
    guard index.dropped >= max(1000, window.keys / 10), let oldest = index.oldestMarker() else { return }
    gate.log.deleteRecords(
      of: place, before: oldest,
      completion: reactor.completion { [self] result in
        guard case .failure(let error) = result, error.code != .closed else { return }
        logger.warning("old requests cannot be dropped", metadata: ["topic": "\(place)", "error": "\(error)"])
      })
  }

  // MARK: Repeats

  /// Where the first request's event is, once it is as durable as the repeat asks for.
  func acknowledge(
    _ id: CorrelationID, name: ByteSlice, durability: Durability, completion: @escaping (Intake.Outcome) -> Void
  ) {
    guard let entry = index.entry(id) else {
      // Forgotten in between, for its age or number; it was there when the repeat came.
      return completion(.failure(StatusError(.unavailable, "the first request is just being forgotten", ran: .unknown)))
    }
    if entry.markerOffset == nil {
      whenPlaced[id, default: []].append { [self] outcome in
        guard case .success = outcome, index.entry(id) != nil else { return completion(outcome) }
        acknowledge(id, name: name, durability: durability, completion: completion)
      }
    } else if entry.durability < durability {
      harden(entry, name: name, durability, completion)
    } else {
      locate(entry, name: name, completion)
    }
  }

  /// Brings the request to a durability greater than the first one asked for: what stands behind it in the log cannot be safer than it.
  private func harden(
    _ entry: RequestIndex.Entry, name: ByteSlice, _ durability: Durability,
    _ completion: @escaping (Intake.Outcome) -> Void
  ) {
    var builder = RecordBatchBuilder(capacity: 256)
    builder.append(
      key: name, value: entry.marker.encoded, headerSection: HeaderSection.empty, timestamp: entry.time)
    let batch: FinishedBatch
    do throws(WireError) { batch = try builder.take() } catch {
      return completion(.failure(StatusError(.internal, error.message, ran: .unknown)))
    }
    let append = Transaction.Append(
      place, batch: batch.bytes, maxTimestamp: batch.maxTimestamp, recordCount: batch.recordCount)
    gate.commit(Transaction(durability: durability, appends: [append])) { [self] result in
      switch result {
      case .success(let receipt):
        index.update(entry.marker.id) { $0.durability = max($0.durability, receipt.durability) }
        locate(index.entry(entry.marker.id) ?? entry, name: name, completion)
      case .failure(let error):
        completion(.failure(StatusError(.unavailable, error.message, ran: .unknown)))
      }
    }
  }

  private func locate(
    _ entry: RequestIndex.Entry, name: ByteSlice, _ completion: @escaping (Intake.Outcome) -> Void
  ) {
    func answer(_ offset: Int64) {
      completion(
        .success(
          .init(
            topic: engine.topic, partition: entry.marker.partition, offset: offset, durability: entry.durability)))
    }
    if let offset = entry.offset { return answer(offset) }
    guard let (event, key) = IdempotencyKey.split(name) else { return answer(-1) }
    search(entry.marker, event, key, from: entry.marker.offsetBound, budget: Self.searchBytes) { [self] offset in
      if let offset { index.update(entry.marker.id) { $0.offset = offset } }
      answer(offset ?? -1)
    }
  }

  /// Looks for a request's event in its partition; nil: it is not kept any more.
  private func search(
    _ marker: RequestMarker, _ event: ByteSlice, _ key: ByteSlice, from offset: Int64, budget: Int,
    _ completion: @escaping (Int64?) -> Void
  ) {
    let partition = TopicPartition(engine.topic, marker.partition)
    gate.log.read(
      partition, from: offset, maxBytes: Self.readBytes,
      completion: reactor.completion { [self] result in
        guard case .success(let read) = result, let last = read.batches.last else { return completion(nil) }
        var bytes = 0
        do throws(WireError) {
          for batch in read.batches {
            bytes += batch.bytes.count
            var found: Int64?
            try batch.forEachRecord(from: offset) { (placed) throws(WireError) in
              if found == nil, try placed.record.isRequest(event, key) { found = placed.offset }
            }
            if let found { return completion(found) }
          }
        } catch {
          logger.warning("an event cannot be read", metadata: ["topic": "\(partition)", "error": "\(error)"])
        }
        guard bytes < budget else { return completion(nil) }
        search(marker, event, key, from: last.lastOffset + 1, budget: budget - bytes, completion)
      })
  }

  /// Gives a call the replies of a request, those that were and those to come.
  func follow(_ id: CorrelationID, by call: CorrelationID) {
    guard let entry = index.entry(id) else {
      return calls.fail(
        call, StatusError(.unavailable, "the first request is just being forgotten", ran: .unknown))
    }
    if let first = entry.firstReply { replay(id, to: call, from: first) } else { wait(for: id, call) }
  }

  private func wait(for id: CorrelationID, _ call: CorrelationID) {
    var calls = (waiting[id] ?? []).filter { self.calls.isOpen($0) }
    calls.append(call)
    waiting[id] = calls
  }

  private func replay(_ id: CorrelationID, to call: CorrelationID, from offset: Int64) {
    guard calls.isOpen(call) else { return }
    // What is behind it is still to come, to all.
    guard offset < follower.position else { return wait(for: id, call) }
    gate.log.read(
      place, from: offset, maxBytes: Self.readBytes,
      completion: reactor.completion { [self] result in
        switch result {
        case .success(let read):
          let end = follower.position
          do throws(WireError) {
            for batch in read.batches {
              try batch.forEachRecord(from: offset) { (placed) throws(WireError) in
                guard placed.offset < end, let key = placed.record.key, CorrelationID(key) == id,
                  let status = try placed.record.replyStatus
                else { return }
                calls.deliver(.init(status: status, value: placed.record.value), to: call)
              }
            }
          } catch {
            return calls.fail(call, StatusError(.internal, "the reply cannot be read: \(error.message)", ran: .yes))
          }
          replay(id, to: call, from: min(end, read.nextOffset))
        case .failure(let error):
          calls.fail(call, StatusError(.unavailable, "the reply cannot be read: \(error.message)", ran: .yes))
        }
      })
  }

  // MARK: The topic

  private func take(_ placed: PlacedRecord) throws(WireError) {
    let (record, offset) = (placed.record, placed.offset)
    guard let key = record.key else { return }
    if let status = try record.replyStatus {
      guard let id = CorrelationID(key) else { return }
      return replied(id, .init(status: status, value: record.value), offset)
    }
    guard let value = record.value else { return }
    let marker = try RequestMarker(value)
    // This node's own are known since they were begun. Of two that came at the same time at two nodes both have run; the one that is
    // known first counts from now on.
    guard index.entry(marker.id) == nil,
      isLoading || index.find(ByteSlice(copying: key), now: grape_realtime_ms(), window: window) == nil
    else { return }
    var entry = RequestIndex.Entry(marker, time: placed.timestamp, markerOffset: offset)
    // It has outlived the node, but perhaps not the machine yet.
    entry.durability = .os
    index.insert(ByteSlice(copying: key), entry, now: grape_realtime_ms(), window: window)
  }

  private func replied(_ id: CorrelationID, _ reply: CallTable.Reply, _ offset: Int64) {
    index.replied(id, at: offset, reply.status)
    calls.deliver(reply, to: id)
    let others = waiting[id] ?? []
    if reply.status.isFinal { waiting[id] = nil }
    for call in others { calls.deliver(reply, to: call) }
  }
}

extension Record {
  /// Whether it is the event of this request.
  fileprivate func isRequest(_ event: ByteSlice, _ key: ByteSlice) throws(WireError) -> Bool {
    var headers = headers
    var isEvent = false
    var hasKey = false
    while let (name, value) = try headers.next() {
      guard let value else { continue }
      if name.elementsEqual("g.e".utf8) { isEvent = value.elementsEqual(event.unsafeBytes) }
      if name.elementsEqual(IdempotencyKey.header.utf8) { hasKey = value.elementsEqual(key.unsafeBytes) }
    }
    return isEvent && hasKey
  }
}
