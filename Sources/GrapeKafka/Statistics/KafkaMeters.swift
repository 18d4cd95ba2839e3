internal import GrapeLog
internal import Synchronization

/// Counts what the log does. Any thread.
final class KafkaMeters: Sendable {
  private let state = Mutex(KafkaStatistics())

  var statistics: KafkaStatistics { state.withLock { $0 } }

  func rebalanced() { state.withLock { $0.rebalances += 1 } }

  func count(_ telling: LocalMembers.Telling) {
    state.withLock { state in
      state.partitionsAssigned += telling.assigned.count
      state.partitionsRevoked += telling.revoked.count
      state.partitionsLost += telling.lost.count
    }
  }

  func staleMember() { state.withLock { $0.staleMembers += 1 } }

  func committed(_ transaction: PreparedTransaction) {}

  func refused(_ error: LogError) {}

  func failed(_ error: LogError) {
    state.withLock { state in
      state.lastErrors.append(error.message)
      if state.lastErrors.count > KafkaStatistics.errorLimit { state.lastErrors.removeFirst() }
    }
  }
}
