internal import GrapeLog

// What callers are told.
extension Committer {
  /// Has both ask the cluster again about the topics of a transaction that was refused: librdkafka remembers some
  /// refusals.
  func doubt(_ transaction: PreparedTransaction, _ producer: Producer) {
    for append in transaction.transaction.appends {
      directory.doubt(append.partition.topic)
      producer.forget(directory.clusterName(append.partition.topic))
      express.doubt(directory.clusterName(append.partition.topic))
    }
  }

  /// A receipt promises that readers see it: `answers` waits for that.
  ///
  /// - Parameter answered: numbers of those that were told already that nobody knows.
  func answer(_ group: [PreparedTransaction], _ ledger: DeliveryLedger, except answered: Set<UInt64>) {
    for transaction in group where !answered.contains(transaction.number) {
      memory.succeeded(transaction.transaction, number: transaction.number)
    }
    var place = 0
    for transaction in group {
      let places = place..<place + transaction.batches.count
      let deliveries = ledger.deliveries(places)
      place = places.upperBound
      if answered.contains(transaction.number) { continue }
      var unseen: [TopicPartition: Int64] = [:]
      for (append, delivery) in zip(transaction.transaction.appends, deliveries) {
        let partition = TopicPartition(directory.clusterName(append.partition.topic), append.partition.partition)
        unseen[partition] = max(unseen[partition] ?? -1, delivery.lastOffset)
      }
      if deliveries.contains(where: { $0.baseOffset == .max }) {
        let error = LogError(.unknown, "Kafka: it was written, but librdkafka did not say where")
        answer(transaction.transaction, .failure(error), transaction.completion, unseen: unseen)
      } else {
        meters.committed(transaction, isPlain: false)
        answer(transaction.transaction, .success(ledger.receipt(places)), transaction.completion, unseen: unseen)
      }
    }
  }

  /// Answers in the order of commits, where these have a partition in common. `mayWait`: blocks while too many wait.
  func answer(
    _ transaction: Transaction, _ result: Result<CommitReceipt, LogError>,
    _ completion: @escaping @Sendable (Result<CommitReceipt, LogError>) -> Void, unseen: [TopicPartition: Int64] = [:],
    mayWait: Bool = true
  ) {
    var touched: Set<UnseenCommits.Place> = []
    for append in transaction.appends { touched.insert(UnseenCommits.Place(partition: append.partition, group: nil)) }
    for commit in transaction.offsets {
      touched.insert(UnseenCommits.Place(partition: commit.partition, group: commit.group))
    }
    answers.add(
      UnseenCommits.Commit(
        touched: touched, unseen: unseen,
        deadline: MonotonicClock.after(milliseconds: configuration.commitTimeout)
      ) { completion(result) }, mayWait: mayWait)
  }
}
