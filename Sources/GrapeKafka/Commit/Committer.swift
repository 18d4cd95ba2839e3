internal import CRDKafka
internal import GrapeLog
internal import GrapeWire

/// Takes transactions to the cluster on a thread of its own: what waits goes together, one group at a time, in order. Single records that would find nothing
/// waiting go by the express way, without that thread.
///
/// `@unchecked Sendable`: what is not Sendable is used by that thread alone.
final class Committer: @unchecked Sendable {
  let queue: CommitQueue
  let configuration: KafkaConfiguration
  let directory: TopicDirectory
  let answers: CommitAnswers
  let ownership: GroupOwnership
  let memory: OffsetMemory
  let meters: KafkaMeters
  var transactional: TransactionalProducer
  var plain: Producer
  var grouping: CommitGrouping
  /// Nil until the rest of this is there.
  private(set) var express: ExpressProducer!
  /// Told of small batches that were written to a partition, without a transaction, and of their first records' offsets. To be set before `start`.
  var whenWritten: (@Sendable (TopicPartition, UnpackedBatch, Int64) -> Void)?
  /// Larger ones are not told of: that would cost more than it saves. Records.
  private static let smallBatch = 64
  /// Why the log takes no more commits.
  var failure: LogError? {
    didSet { if failure != nil { queue.endAllExpress() } }
  }
  /// Taken from the queue, and next to be written.
  var backlog: [PreparedTransaction] = []

  /// Opens the producers and takes the transactional id over. Blocks.
  init(
    _ configuration: KafkaConfiguration, _ directory: TopicDirectory, _ queries: PartitionQueries,
    _ ownership: GroupOwnership, _ memory: OffsetMemory, _ meters: KafkaMeters
  ) throws(LogError) {
    self.ownership = ownership
    self.memory = memory
    self.meters = meters
    self.configuration = configuration
    self.directory = directory
    answers = CommitAnswers(queries, limit: configuration.waitingTransactions, log: configuration.log)
    queue = CommitQueue(limitBytes: configuration.waitingBytes, limitCount: configuration.waitingTransactions)
    transactional = try TransactionalProducer(configuration)
    plain = try Self.makePlain(configuration)
    // librdkafka closes a set at the lesser of these; its header and the request around it are well below 4 KiB.
    let setBytes = min(plain.setting("batch.size") ?? 1_000_000, plain.setting("message.max.bytes") ?? 1_000_000)
    grouping = CommitGrouping(
      setBytes: setBytes - 4_096, setRecords: 900_000, allowsPlain: configuration.appendsPlainly)
    try transactional.initialise(until: MonotonicClock.after(milliseconds: configuration.requestTimeout))
    express = try ExpressProducer(configuration) { [weak self] in self?.sent($0, $1) }
  }

  /// Sends nothing before it is flushed, so that what is queued together goes in one set of messages per partition.
  static func makePlain(_ configuration: KafkaConfiguration) throws(LogError) -> Producer {
    try Producer(
      configuration, messageTimeout: configuration.commitTimeout,
      own: [("linger.ms", String(configuration.commitTimeout - 1_000))])
  }

  func commit(
    _ transaction: Transaction, completion: @escaping @Sendable (Result<CommitReceipt, LogError>) -> Void
  ) {
    var stays: [String: UInt64] = [:]
    for commit in transaction.offsets where stays[commit.group] == nil {
      stays[commit.group] = ownership.token(of: commit.group)
    }
    var waiting = CommitQueue.Waiting(
      transaction: transaction, completion: completion, since: MonotonicClock.now,
      deadline: transaction.isPatient ? nil : MonotonicClock.after(milliseconds: configuration.commitTimeout),
      stays: stays, terms: transaction.offsets.map { ownership.term(of: $0.partition, in: $0.group) })
    if ExpressProducer.suits(transaction), grouping.allowsPlain, sendNow(&waiting) { return }
    if let refusal = queue.add(waiting) { completion(.failure(refusal)) }
  }

  func forget(topic: String) { queue.forget(topic: topic) }

  func start() {
    answers.start()
    BackgroundThread.start("kafka-commit") { self.run() }
  }

  var ended: (@Sendable () -> Void)?

  /// Finishes what was accepted, then calls `last` on a thread of the committer's.
  func stop(last: @escaping @Sendable () -> Void) {
    // Read by the thread behind the queue's lock, which `close` releases.
    ended = last
    queue.close()
  }

  func run() {
    while true {
      let work = queue.take(
        bytes: configuration.commitBytes, count: configuration.commitTransactions,
        interval: Int64(configuration.commitInterval) * 1_000_000)
      switch work {
      case .end:
        express.close()
        // Let go of: it may hold on to the log, and that to the committer.
        let last = ended
        ended = nil
        if let last { answers.stop(last: last) }
        return
      case .nothing(let until): queue.wakeup.wait(until: until)
      case .entries(let entries): handle(entries)
      }
    }
  }

  func handle(_ entries: [CommitQueue.Entry]) {
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
          refuse(commit, error)
        }
      case .returned(let transaction, let failure):
        write(waiting)
        waiting = []
        takeBack(transaction, failure)
      case .forget(let topic):
        write(waiting)
        waiting = []
        forgetNow(directory.clusterName(topic))
      }
    }
    write(waiting)
  }

  func prepare(_ waiting: CommitQueue.Waiting) throws(LogError) -> PreparedTransaction {
    try waiting.transaction.check()
    if let failure { throw failure }
    for partition in waiting.transaction.appends.map(\.partition) + waiting.transaction.offsets.map(\.partition)
    where !directory.knows(partition) { try check(partition, for: waiting) }
    return try PreparedTransaction(waiting, unpackedLimit: configuration.unpackedBatchBytes)
  }

  /// Errors: those of `TopicDirectory.check`, but if the cluster is out of reach a patient transaction waits.
  private func check(_ partition: TopicPartition, for waiting: CommitQueue.Waiting) throws(LogError) {
    while true {
      do throws(LogError) {
        return try directory.check(partition, timeout: min(configuration.requestTimeout, configuration.commitTimeout))
      } catch {
        guard error.code == .busy, waiting.transaction.isPatient else { throw error }
        refuseLate()
        if queue.closedAt != nil { throw .closedLog }
        queue.closing.wait(until: MonotonicClock.after(milliseconds: Self.longestPause))
      }
    }
  }

  func forgetNow(_ clusterName: String) {
    transactional.producer.forget(clusterName)
    if let topic = directory.ownName(clusterName) { memory.forget(topic: topic) }
    // A partition made anew may not know the sequence numbers of the old one; a new producer begins at 0. (The
    // transactional one is only replaced once a broker complains: a new one takes the transactional id over, whoever
    // has it now.)
    if plain.hasWritten(to: clusterName) { renewPlain() }
    do throws(LogError) { try express.forget(clusterName) } catch { failure = error }
  }

  /// - Parameter group: whose memory the producer may still read from.
  func renewTransactional(_ group: [PreparedTransaction]) {
    transactional.producer.client.keepUntilEnd(group)
    do throws(LogError) {
      transactional = try TransactionalProducer(configuration)
    } catch {
      failure = error
    }
  }

  /// - Parameter group: whose memory the producer may still read from.
  func renewPlain(_ group: [PreparedTransaction] = []) {
    plain.client.keepUntilEnd(group)
    do throws(LogError) {
      plain = try Self.makePlain(configuration)
    } catch {
      failure = error
    }
  }

  func write(_ waiting: [PreparedTransaction]) {
    backlog = waiting
    while true {
      refuseLate()
      if backlog.isEmpty { return }
      let (count, kind) = grouping.next(backlog)
      let group = Array(backlog.prefix(count))
      backlog.removeFirst(count)
      if let failure {
        for transaction in group { refuse(transaction, failure, wasTried: false) }
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

  /// Refuses those that wait for longer than they may.
  func refuseLate() {
    let now = MonotonicClock.now
    let late = backlog.filter { $0.isLate(now) }
    if !late.isEmpty {
      backlog.removeAll { $0.isLate(now) }
      for transaction in late { refuse(transaction, .lateCommit, wasTried: false) }
    }
    for waiting in queue.takeLate(now) { refuse(waiting, .lateCommit) }
  }

  /// Answers a transaction that was not written, as far as is known.
  /// - Parameters:
  ///   - wasTried: `memory.begin` was called for it.
  ///   - isUnknown: it may have been written all the same.
  func refuse(_ transaction: PreparedTransaction, _ error: LogError, wasTried: Bool, isUnknown: Bool = false) {
    memory.failed(
      transaction.transaction, number: transaction.number, wasTried: wasTried, isUnknown: isUnknown,
      horizon: queue.lastNumber)
    meters.refused(error)
    answer(transaction.transaction, .failure(error), transaction.completion)
  }

  private func refuse(_ waiting: CommitQueue.Waiting, _ error: LogError) {
    memory.failed(
      waiting.transaction, number: waiting.number, wasTried: false, isUnknown: false, horizon: queue.lastNumber)
    meters.refused(error)
    answer(waiting.transaction, .failure(error), waiting.completion)
  }

  // MARK: one set of messages per partition

  func writePlainly(_ group: [PreparedTransaction]) {
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
    // Before those are answered, or written alone.
    if plain.isUnusable || rd_kafka_fatal_error(plain.client.pointer, nil, 0) != RD_KAFKA_RESP_ERR_NO_ERROR {
      renewPlain(group)
    }
    answerPlain(group, ledger, refusals)
  }

  func answerPlain(_ group: [PreparedTransaction], _ ledger: DeliveryLedger, _ refusals: [Int: LogError]) {
    var place = 0
    var again: [PreparedTransaction] = []
    for (index, transaction) in group.enumerated() {
      let places = place..<place + transaction.batches.count
      let deliveries = ledger.deliveries(places)
      place = places.upperBound
      if transaction.isEmpty {
        transaction.completion(.success(CommitReceipt(durability: .disk, baseOffsets: [])))
        continue
      }
      guard let failed = deliveries.first(where: { $0.failure != RD_KAFKA_RESP_ERR_NO_ERROR }) else {
        if let refusal = refusals[index] {
          refuse(transaction, refusal, wasTried: false)
        } else {
          meters.committed(transaction, isPlain: true)
          tellWritten(transaction, deliveries)
          answer(transaction.transaction, .success(ledger.receipt(places)), transaction.completion)
          if ExpressProducer.suits(transaction.transaction) {
            express.prepare(directory.clusterName(transaction.transaction.appends[0].partition.topic))
          }
        }
        continue
      }
      let partition = transaction.transaction.appends[0].partition
      let isUnknown = deliveries.contains(where: \.mayBeThere)
      if transaction.mayRepeat, isUnknown || KafkaError.kind(failed.failure) == .busy {
        // With less hurry, and for as long as it may take.
        again.append(transaction)
      } else if isUnknown {
        let error = KafkaError.log(failed.failure, "writing to \(partition)")
        refuse(
          transaction, LogError(.unknown, error.message + "; it may or may not have been written"), wasTried: false)
      } else if group.count > 1, !refusals.isEmpty || KafkaError.kind(failed.failure) != .busy {
        // Not written, perhaps for another's fault: alone it may do better. Those behind it are in other partitions, or
        // failed with it, so that the order holds. Not so where the cluster was out of reach: that is nobody's fault.
        writePlainly([transaction])
      } else {
        let error = refusals[index] ?? KafkaError.log(failed.failure, "writing to \(partition)")
        if error.code != .busy { doubt(transaction, plain) }
        refuse(transaction, error, wasTried: false)
      }
    }
    if !again.isEmpty { writeTransaction(again) }
  }

  private func tellWritten(_ transaction: PreparedTransaction, _ deliveries: [DeliveryLedger.Delivery]) {
    guard let whenWritten, transaction.records <= Self.smallBatch else { return }
    for (place, delivery) in deliveries.enumerated()
    where delivery.count > 0 && delivery.lastOffset - delivery.baseOffset == delivery.count - 1 {
      whenWritten(transaction.transaction.appends[place].partition, transaction.batches[place], delivery.baseOffset)
    }
  }

  // MARK: the express way

  /// Sends a transaction on the thread that hands it over. False: it is to wait for its turn.
  private func sendNow(_ waiting: inout CommitQueue.Waiting) -> Bool {
    let partition = waiting.transaction.appends[0].partition
    guard directory.knows(partition), queue.beginExpress(&waiting) else { return false }
    do throws(LogError) {
      try waiting.transaction.check()
      let prepared = try PreparedTransaction(waiting, unpackedLimit: ExpressProducer.limit)
      if express.send(prepared, to: directory.clusterName(partition.topic)) { return true }
    } catch {
      // It will be refused, or taken, in its turn.
    }
    queue.endExpress()
    return false
  }

  /// What became of a transaction that was sent so. On a thread of librdkafka's.
  private func sent(_ transaction: PreparedTransaction, _ outcome: Result<Int64, ExpressProducer.Failure>) {
    switch outcome {
    case .failure(let failure): queue.endExpress(.returned(transaction, failure))
    case .success(let offset):
      whenWritten?(transaction.transaction.appends[0].partition, transaction.batches[0], offset)
      meters.committed(transaction, isPlain: true, isExpress: true)
      let receipt = CommitReceipt(durability: .disk, baseOffsets: [offset])
      answer(transaction.transaction, .success(receipt), transaction.completion, mayWait: false)
      queue.endExpress()
    }
  }

  /// Sees to one that was not simply written: it may have been, or the producer is of no more use, or the cluster does not take it.
  private func takeBack(_ transaction: PreparedTransaction, _ failure: ExpressProducer.Failure) {
    let hasFailed = express.hasFailed
    if hasFailed {
      do throws(LogError) { try express.renew() } catch { self.failure = error }
    }
    let error = KafkaError.log(failure.code, "writing to \(transaction.transaction.appends[0].partition)")
    let isBusy = KafkaError.kind(failure.code) == .busy
    if transaction.mayRepeat, failure.mayBeThere || isBusy {
      writeTransaction([transaction])
    } else if failure.mayBeThere {
      refuse(
        transaction, LogError(.unknown, error.message + "; it may or may not have been written"), wasTried: false)
    } else if hasFailed {
      // Not the transaction's fault.
      writePlainly([transaction])
    } else {
      if !isBusy { doubt(transaction, plain) }
      refuse(transaction, error, wasTried: false)
    }
  }

  func produce(
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
}
