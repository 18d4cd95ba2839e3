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
  private var whenPlaced: [CorrelationID: [Acknowledgement]] = [:]
  /// This node's claims that were not read back yet.
  private var claims: [CorrelationID: (since: Int64, decide: (Decision) -> Void)] = [:]
  /// When claims must have been read back, and when those that were read are void.
  private var sent: ExpiryQueue<CorrelationID>!
  private var held: ExpiryQueue<CorrelationID>!
  /// This node's claims of an earlier life that were read and have come to nothing yet.
  private var inherited: [CorrelationID] = []
  /// nil: no other node takes requests, nothing is claimed.
  private let policy: ClaimPolicy?
  /// An event must be handed to the log within so long after its claim was, milliseconds: much less than `ClaimPolicy.time`, which has the commit's time in it, too.
  static let appendTime: Int64 = 30_000
  /// Repeats that were recognised since the node started.
  private(set) var repeats = 0

  struct ClaimPolicy {
    /// This node's name.
    var node: String
    /// Tells this process apart from others that have this name, earlier.
    var life: UInt64
    /// How long a claim may keep others from the name, milliseconds.
    var time: Int64

    /// Of this process's claims.
    var header: [UInt8] { Array("\(node)/\(String(life, radix: 36))".utf8) }

    /// Whether a claim with such a header is of an earlier process.
    func isInherited(_ header: UnsafeRawBufferPointer) -> Bool {
      header.starts(with: "\(node)/".utf8) && !header.elementsEqual(self.header)
    }
  }

  /// What a claim has come to.
  enum Decision {
    /// It is the first: its event is to be appended, with this. `placed` must follow.
    case append(CorrelationID, Intake.Companion)
    /// Another one was first; `first` finds it.
    case isRepeat
    case failed(StatusError)
  }

  private struct Acknowledgement {
    var name: ByteSlice
    var durability: Durability
    var completion: (Intake.Outcome) -> Void
  }

  /// Read at a time for a repeat.
  private static let readBytes = 256 * 1024
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
    for id in inherited { release(inherited: id) }
    inherited = []
  }

  /// A claim of the process that had this node's name before. What that had under way was rolled back, or is in the log, when this one opened the log: nothing more
  /// comes of it. (A marker that is not visible yet stands before the release.)
  private func release(inherited id: CorrelationID) {
    if index.entry(id)?.claim != nil { release(id) }
  }

  func close() {
    follower.close()
    let open = claims
    claims.removeAll()
    for claim in open.values { claim.decide(.failed(StatusError(.unavailable, "the node is stopping", ran: .never))) }
  }

  private var clock: Int64 { grape_monotonic_ns() / 1_000_000 }

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

  /// Whether requests must be claimed instead of begun: others may take them, too.
  var needsClaims: Bool { policy != nil }

  /// Finds out whether a request is the first of its name wherever requests are taken; `decide` is called once.
  func claim(
    _ name: ByteSlice, call: CorrelationID?, fingerprint: UInt64, partition: Int32,
    decide: @escaping (Decision) -> Void
  ) {
    let forfeited = index.find(name, now: grape_realtime_ms(), window: window)?.marker.id
    let marker = remember(name, call, fingerprint, partition, claim: .sent)
    if let forfeited { hand(forfeited, to: marker.id) }
    claims[marker.id] = (clock, decide)
    sent.add(marker.id, due: clock + Self.appendTime)
    append(name, marker.with(.claim), durability: .disk, time: grape_realtime_ms()) { [self] result in
      // The topic's order decides, so nothing is known before it was read there.
      if case .failure(let error) = result { giveUp(marker.id, error.message) }
    }
  }

  private func remember(
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

  /// A claim came to nothing; whether it stands in the topic or not, its event will not be appended.
  private func giveUp(_ id: CorrelationID, _ why: String) {
    guard let claim = claims.removeValue(forKey: id) else { return }
    let error = StatusError(.unavailable, "the request was not taken: \(why)", ran: .never)
    release(id)
    fail(id, error)
    claim.decide(.failed(error))
  }

  /// Tells the other nodes that a claim's event will not come, so that they need not wait until its time is over.
  private func release(_ id: CorrelationID) {
    guard policy != nil, let name = index.name(id), let entry = index.entry(id) else { return }
    append(name, entry.marker.with(.release), durability: .disk, time: entry.time) { [logger, place] result in
      guard case .failure(let error) = result, error.code != .closed else { return }
      logger.warning(
        "an idempotency key stays taken for a while", metadata: ["topic": "\(place)", "error": "\(error)"])
    }
  }

  /// Forgets a request, and tells those who wait for it.
  private func fail(_ id: CorrelationID, _ error: StatusError) {
    index.remove(id)
    for call in waiting.removeValue(forKey: id) ?? [] { calls.fail(call, error) }
    for waiter in whenPlaced.removeValue(forKey: id) ?? [] { waiter.completion(.failure(error)) }
  }

  /// Those who wait for a request wait for the one that has taken its place.
  private func hand(_ id: CorrelationID, to other: CorrelationID) {
    if let calls = waiting.removeValue(forKey: id) { waiting[other, default: []] += calls }
    if let waiters = whenPlaced.removeValue(forKey: id) { whenPlaced[other, default: []] += waiters }
    claims.removeValue(forKey: id)?.decide(.isRepeat)
  }

  private func companion(_ name: ByteSlice, _ marker: RequestMarker) -> Intake.Companion {
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
  private func append(
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
    let name = ByteSlice(copying: key)
    switch marker.kind {
    case .placed: takeMarker(name, marker, placed)
    case .claim:
      takeClaim(name, marker, placed)
      guard let policy, let node = try record.claimingNode, policy.isInherited(node) else { return }
      if isLoading { inherited.append(marker.id) } else { release(inherited: marker.id) }
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

  private func takeClaim(_ name: ByteSlice, _ marker: RequestMarker, _ placed: PlacedRecord) {
    let until = clock + (policy?.time ?? 0)
    let entry = RequestIndex.Entry(marker.with(.placed), time: placed.timestamp, claim: .held(until: until))
    switch index.readClaim(name, entry, clock: clock, now: grape_realtime_ms(), window: window) {
    case .won:
      guard let claim = claims[marker.id] else { return release(marker.id) }
      if clock - claim.since >= Self.appendTime { return giveUp(marker.id, "the log took too long to take its claim") }
      claims[marker.id] = nil
      claim.decide(.append(marker.id, companion(name, index.entry(marker.id)?.marker ?? marker.with(.placed))))
    case .superseded(let other):
      hand(other, to: marker.id)
      hold(marker.id, until)
    case .noted: hold(marker.id, until)
    }
  }

  private func hold(_ id: CorrelationID, _ until: Int64) {
    if index.entry(id)?.claim != nil { held.add(id, due: until) }
  }

  /// A claim's time is over, unless others have put it off.
  private func void(_ id: CorrelationID) {
    guard let entry = index.entry(id), case .held(let until) = entry.claim else { return }
    if until > clock { return held.add(id, due: until) }
    fail(
      id,
      StatusError(
        .unavailable, "the node that took the first request did not get it into the log; it may be sent again",
        ran: .never))
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
