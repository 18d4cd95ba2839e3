internal import CGrapeLinux
internal import GrapeCore
internal import GrapeEngine
internal import GrapeLog
internal import GrapeReactor
internal import GrapeWire
internal import Logging

/// Blocking events that somebody waits for, and the reply topic that answers come in by.
final class CallTable {
  /// What a caller gets: one reply of perhaps several.
  struct Reply {
    var status: ReplyStatus
    var value: UnsafeRawBufferPointer?
  }

  private struct Call {
    /// The other half of its correlation id.
    var secret: UInt64
    var deliver: (Reply) -> Void
    /// Whether the event was handed to a worker: asked when the time is up.
    var wasDelivered: () -> Bool
    /// Where its event is in the log, once that is known, if the event is its own.
    var event: (partition: TopicPartition, offset: Int64)?
  }

  /// Calls that may be open at a time.
  static let limit = 262_144
  /// Deadlines are looked at in steps of this many milliseconds.
  private static let step: Int64 = 10

  let topic: String
  private let log: any EventLog
  private let reactor: Reactor
  private let logger: Logger
  /// One for each call: so a correlation id cannot be guessed, and only those who were given an event with it can answer. It also
  /// sets this life of the node apart from earlier ones, whose replies may still come.
  private var secrets = RandomNumbers()
  private var next: UInt64 = 0
  private var calls: [UInt64: Call] = [:]
  private var expiring: [Int64: [UInt64]] = [:]
  private var follower: TopicFollower?
  private var isClosed = false

  init(topic: String, log: any EventLog, reactor: Reactor, logger: Logger) {
    self.topic = topic
    self.log = log
    self.reactor = reactor
    self.logger = logger
  }

  /// Begins to listen at the end of the reply topic, which must exist.
  func start(completion: @escaping (LogError?) -> Void) {
    let place = TopicPartition(topic, 0)
    let follower = TopicFollower(place, log: log, reactor: reactor, logger: logger) {
      [unowned self] (placed) throws(WireError) in try take(placed.record)
    }
    self.follower = follower
    log.bounds(
      of: place,
      completion: reactor.completion { result in
        switch result {
        case .success(let bounds):
          follower.start(at: bounds.end)
          completion(nil)
        case .failure(let error): completion(error)
        }
      })
  }

  /// Opens a call; nil if too many are open. `deliver` is called for each reply up to the final one.
  func open(
    timeoutMilliseconds: Int64, wasDelivered: @escaping () -> Bool, deliver: @escaping (Reply) -> Void
  ) -> CorrelationID? {
    guard calls.count < Self.limit, !isClosed else { return nil }
    next += 1
    let secret = secrets.next()
    calls[next] = Call(secret: secret, deliver: deliver, wasDelivered: wasDelivered)
    let slot = (grape_monotonic_ns() / 1_000_000 + timeoutMilliseconds) / Self.step + 1
    if expiring[slot] == nil {
      expiring[slot] = [next]
      reactor.schedule(after: slot * Self.step * 1_000_000 - grape_monotonic_ns()) { [self] in expire(slot) }
    } else {
      expiring[slot]?.append(next)
    }
    return CorrelationID(high: secret, low: next)
  }

  /// The header value that sends replies here.
  func address(of call: CorrelationID) -> [UInt8] {
    ReplyAddress(correlation: call, partition: 0, topic: topic).encoded
  }

  /// A call's own event is in the log.
  func placed(_ call: CorrelationID, _ partition: TopicPartition, _ offset: Int64) {
    calls[call.low]?.event = (partition, offset)
  }

  /// Nobody waits any more.
  func forget(_ call: CorrelationID) { calls[call.low] = nil }

  /// Ends a call with a reply of the node's own.
  func fail(_ call: CorrelationID, _ error: StatusError) {
    calls.removeValue(forKey: call.low)?.deliver(
      Reply(status: ReplyStatus(error.status, ran: error.ran, code: error.code, message: error.message), value: nil))
  }

  /// Ends all calls: the node is stopping. Their events are in the log and will run.
  func close() {
    isClosed = true
    follower?.close()
    let open = calls
    calls.removeAll()
    let status = ReplyStatus(.unavailable, ran: .unknown, message: "the node is stopping; the event stays queued")
    for call in open.values { call.deliver(Reply(status: status, value: nil)) }
  }

  private func expire(_ slot: Int64) {
    for number in expiring.removeValue(forKey: slot) ?? [] {
      guard let call = calls.removeValue(forKey: number) else { continue }
      // Not delivered by now means never started: workers do not start what is past its deadline.
      let ran: Ran = call.wasDelivered() ? .unknown : .never
      let message = ran == .never ? "no worker took the event in time" : "no reply came in time"
      call.deliver(Reply(status: ReplyStatus(.deadlineExceeded, ran: ran, message: message), value: nil))
    }
  }

  // MARK: The reply topic

  private func take(_ record: Record) throws(WireError) {
    guard let key = record.key, let id = CorrelationID(key), let status = try record.replyStatus else { return }
    deliver(Reply(status: status, value: record.value), to: id)
  }

  /// Hands on replies that come of certain events and are not in the log yet, to those whose calls they end. What comes of them by the topic later is for
  /// nobody. True: nobody waits for any of them now.
  ///
  /// Only to calls for these very events, so that no reply of an earlier stage of a chain, on its way through the log, is overtaken; and only if the last is
  /// among them, so that none is told twice.
  func take(ahead replies: Transaction.Append, of events: LogRange) -> Bool {
    guard replies.partition.topic == topic else { return false }
    let batch = LogBatch(
      bytes: replies.batch, baseOffset: 0, lastOffset: Int64(replies.recordCount) - 1,
      maxTimestamp: replies.maxTimestamp)
    var ending: Set<CorrelationID> = []
    var others: Set<CorrelationID> = []
    do throws(WireError) {
      try batch.forEachRecord(from: 0) { (placed) throws(WireError) in
        guard let key = placed.record.key, let id = CorrelationID(key), isOpen(id) else { return }
        if let event = calls[id.low]?.event, event.partition == events.partition, events.offsets.contains(event.offset),
          let status = try placed.record.replyStatus, status.isFinal
        {
          ending.insert(id)
        } else {
          others.insert(id)
        }
      }
      if !ending.isEmpty {
        try batch.forEachRecord(from: 0) { (placed) throws(WireError) in
          if let key = placed.record.key, let id = CorrelationID(key), ending.contains(id) { try take(placed.record) }
        }
      }
      return others.isSubset(of: ending)
    } catch {
      // Told when it comes by the topic.
      return false
    }
  }

  /// Hands a reply to whoever waits for it, if anybody does.
  func deliver(_ reply: Reply, to id: CorrelationID) {
    guard let call = calls[id.low], call.secret == id.high else { return }
    if reply.status.isFinal { calls[id.low] = nil }
    call.deliver(reply)
  }

  /// Whether somebody waits for replies to this call.
  func isOpen(_ id: CorrelationID) -> Bool { calls[id.low]?.secret == id.high }
}

extension Record {
  /// How an event ended, if the record is a reply.
  var replyStatus: ReplyStatus? {
    get throws(WireError) {
      var headers = headers
      while let (name, value) = try headers.next() {
        if name.elementsEqual("g.s".utf8), let value { return try ReplyStatus(value) }
      }
      return nil
    }
  }
}
