internal import CRDKafka
internal import GrapeLog

/// Runs Kafka transactions, one at a time. Confined to the committer's thread.
final class TransactionalProducer {
  /// How a transaction ended.
  enum Outcome {
    case committed
    /// Nothing of it is or will be visible.
    case aborted(LogError)
    /// Nothing of it will be visible once another producer has taken over; this one is stuck.
    case abandoned(LogError)
    /// It may or may not have been applied, or the producer is of no use any more.
    case lost(LogError)
  }

  let producer: Producer
  private let configuration: KafkaConfiguration
  private var isInitialised = false
  private var client: OpaquePointer { producer.client.pointer }

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
  func initialise(until deadline: Int64) throws(LogError) {
    if isInitialised { return }
    try repeating(until: deadline, "taking over the transactional id") { left in
      rd_kafka_init_transactions(client, left)
    }
    isInitialised = true
  }

  /// `produce` queues all messages; `offsets` are of groups and topics by their names on the cluster.
  func run(
    _ ledger: DeliveryLedger, until deadline: Int64, offsets: [String: [TopicPartition: CommittedOffset]],
    produce: () throws(LogError) -> Void
  ) -> Outcome {
    do throws(LogError) {
      try initialise(until: deadline)
    } catch {
      return isFatal ? .lost(error) : .aborted(error)
    }
    if let error = rd_kafka_begin_transaction(client) {
      let error = KafkaError.log(consuming: error, "beginning a transaction")
      return .lost(terminal(error))
    }
    do throws(LogError) {
      try produce()
      for (group, partitions) in offsets { try send(partitions, of: group, until: deadline) }
    } catch {
      return abort(error, ledger, until: deadline)
    }
    do throws(LogError) {
      try repeating(until: deadline, "committing a transaction") { left in rd_kafka_commit_transaction(client, left) }
      producer.settle(ledger)
      return .committed
    } catch {
      // The cause is what the broker said of a message, if it said anything.
      let cause = ledger.firstFailure.map { KafkaError.log($0, "writing a transaction") } ?? error
      // While messages are under way the cluster was not asked to commit yet.
      // Nor with messages that failed.
      if requiresAbort || !ledger.isComplete || ledger.firstFailure != nil {
        return abort(cause, ledger, until: deadline)
      }
      return .lost(terminal(error))
    }
  }

  private func send(
    _ offsets: [TopicPartition: CommittedOffset], of group: String, until deadline: Int64
  ) throws(LogError) {
    let list = PartitionList(capacity: offsets.count)
    for (partition, committed) in offsets {
      list.add(
        partition.topic, partition.partition, offset: committed.offset,
        metadata: OffsetMetadata.encode(committed.metadata))
    }
    // Without a member's generation: the group has no members on the cluster.
    let metadata = rd_kafka_consumer_group_metadata_new(group)
    defer { rd_kafka_consumer_group_metadata_destroy(metadata) }
    let pointer = list.pointer
    try repeating(until: deadline, "committing offsets of group \(group)") { left in
      rd_kafka_send_offsets_to_transaction(client, pointer, metadata, left)
    }
  }

  private func abort(_ cause: LogError, _ ledger: DeliveryLedger, until deadline: Int64) -> Outcome {
    if isFatal { return giveUp(cause, ledger) }
    let deadline = max(
      deadline,
      MonotonicClock.after(milliseconds: min(configuration.requestTimeout, configuration.commitTimeout, 5_000)))
    do throws(LogError) {
      try repeating(until: deadline, "rolling a transaction back") { left in rd_kafka_abort_transaction(client, left) }
    } catch {
      return giveUp(LogError(cause.code, "\(cause.message); then \(error.message)"), ledger)
    }
    producer.settle(ledger)
    return .aborted(cause)
  }

  /// The transaction was not committed and cannot be rolled back by this producer.
  private func giveUp(_ cause: LogError, _ ledger: DeliveryLedger) -> Outcome {
    producer.giveUp(ledger)
    let fatal = rd_kafka_fatal_error(client, nil, 0)
    if fatal == RD_KAFKA_RESP_ERR__FENCED { return .lost(terminal(cause)) }
    // With another producer the same may well succeed, as after a topic was made anew, whose broker does not know the
    // old sequence numbers.
    return .abandoned(fatal == RD_KAFKA_RESP_ERR_NO_ERROR ? cause : LogError(.busy, terminal(cause).message))
  }

  private func terminal(_ error: LogError) -> LogError {
    var message = error.message
    var reason = [CChar](repeating: 0, count: 512)
    switch rd_kafka_fatal_error(client, &reason, reason.count) {
    case RD_KAFKA_RESP_ERR_NO_ERROR: break
    case RD_KAFKA_RESP_ERR__FENCED: message += ": another node has taken over the transactional id"
    default:
      message += ": " + String(decoding: reason.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
    return LogError(.failed, message)
  }

  private var requiresAbort = false

  /// Calls again what may be called again.
  private func repeating(
    until deadline: Int64, _ doing: String, _ call: (Int32) -> OpaquePointer?
  ) throws(LogError) {
    requiresAbort = false
    let pause = Wakeup()
    while true {
      guard let error = call(Int32(MonotonicClock.milliseconds(until: deadline))) else { return }
      requiresAbort = rd_kafka_error_txn_requires_abort(error) != 0
      let retriable = rd_kafka_error_is_retriable(error) != 0
      let failure = KafkaError.log(consuming: error, doing)
      guard retriable, MonotonicClock.after(milliseconds: 20) < deadline else { throw failure }
      pause.wait(until: MonotonicClock.after(milliseconds: 20))
    }
  }

  var isFatal: Bool { rd_kafka_fatal_error(client, nil, 0) != RD_KAFKA_RESP_ERR_NO_ERROR }
}
