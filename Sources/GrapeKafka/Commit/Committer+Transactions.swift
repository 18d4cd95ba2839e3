internal import CRDKafka
internal import GrapeLog

// Groups that go in one Kafka transaction.
extension Committer {
  func writeTransaction(_ group: [PreparedTransaction]) {
    writeTransaction(group, until: MonotonicClock.after(milliseconds: configuration.commitTimeout))
  }

  func writeTransaction(_ group: [PreparedTransaction], until deadline: Int64) {
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
        // Also how librdkafka 2.0.2 gets over a message that was refused before: its next transaction fails for
        // sequence numbers that were skipped, and the one after that has new ones.
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
      renewTransactional()
      if error.code == .busy, failure == nil, MonotonicClock.now < deadline {
        writeTransaction(group, until: deadline)
      } else {
        for transaction in group { transaction.completion(.failure(error)) }
      }
    case .lost(let error):
      let error = LogError(error.code, error.message + ". No more commits until the log is opened anew")
      failure = error
      lost = group
      for transaction in group { transaction.completion(.failure(error)) }
    }
  }

  /// Has both ask the cluster again about the topics of a transaction that was refused: librdkafka remembers some
  /// refusals.
  func doubt(_ transaction: PreparedTransaction, _ producer: Producer) {
    for append in transaction.transaction.appends {
      directory.doubt(append.partition.topic)
      producer.forget(directory.clusterName(append.partition.topic))
    }
  }

  func offsets(of group: [PreparedTransaction]) -> [String: [TopicPartition: CommittedOffset]] {
    var offsets: [String: [TopicPartition: CommittedOffset]] = [:]
    for commit in group.lazy.flatMap(\.transaction.offsets) {
      let partition = TopicPartition(
        directory.clusterName(commit.partition.topic), commit.partition.partition)
      offsets[configuration.namespace + commit.group, default: [:]][partition] = commit.committed
    }
    return offsets
  }

  /// Brokers answer before the markers that make a transaction visible are written everywhere; a receipt promises more.
  func answer(_ group: [PreparedTransaction], _ ledger: DeliveryLedger, visibleBy deadline: Int64) {
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
