internal import CRDKafka
internal import GrapeLog
internal import GrapeWire

/// Takes transactions to the cluster on a thread of its own: what waits goes together, one group at a time, in order.
///
/// `@unchecked Sendable`: everything but the queue is used by that thread alone.
final class Committer: @unchecked Sendable {
  private let queue: CommitQueue
  private let configuration: KafkaConfiguration
  private let directory: TopicDirectory
  private let queries: PartitionQueries
  private var transactional: TransactionalProducer
  private var plain: Producer
  private var grouping: CommitGrouping
  /// Why the log takes no more commits.
  private var failure: LogError?
  /// Memory that a lost producer may still read from; it goes with the committer, after the producer.
  private var lost: [PreparedTransaction] = []

  /// Opens the producers and takes the transactional id over. Blocks.
  init(
    _ configuration: KafkaConfiguration, _ directory: TopicDirectory, _ queries: PartitionQueries
  ) throws(LogError) {
    self.configuration = configuration
    self.directory = directory
    self.queries = queries
    queue = CommitQueue(limitBytes: configuration.waitingBytes, limitCount: configuration.waitingTransactions)
    transactional = try TransactionalProducer(configuration)
    plain = try Self.makePlain(configuration)
    // librdkafka closes a set at the lesser of these; its header and the request around it are well below 4 KiB.
    let setBytes = min(plain.setting("batch.size") ?? 1_000_000, plain.setting("message.max.bytes") ?? 1_000_000)
    grouping = CommitGrouping(
      setBytes: setBytes - 4_096, setRecords: 900_000, allowsPlain: configuration.appendsPlainly)
    try transactional.initialise(until: MonotonicClock.after(milliseconds: configuration.requestTimeout))
  }

  /// Sends nothing before it is flushed, so that what is queued together goes in one set of messages per partition.
  private static func makePlain(_ configuration: KafkaConfiguration) throws(LogError) -> Producer {
    try Producer(configuration, own: [("linger.ms", String(configuration.commitTimeout - 1_000))])
  }

  func commit(
    _ transaction: Transaction, completion: @escaping @Sendable (Result<CommitReceipt, LogError>) -> Void
  ) {
    let waiting = CommitQueue.Waiting(
      transaction: transaction, completion: completion, since: MonotonicClock.now)
    if let refusal = queue.add(waiting) { completion(.failure(refusal)) }
  }

  func forget(topic: String) { queue.forget(topic: topic) }

  func start() { LogThread.start("kafka-commit") { self.run() } }

  private var ended: (@Sendable () -> Void)?

  /// Finishes what was accepted, then calls `last` on the committer's thread.
  func stop(last: @escaping @Sendable () -> Void) {
    // Read by the thread behind the queue's lock, which `close` releases.
    ended = last
    queue.close()
  }

  private func run() {
    while true {
      let work = queue.take(
        bytes: configuration.commitBytes, count: configuration.commitTransactions,
        interval: Int64(configuration.commitInterval) * 1_000_000)
      switch work {
      case .end:
        ended?()
        return
      case .nothing(let until): queue.wakeup.wait(until: until)
      case .entries(let entries): handle(entries)
      }
    }
  }

  private func handle(_ entries: [CommitQueue.Entry]) {
    var waiting: [PreparedTransaction] = []
    for entry in entries {
      switch entry {
      case .commit(let commit):
        do throws(LogError) {
          waiting.append(try prepare(commit))
        } catch {
          // In its turn: those before it are answered first.
          write(waiting)
          waiting = []
          commit.completion(.failure(error))
        }
      case .forget(let topic):
        write(waiting)
        waiting = []
        forgetNow(directory.clusterName(topic))
      }
    }
    write(waiting)
  }

  private func prepare(_ waiting: CommitQueue.Waiting) throws(LogError) -> PreparedTransaction {
    try waiting.transaction.check()
    if let failure { throw failure }
    for append in waiting.transaction.appends { try directory.check(append.partition) }
    for commit in waiting.transaction.offsets { try directory.check(commit.partition) }
    return try PreparedTransaction(waiting, unpackedLimit: configuration.unpackedBatchBytes)
  }

  private func forgetNow(_ clusterName: String) {
    transactional.producer.forget(clusterName)
    guard plain.hasWritten(to: clusterName) else { return }
    // A partition made anew does not know the sequence numbers of the old one; a new producer begins at 0.
    renewPlain()
  }

  private func renewPlain() {
    do throws(LogError) {
      plain = try Self.makePlain(configuration)
    } catch {
      failure = error
    }
  }

  private func write(_ waiting: [PreparedTransaction]) {
    var rest = waiting[...]
    while !rest.isEmpty {
      let (count, kind) = grouping.next(rest)
      let group = Array(rest.prefix(count))
      rest = rest.dropFirst(count)
      if let failure {
        for transaction in group { transaction.completion(.failure(failure)) }
        continue
      }
      switch kind {
      case .empty:
        for transaction in group { transaction.completion(.success(CommitReceipt(durability: .disk, baseOffsets: []))) }
      case .plain: writePlainly(group)
      case .transactional: writeTransaction(group)
      }
    }
  }

  // MARK: one set of messages per partition

  private func writePlainly(_ group: [PreparedTransaction]) {
    let deadline = MonotonicClock.after(milliseconds: configuration.commitTimeout + 1_000)
    let ledger = DeliveryLedger(appends: group.reduce(0) { $0 + $1.batches.count })
    plain.client.ledger = ledger
    var refusals: [Int: LogError] = [:]
    var place = 0
    for (index, transaction) in group.enumerated() {
      do throws(LogError) {
        try produce(transaction, with: plain, ledger, &place, deadline: deadline)
      } catch {
        refusals[index] = error
      }
    }
    if refusals.isEmpty {
      plain.flush(ledger, until: deadline)
    } else {
      // Something was refused half-way. Nothing was sent yet: nothing of this group will be.
      plain.giveUp(ledger)
    }
    plain.client.ledger = nil
    answerPlain(group, ledger, refusals)
    if rd_kafka_fatal_error(plain.client.pointer, nil, 0) != RD_KAFKA_RESP_ERR_NO_ERROR { renewPlain() }
  }

  private func answerPlain(_ group: [PreparedTransaction], _ ledger: DeliveryLedger, _ refusals: [Int: LogError]) {
    var place = 0
    for (index, transaction) in group.enumerated() {
      let deliveries = ledger.deliveries[place..<place + transaction.batches.count]
      place += transaction.batches.count
      if transaction.isEmpty {
        transaction.completion(.success(CommitReceipt(durability: .disk, baseOffsets: [])))
        continue
      }
      guard let failed = deliveries.first(where: { $0.failure != RD_KAFKA_RESP_ERR_NO_ERROR }) else {
        if let refusal = refusals[index] {
          transaction.completion(.failure(refusal))
        } else {
          transaction.completion(.success(receipt(deliveries)))
        }
        continue
      }
      let partition = transaction.transaction.appends[0].partition
      if deliveries.contains(where: \.mayBeThere) {
        let error = KafkaError.log(failed.failure, "writing to \(partition)")
        transaction.completion(.failure(LogError(.failed, error.message + "; it may or may not have been written")))
      } else if group.count > 1, !refusals.isEmpty || KafkaError.kind(failed.failure) != .busy {
        // Not written, perhaps for another's fault: alone it may do better. Those behind it are in other partitions, or
        // failed with it, so that the order holds. Not so where the cluster was out of reach: that is nobody's fault.
        writePlainly([transaction])
      } else {
        let error = refusals[index] ?? KafkaError.log(failed.failure, "writing to \(partition)")
        if error.code != .busy { doubt(transaction, plain) }
        transaction.completion(.failure(error))
      }
    }
  }

  private func receipt(_ deliveries: some Sequence<DeliveryLedger.Delivery>) -> CommitReceipt {
    CommitReceipt(durability: .disk, baseOffsets: deliveries.map(\.baseOffset))
  }

  private func produce(
    _ transaction: PreparedTransaction, with producer: Producer, _ ledger: DeliveryLedger, _ place: inout Int,
    deadline: Int64
  ) throws(LogError) {
    let first = place
    place += transaction.batches.count
    for (index, append) in transaction.transaction.appends.enumerated() {
      try producer.produce(
        transaction.batches[index], to: directory.clusterName(append.partition.topic), append.partition.partition,
        ledger, first + index, deadline: deadline)
    }
  }

  // MARK: one Kafka transaction

  private func writeTransaction(_ group: [PreparedTransaction]) {
    writeTransaction(group, until: MonotonicClock.after(milliseconds: configuration.commitTimeout))
  }

  private func writeTransaction(_ group: [PreparedTransaction], until deadline: Int64) {
    let ledger = DeliveryLedger(appends: group.reduce(0) { $0 + $1.batches.count })
    let producer = transactional.producer
    producer.client.ledger = ledger
    // Kept where reports may still come.
    defer { if ledger.isComplete { producer.client.ledger = nil } }
    let outcome = transactional.run(ledger, until: deadline, offsets: offsets(of: group)) { () throws(LogError) in
      var place = 0
      for transaction in group { try produce(transaction, with: producer, ledger, &place, deadline: deadline) }
    }
    switch outcome {
    case .committed: answer(group, ledger, visibleBy: deadline)
    case .aborted(let error):
      if error.code == .busy, MonotonicClock.now < deadline {
        // Also how librdkafka 2.0.2 gets over a message that was refused before: its next transaction fails for sequence
        // numbers that were skipped, and the one after that has new ones.
        writeTransaction(group, until: deadline)
      } else if error.code == .busy {
        for transaction in group { transaction.completion(.failure(error)) }
      } else if group.count == 1 {
        doubt(group[0], transactional.producer)
        group[0].completion(.failure(error))
      } else {
        // One of them is at fault, and only it shall fail.
        for transaction in group {
          if let failure { transaction.completion(.failure(failure)) } else { writeTransaction([transaction]) }
        }
      }
    case .abandoned(let error):
      // Another producer rolls back what this one left, once the cluster is there again.
      do throws(LogError) {
        transactional = try TransactionalProducer(configuration)
      } catch {
        failure = error
      }
      for transaction in group { transaction.completion(.failure(error)) }
    case .lost(let error):
      failure = error
      lost = group
      for transaction in group { transaction.completion(.failure(error)) }
    }
  }

  /// Has both ask the cluster again about the topics of a transaction that was refused: librdkafka remembers some refusals.
  private func doubt(_ transaction: PreparedTransaction, _ producer: Producer) {
    for append in transaction.transaction.appends {
      directory.doubt(append.partition.topic)
      producer.forget(directory.clusterName(append.partition.topic))
    }
  }

  private func offsets(of group: [PreparedTransaction]) -> [String: [TopicPartition: CommittedOffset]] {
    var offsets: [String: [TopicPartition: CommittedOffset]] = [:]
    for commit in group.lazy.flatMap(\.transaction.offsets) {
      let partition = TopicPartition(
        directory.clusterName(commit.partition.topic), commit.partition.partition)
      offsets[configuration.namespace + commit.group, default: [:]][partition] = commit.committed
    }
    return offsets
  }

  /// Brokers answer before the markers that make a transaction visible are written everywhere; a receipt promises more.
  private func answer(_ group: [PreparedTransaction], _ ledger: DeliveryLedger, visibleBy deadline: Int64) {
    var last: [TopicPartition: Int64] = [:]
    for (append, delivery) in zip(group.lazy.flatMap(\.transaction.appends), ledger.deliveries) {
      let partition = TopicPartition(
        directory.clusterName(append.partition.topic), append.partition.partition)
      last[partition] = max(last[partition] ?? -1, delivery.lastOffset)
    }
    do throws(LogError) {
      if !last.isEmpty { try queries.waitUntilVisible(last, until: deadline) }
    } catch {
      // It is committed all the same; only readers may be late.
      configuration.log?(
        KafkaLogLine(level: 4, facility: "COMMIT", message: "committed, but not visible in time: \(error.message)"))
    }
    var place = 0
    for transaction in group {
      let deliveries = ledger.deliveries[place..<place + transaction.batches.count]
      place += transaction.batches.count
      transaction.completion(.success(receipt(deliveries)))
    }
  }
}
