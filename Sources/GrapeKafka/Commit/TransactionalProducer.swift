internal import CRDKafka
internal import GrapeLog

/// Runs Kafka transactions, one at a time. Confined to the committer's thread.
final class TransactionalProducer {
  /// How a transaction ended.
  enum Outcome {
    case committed
    /// Nothing of it is or will be visible.
    case aborted(LogError)
    /// Nothing of it is or will be visible: the coordinator of a group does not take offsets from this member, for the
    /// reason given.
    case refused(GroupStay, rd_kafka_resp_err_t, LogError)
    /// Nothing of it will be visible once another producer has taken over; this one is stuck.
    case abandoned(LogError)
    /// It may or may not have been applied. `isOver`: another node has taken over the transactional id, so that nothing
    /// more can be committed; otherwise another producer goes on.
    case lost(LogError, isOver: Bool)
  }

  /// What a transaction commits for one group.
  struct GroupOffsets {
    let stay: GroupStay
    /// Nil: as if the group had no members.
    let identity: MemberIdentity?
    /// By names on the cluster.
    let offsets: [TopicPartition: CommittedOffset]
  }

  /// What the committer decides while a transaction is under way.
  struct Patience {
    /// Until when to try, nanoseconds of the monotonic clock; may change meanwhile.
    let deadline: () -> Int64
    /// Called every now and then.
    let meanwhile: () -> Void
    /// Called when the time is over and the cluster may have the commit: until when to go on asking for what became of it.
    let undecided: (LogError) -> Int64
  }

  let producer: Producer
  private let configuration: KafkaConfiguration
  private var isInitialised = false
  private var client: OpaquePointer { producer.client.pointer }
  /// When the transaction under way was begun, nanoseconds of the monotonic clock.
  private var begun: Int64 = 0
  private var meanwhile: () -> Void = {}
  /// Longest call into librdkafka, milliseconds: then there may be something else to see to.
  private static let slice = 1_000

  init(_ configuration: KafkaConfiguration) throws(LogError) {
    self.configuration = configuration
    // librdkafka wants no request and no message to outlive a transaction.
    let timeout = configuration.transactionTimeout
    let socketTimeout = min(configuration.settings["socket.timeout.ms"].flatMap { Int($0) } ?? timeout, timeout)
    producer = try Producer(
      configuration, messageTimeout: timeout,
      own: [
        ("transactional.id", configuration.namespace + configuration.transactionalID), ("linger.ms", "0"),
        ("transaction.timeout.ms", String(timeout)), ("socket.timeout.ms", String(socketTimeout)),
      ])
  }

  /// Takes over from an older producer of the same transactional id: what it had under way is rolled back, and it can
  /// commit no more.
  func initialise(_ patience: Patience) throws(LogError) {
    if isInitialised { return }
    try repeating(patience, "taking over the transactional id") { left in rd_kafka_init_transactions(client, left) }
    isInitialised = true
  }

  func initialise(until deadline: Int64) throws(LogError) {
    try initialise(Patience(deadline: { deadline }, meanwhile: {}, undecided: { _ in deadline }))
  }

  /// `produce` queues all messages.
  func run(
    _ ledger: DeliveryLedger, _ patience: Patience, offsets: [GroupOffsets], produce: () throws(LogError) -> Void
  ) -> Outcome {
    do throws(LogError) {
      try initialise(patience)
    } catch {
      return isFatal ? .lost(terminal(error), isOver: true) : .aborted(error)
    }
    begun = MonotonicClock.now
    meanwhile = patience.meanwhile
    defer { meanwhile = {} }
    if let error = rd_kafka_begin_transaction(client) {
      let error = KafkaError.log(consuming: error, "beginning a transaction")
      return giveUp(error, ledger)
    }
    do throws(LogError) {
      try produce()
    } catch {
      return abort(error, ledger)
    }
    for offsets in offsets {
      do throws(LogError) {
        try send(offsets, patience)
      } catch {
        let code = lastCode
        let outcome = abort(error, ledger)
        if case .aborted = outcome, Self.isStale(code) { return .refused(offsets.stay, code, error) }
        return outcome
      }
    }
    return commit(ledger, patience)
  }

  private func commit(_ ledger: DeliveryLedger, _ patience: Patience) -> Outcome {
    var limit: Int64?
    while true {
      do throws(LogError) {
        let patience =
          limit.map { limit in
            Patience(deadline: { limit }, meanwhile: patience.meanwhile, undecided: patience.undecided)
          } ?? patience
        try repeating(patience, "committing a transaction") { left in rd_kafka_commit_transaction(client, left) }
        producer.settle(ledger)
        return .committed
      } catch {
        // The cause is what the broker said of a message, if it said anything.
        let cause = ledger.firstFailure.map { KafkaError.log($0, "writing a transaction") } ?? error
        // While messages are under way the cluster was not asked to commit yet. Nor with messages that failed.
        if requiresAbort || !ledger.isComplete || ledger.firstFailure != nil {
          return abort(cause, ledger)
        }
        if isFatal { return fatalWhileCommitting(error, ledger) }
        // Only the cluster knows.
        guard limit == nil else { return giveUpUndecided(error, ledger) }
        limit = patience.undecided(error)
      }
    }
  }

  private func fatalWhileCommitting(_ error: LogError, _ ledger: DeliveryLedger) -> Outcome {
    producer.giveUp(ledger)
    let isOver = isTakenOver
    let message = terminal(error).message + "; it may or may not have been written"
    return .lost(LogError(isOver ? .failed : .unknown, message), isOver: isOver)
  }

  private func giveUpUndecided(_ error: LogError, _ ledger: DeliveryLedger) -> Outcome {
    producer.giveUp(ledger)
    return .lost(LogError(.unknown, error.message + "; it may or may not have been written"), isOver: false)
  }

  private func send(_ group: GroupOffsets, _ patience: Patience) throws(LogError) {
    let list = PartitionList(capacity: group.offsets.count)
    for (partition, committed) in group.offsets {
      list.add(
        partition.topic, partition.partition, offset: committed.offset,
        metadata: OffsetMetadata.encode(committed.metadata))
    }
    let name = configuration.namespace + group.stay.group
    let pointer = list.pointer
    // Without a member's generation where the group has no members here.
    let none = group.identity == nil ? rd_kafka_consumer_group_metadata_new(name) : nil
    defer { if let none { rd_kafka_consumer_group_metadata_destroy(none) } }
    let metadata = group.identity?.pointer ?? none
    try repeating(patience, "committing offsets of group \(group.stay.group)", slice: 5_000) { left in
      rd_kafka_send_offsets_to_transaction(client, pointer, metadata, left)
    }
    withExtendedLifetime(group.identity) {}
  }

  /// True for what a group's coordinator says to those who are not its members (any more), or not in this generation.
  private static func isStale(_ code: rd_kafka_resp_err_t) -> Bool {
    switch code {
    case RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION, RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
      RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID, RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS:
      true
    default: false
    }
  }

  private func abort(_ cause: LogError, _ ledger: DeliveryLedger) -> Outcome {
    if isFatal { return giveUp(cause, ledger) }
    let deadline = MonotonicClock.after(
      milliseconds: min(configuration.requestTimeout, configuration.commitTimeout, 5_000))
    let patience = Patience(deadline: { deadline }, meanwhile: meanwhile, undecided: { _ in deadline })
    do throws(LogError) {
      try repeating(patience, "rolling a transaction back") { left in rd_kafka_abort_transaction(client, left) }
    } catch {
      return giveUp(LogError(cause.code, "\(cause.message); then \(error.message)"), ledger)
    }
    producer.settle(ledger)
    return .aborted(cause)
  }

  /// The transaction was not committed and cannot be rolled back by this producer.
  private func giveUp(_ cause: LogError, _ ledger: DeliveryLedger) -> Outcome {
    producer.giveUp(ledger)
    if isTakenOver { return .lost(terminal(cause), isOver: true) }
    // With another producer the same may well succeed, as after a topic was made anew, whose broker does not know the
    // old sequence numbers, or after brokers have rolled the transaction back because it took too long.
    return .abandoned(isFatal ? LogError(.busy, terminal(cause).message) : cause)
  }

  /// Brokers say the same of a transaction that was open for too long and of one whose transactional id another node has
  /// taken; only the time tells which.
  private var isTakenOver: Bool {
    rd_kafka_fatal_error(client, nil, 0) == RD_KAFKA_RESP_ERR__FENCED
      && MonotonicClock.now - begun < Int64(configuration.transactionTimeout) * 1_000_000
  }

  private func terminal(_ error: LogError) -> LogError {
    var message = error.message
    var reason = [CChar](repeating: 0, count: 512)
    switch rd_kafka_fatal_error(client, &reason, reason.count) {
    case RD_KAFKA_RESP_ERR_NO_ERROR: break
    case RD_KAFKA_RESP_ERR__FENCED where isTakenOver: message += ": another node has taken over the transactional id"
    default:
      message += ": " + String(decoding: reason.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
    return LogError(.failed, message)
  }

  private var requiresAbort = false
  private var lastCode = RD_KAFKA_RESP_ERR_NO_ERROR

  /// Calls again what may be called again.
  private func repeating(
    _ patience: Patience, _ doing: String, slice: Int = slice, _ call: (Int32) -> OpaquePointer?
  ) throws(LogError) {
    requiresAbort = false
    let pause = Wakeup()
    while true {
      let left = min(MonotonicClock.milliseconds(until: patience.deadline()), slice)
      guard let error = call(Int32(left)) else { return }
      requiresAbort = rd_kafka_error_txn_requires_abort(error) != 0
      let retriable = rd_kafka_error_is_retriable(error) != 0
      lastCode = rd_kafka_error_code(error)
      let failure = KafkaError.log(consuming: error, doing)
      patience.meanwhile()
      guard retriable, MonotonicClock.after(milliseconds: 20) < patience.deadline() else { throw failure }
      pause.wait(until: MonotonicClock.after(milliseconds: 20))
    }
  }

  var isFatal: Bool { rd_kafka_fatal_error(client, nil, 0) != RD_KAFKA_RESP_ERR_NO_ERROR }
}
