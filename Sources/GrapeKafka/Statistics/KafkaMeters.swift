internal import GrapeLog
internal import GrapeWire
internal import Synchronization

/// Counts what the log does. Any thread.
final class KafkaMeters: Sendable {
  private let state = Mutex(KafkaStatistics())

  var statistics: KafkaStatistics { state.withLock { $0 } }

  // MARK: groups

  func rebalanced() { state.withLock { $0.rebalances += 1 } }

  func count(_ telling: LocalMembers.Telling) {
    state.withLock { state in
      state.partitionsAssigned += telling.assigned.count
      state.partitionsRevoked += telling.revoked.count
      state.partitionsLost += telling.lost.count
    }
  }

  func staleMember() { state.withLock { $0.staleMembers += 1 } }

  // MARK: commits and reads

  func began() { state.withLock { $0.transactionsBegun += 1 } }

  func ended(_ outcome: TransactionalProducer.Outcome) {
    state.withLock { state in
      switch outcome {
      case .committed: state.transactionsCommitted += 1
      case .aborted, .refused: state.transactionsAborted += 1
      case .abandoned, .lost: break
      }
    }
  }

  func committed(_ transaction: PreparedTransaction, isPlain: Bool, isExpress: Bool = false) {
    let latency = (MonotonicClock.now - transaction.since) / 1_000
    state.withLock { state in
      state.commits += 1
      if isPlain { state.plainCommits += 1 }
      if isExpress { state.expressCommits += 1 }
      for append in transaction.transaction.appends {
        state.recordsWritten += Int(append.recordCount)
        state.bytesWritten += append.batch.count
      }
      state.commitLatency.add(microseconds: Int(latency))
    }
  }

  func refused(_ error: LogError) {
    state.withLock { $0.commitsRefused += 1 }
    // Those are told to whoever can do something about it, and say nothing of the cluster.
    if [.failed, .unknown, .busy].contains(error.code) { failed(error) }
  }

  func read(_ batches: [LogBatch]) {
    state.withLock { state in
      for batch in batches {
        state.recordsRead += Int(batch.lastOffset - batch.baseOffset) + 1
        state.bytesRead += batch.bytes.count
      }
    }
  }

  // MARK: the cluster

  func failed(_ error: LogError) {
    state.withLock { state in
      if state.lastErrors.last == error.message { return }
      state.lastErrors.append(error.message)
      if state.lastErrors.count > KafkaStatistics.errorLimit { state.lastErrors.removeFirst() }
    }
  }

  func saw(_ brokers: [KafkaStatistics.Broker]) { state.withLock { $0.brokers = brokers } }
}
