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
///
/// Where other nodes take requests, too, the marker comes too late to tell them. There a claim is written to the topic first and read back: the first claim to a
/// name in the topic is the request, whose event then comes with its marker as everywhere; all others are repeats of it.
final class RequestTable {
  private let engine: ApplicationEngine
  let gate: CommitGate
  let reactor: Reactor
  let calls: CallTable
  let logger: Logger
  let place: TopicPartition
  private var follower: TopicFollower!
  var index = RequestIndex()
  private var random = RandomNumbers()
  /// What is remembered is still being read.
  var isLoading = true
  /// Calls that wait for replies to a request of somebody else.
  var waiting: [CorrelationID: [CorrelationID]] = [:]
  /// Those who wait until a request is in the log.
  var whenPlaced: [CorrelationID: [Acknowledgement]] = [:]
  /// This node's claims that were not read back yet.
  var claims: [CorrelationID: (since: Int64, decide: (Decision) -> Void)] = [:]
  /// When claims must have been read back, and when those that were read are void.
  var sent: ExpiryQueue<CorrelationID>!
  var held: ExpiryQueue<CorrelationID>!
  /// This node's claims of an earlier life that were read and have come to nothing yet.
  var inherited: [CorrelationID] = []
  /// nil: no other node takes requests, nothing is claimed.
  let policy: ClaimPolicy?
  /// An event must be handed to the log within so long after its claim was, milliseconds: much less than `ClaimPolicy.time`, which has the commit's time in it, too.
  static let appendTime: Int64 = 30_000
  /// Repeats that were recognised since the node started.
  private(set) var repeats = 0

  struct Acknowledgement {
    var name: ByteSlice
    var durability: Durability
    var completion: (Intake.Outcome) -> Void
  }

  /// Read at a time for a repeat.
  private static let readBytes = 256 * 1024
  /// How long an event may be invisible after its marker is seen, milliseconds.
  private static let visibilityTime: Int64 = 10_000
  /// An event is looked for in so much of its partition.
  private static let searchBytes = 64 * 1024 * 1024

  init(
    _ engine: ApplicationEngine, gate: CommitGate, reactor: Reactor, calls: CallTable, logger: Logger,
    policy: ClaimPolicy?
  ) {
    self.policy = policy
    self.engine = engine
    self.gate = gate
    self.reactor = reactor
    self.calls = calls
    self.logger = logger
    place = TopicPartition(engine.name.requestsTopic, 0)
    follower = TopicFollower(place, log: gate.log, reactor: reactor, logger: logger) {
      [unowned self] (placed) throws(WireError) in try take(placed)
    }
    sent = ExpiryQueue(reactor) { [unowned self] in
      giveUp($0, "its claim to the idempotency key was not read back from the log in time")
    }
    held = ExpiryQueue(reactor) { [unowned self] in void($0) }
  }

  var window: Profile.Idempotency { engine.deployment.profile.idempotency }

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
            if case .caughtUp = progress { loaded() }
            if !isAnswered { completion(nil) }
            isAnswered = true
          }
        case .failure(let error): completion(error)
        }
      })
  }

  private func loaded() {
    isLoading = false
    // What the process before this one had under way was rolled back, or is in the log, when this one opened the log: nothing more comes of its claims. (A
    // marker that is not visible yet stands before the release.)
    for id in inherited { release(id) }
    inherited = []
  }

  func close() {
    follower.close()
    let open = claims
    claims.removeAll()
    for claim in open.values { claim.decide(.failed(StatusError(.unavailable, "the node is stopping", ran: .never))) }
  }

  var clock: Int64 { grape_monotonic_ns() / 1_000_000 }

  // MARK: Requests

  /// The first request of this name, if it is remembered. Throws `conflict` if this one is no repeat of it.
  func first(
    _ name: ByteSlice, fingerprint: UInt64, isBlocking: Bool
  ) throws(StatusError) -> CorrelationID? {
    guard !isLoading else {
      throw StatusError(
        .unavailable, "the requests that \(engine.name) remembers are not read yet; try later", ran: .never)
    }
    guard let entry = index.find(name, now: grape_realtime_ms(), window: window), !entry.isForfeited(clock) else {
      return nil
    }
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
    let marker = remember(name, call, fingerprint, partition, claim: nil)
    return (marker.id, companion(name, marker))
  }

  func remember(
    _ name: ByteSlice, _ call: CorrelationID?, _ fingerprint: UInt64, _ partition: Int32, claim: RequestIndex.Claim?
  ) -> RequestMarker {
    let marker = RequestMarker(
      id: call ?? CorrelationID(high: random.next(), low: random.next()), isBlocking: call != nil,
      fingerprint: fingerprint, partition: partition, offsetBound: engine.knownEnd(of: partition))
    let now = grape_realtime_ms()
    index.insert(name, .init(marker, time: now, claim: claim), now: now, window: window)
    trimIfWorthwhile()
    return marker
  }

  /// Forgets a request, and tells those who wait for it.
  func fail(_ id: CorrelationID, _ error: StatusError) {
    index.remove(id)
    for call in waiting.removeValue(forKey: id) ?? [] { calls.fail(call, error) }
    for waiter in whenPlaced.removeValue(forKey: id) ?? [] { waiter.completion(.failure(error)) }
  }

  func companion(_ name: ByteSlice, _ marker: RequestMarker) -> Intake.Companion {
    .init(topic: place.topic, key: name, value: marker.encoded)
  }

  /// A request's event is in the log, or is not.
  func placed(_ id: CorrelationID, _ outcome: Intake.Outcome) {
    switch outcome {
    case .success(let place):
      index.update(id) {
        $0.claim = nil
        $0.markerOffset = place.companionOffset
        $0.offset = place.offset
        $0.durability = place.durability
      }
      tellPlaced(id)
    case .failure(let error):
      if error.ran == .never { release(id) }
      fail(id, error)
    }
  }

  private func tellPlaced(_ id: CorrelationID) {
    for waiter in whenPlaced.removeValue(forKey: id) ?? [] {
      acknowledge(id, name: waiter.name, durability: waiter.durability, completion: waiter.completion)
    }
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
      whenPlaced[id, default: []].append(.init(name: name, durability: durability, completion: completion))
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
    append(name, entry.marker, durability: durability, time: entry.time) { [self] result in
      switch result {
      case .success(let receipt):
        index.update(entry.marker.id) { $0.durability = max($0.durability, receipt.durability) }
        locate(index.entry(entry.marker.id) ?? entry, name: name, completion)
      case .failure(let error):
        completion(.failure(StatusError(.unavailable, error.message, ran: .unknown)))
      }
    }
  }

  /// Writes a record about a request.
  func append(
    _ name: ByteSlice, _ marker: RequestMarker, durability: Durability, time: Int64,
    completion: @escaping (Result<CommitReceipt, LogError>) -> Void
  ) {
    var builder = RecordBatchBuilder(capacity: 256)
    var headers = HeaderSection()
    if let policy, marker.kind == .claim { headers.append(HeaderName.node, policy.header) }
    builder.append(key: name, value: marker.encoded, headerSection: headers.finish(), timestamp: time)
    let batch: FinishedBatch
    do throws(WireError) { batch = try builder.take() } catch {
      preconditionFailure("a batch without compression cannot fail: \(error)")
    }
    let append = Transaction.Append(
      place, batch: batch.bytes, maxTimestamp: batch.maxTimestamp, recordCount: batch.recordCount)
    gate.commit(Transaction(durability: durability, appends: [append]), completion: completion)
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
    // Where others take requests, too, a commit can be seen in one topic a moment earlier than in another.
    let deadline = needsClaims ? clock + Self.visibilityTime : clock
    search(
      entry.marker, event, key, from: entry.marker.offsetBound, budget: Self.searchBytes, until: deadline
    ) { [self] offset in
      if let offset { index.update(entry.marker.id) { $0.offset = offset } }
      answer(offset ?? -1)
    }
  }

  /// Looks for a request's event in its partition, and waits for it until `deadline` if it is not there; nil: it is not kept any more.
  private func search(
    _ marker: RequestMarker, _ event: ByteSlice, _ key: ByteSlice, from offset: Int64, budget: Int,
    until deadline: Int64, _ completion: @escaping (Int64?) -> Void
  ) {
    let partition = TopicPartition(engine.topic, marker.partition)
    gate.log.read(
      partition, from: offset, maxBytes: Self.readBytes,
      completion: reactor.completion { [self] result in
        guard case .success(let read) = result else { return completion(nil) }
        guard let last = read.batches.last else {
          let end = max(offset, read.bounds.end)
          return whenAvailable(partition, after: end, until: deadline) { [self] isThere in
            guard isThere else { return completion(nil) }
            search(marker, event, key, from: end, budget: budget, until: deadline, completion)
          }
        }
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
        search(
          marker, event, key, from: last.lastOffset + 1, budget: budget - bytes, until: deadline, completion)
      })
  }

  /// Waits for a partition to go on. False: it did not in time.
  private func whenAvailable(
    _ partition: TopicPartition, after offset: Int64, until deadline: Int64, _ completion: @escaping (Bool) -> Void
  ) {
    let left = deadline - clock
    guard left > 0 else { return completion(false) }
    var isAnswered = false
    let answer: (Bool) -> Void = { isThere in
      guard !isAnswered else { return }
      isAnswered = true
      completion(isThere)
    }
    let fired = reactor.completion { (_: Void) in answer(true) }
    let watch = gate.log.whenAvailable(partition, after: offset) { fired(()) }
    reactor.schedule(after: left * 1_000_000) { [gate] in
      gate.log.cancelWatch(watch)
      answer(false)
    }
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
    let name = ByteSlice(copying: key)
    switch marker.kind {
    case .placed: takeMarker(name, marker, placed)
    case .claim:
      takeClaim(name, marker, placed)
      guard let policy, let node = try record.claimingNode, policy.isInherited(node) else { return }
      if isLoading { inherited.append(marker.id) } else { release(marker.id) }
    case .release:
      guard let entry = index.entry(marker.id), entry.claim != nil else { return }
      fail(marker.id, StatusError(.unavailable, "the first request came to nothing; it may be sent again", ran: .never))
    }
  }

  private func takeMarker(_ name: ByteSlice, _ marker: RequestMarker, _ placed: PlacedRecord) {
    var entry = RequestIndex.Entry(marker, time: placed.timestamp, markerOffset: placed.offset)
    // On a log of its own it has outlived the node, but perhaps not the machine yet.
    entry.durability = needsClaims ? .disk : .os
    let reading = index.readMarker(
      name, entry, isLoading: isLoading, now: grape_realtime_ms(), window: window)
    if case .superseded(let other) = reading { hand(other, to: marker.id) }
    if index.entry(marker.id)?.claim == nil { tellPlaced(marker.id) }
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
  fileprivate var claimingNode: UnsafeRawBufferPointer? {
    get throws(WireError) {
      var headers = headers
      while let (name, value) = try headers.next() {
        if name.elementsEqual("g.n".utf8) { return value }
      }
      return nil
    }
  }

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
