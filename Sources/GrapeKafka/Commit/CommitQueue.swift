internal import GrapeLog
internal import GrapeWire
internal import Synchronization

/// Transactions that wait for the committer, in order, bounded.
final class CommitQueue: Sendable {
  struct Waiting: Sendable {
    let transaction: Transaction
    let completion: @Sendable (Result<CommitReceipt, LogError>) -> Void
    /// Nanoseconds of the monotonic clock.
    let since: Int64
    var bytes: Int { transaction.appends.reduce(64) { $0 + $1.batch.count } }
  }

  enum Entry: Sendable {
    case commit(Waiting)
    /// A topic was created, deleted or changed: what the producers remember of it is void.
    case forget(topic: String)
  }

  /// What there is to do.
  enum Work {
    case entries([Entry])
    /// Nothing before this time, nanoseconds of the monotonic clock; nil: before being woken.
    case nothing(until: Int64?)
    case end
  }

  private struct State {
    var entries: [Entry] = []
    var bytes = 0
    var closed = false
  }

  private let state = Mutex(State())
  private let limitBytes: Int
  private let limitCount: Int
  let wakeup = Wakeup()

  init(limitBytes: Int, limitCount: Int) {
    self.limitBytes = limitBytes
    self.limitCount = limitCount
  }

  /// Queues a transaction, or says why not.
  func add(_ waiting: Waiting) -> LogError? {
    let bytes = waiting.bytes
    let refusal = state.withLock { state -> LogError? in
      if state.closed { return .closedLog }
      if state.entries.count >= limitCount || state.bytes > 0 && state.bytes + bytes > limitBytes {
        return LogError(
          .busy, "\(state.entries.count) commits of \(state.bytes) bytes wait for Kafka already: try later")
      }
      state.entries.append(.commit(waiting))
      state.bytes += bytes
      return nil
    }
    if refusal == nil { wakeup.signal() }
    return refusal
  }

  func forget(topic: String) {
    state.withLock { state in
      if !state.closed { state.entries.append(.forget(topic: topic)) }
    }
    wakeup.signal()
  }

  /// What was accepted is still handed out; then `end`.
  func close() {
    state.withLock { $0.closed = true }
    wakeup.signal()
  }

  /// Takes what goes next: as much as fits, at least one, once the oldest has waited `interval` nanoseconds.
  func take(bytes: Int, count: Int, interval: Int64) -> Work {
    state.withLock { state in
      if state.entries.isEmpty { return state.closed ? .end : .nothing(until: nil) }
      if interval > 0, !state.closed, state.bytes < bytes, state.entries.count < count,
        case .commit(let oldest)? = state.entries.first, oldest.since + interval > MonotonicClock.now
      {
        return .nothing(until: oldest.since + interval)
      }
      var taken = 0
      var end = 0
      for entry in state.entries.prefix(count) {
        if case .commit(let waiting) = entry {
          if end > 0 && taken + waiting.bytes > bytes { break }
          taken += waiting.bytes
        }
        end += 1
      }
      let entries = Array(state.entries[..<end])
      state.entries.removeFirst(end)
      state.bytes -= taken
      return .entries(entries)
    }
  }
}
