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
    /// When it is refused if it could not be tried by then; nil: it is patient.
    let deadline: Int64?
    /// The groups that had members here when it was handed over, each with its stay.
    let stays: [String: UInt64]
    /// Of each of its offsets' partitions, when it was handed over.
    let terms: [UInt64?]
    /// In the order of handing over, from 1 on; 0: not handed over yet.
    fileprivate(set) var number: UInt64 = 0
    var bytes: Int { transaction.appends.reduce(64) { $0 + $1.batch.count } }
  }

  enum Entry: Sendable {
    case commit(Waiting)
    /// One that was sent by the express way, and was not simply written.
    case returned(PreparedTransaction, ExpressProducer.Failure)
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
    var lastNumber: UInt64 = 0
    /// The committer's thread has taken entries and has not come back for more.
    var isWorking = false
    /// How many are under way by the express way.
    var express = 0
    var allowsExpress = true
    /// Nanoseconds of the monotonic clock.
    var closedAt: Int64?
    var closed: Bool { closedAt != nil }

    var firstDeadline: Int64? {
      for case .commit(let waiting) in entries {
        if let deadline = waiting.deadline { return deadline }
      }
      return nil
    }
  }

  private let state = Mutex(State())
  private let limitBytes: Int
  private let limitCount: Int
  let wakeup = Wakeup()
  /// For waits between tries: signalled when the queue is closed.
  let closing = Wakeup()

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
      state.lastNumber += 1
      var waiting = waiting
      waiting.number = state.lastNumber
      state.entries.append(.commit(waiting))
      state.bytes += bytes
      return nil
    }
    if refusal == nil { wakeup.signal() }
    return refusal
  }

  /// Gives a transaction its number if nothing is waiting or being written that it could overtake, and lets nothing overtake it before `endExpress`. False: it
  /// is to be added like others.
  func beginExpress(_ waiting: inout Waiting) -> Bool {
    let number = state.withLock { state -> UInt64? in
      guard state.allowsExpress, !state.closed, !state.isWorking, state.entries.isEmpty,
        state.express < Self.mostExpress
      else { return nil }
      state.express += 1
      state.lastNumber += 1
      return state.lastNumber
    }
    guard let number else { return false }
    waiting.number = number
    return true
  }

  /// The transaction was answered, was not sent after all, or comes back as an entry, before all others.
  func endExpress(_ returned: Entry? = nil) {
    let isDue = state.withLock { state in
      state.express -= 1
      if let returned { state.entries.insert(returned, at: 0) }
      return state.express == 0 && (!state.entries.isEmpty || state.closed)
    }
    if isDue { wakeup.signal() }
  }

  /// Nothing goes by the express way any more.
  func endAllExpress() { state.withLock { $0.allowsExpress = false } }

  /// More are gathered instead, which takes less for each.
  private static let mostExpress = 4

  func forget(topic: String) {
    state.withLock { state in
      if !state.closed { state.entries.append(.forget(topic: topic)) }
    }
    wakeup.signal()
  }

  /// What was accepted is still handed out; then `end`.
  func close() {
    state.withLock { $0.closedAt = $0.closedAt ?? MonotonicClock.now }
    wakeup.signal()
    closing.signal()
  }

  /// When it was closed, nanoseconds of the monotonic clock.
  var closedAt: Int64? { state.withLock { $0.closedAt } }

  /// The number of the transaction that was handed over last.
  var lastNumber: UInt64 { state.withLock { $0.lastNumber } }

  /// Takes out those whose time is over.
  func takeLate(_ now: Int64) -> [Waiting] {
    state.withLock { state in
      // They came in the order of their deadlines.
      guard let first = state.firstDeadline, first <= now else { return [] }
      var late: [Waiting] = []
      state.entries.removeAll { entry in
        guard case .commit(let waiting) = entry, let deadline = waiting.deadline, deadline <= now else { return false }
        late.append(waiting)
        return true
      }
      state.bytes -= late.reduce(0) { $0 + $1.bytes }
      return late
    }
  }

  /// The earliest deadline of those that wait; nil: none has one.
  var firstDeadline: Int64? { state.withLock { $0.firstDeadline } }

  /// Takes what goes next: as much as fits, at least one, once the oldest has waited `interval` nanoseconds.
  func take(bytes: Int, count: Int, interval: Int64) -> Work {
    state.withLock { state in
      state.isWorking = false
      // Those are sent already, and must not be overtaken.
      if state.express > 0 { return .nothing(until: nil) }
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
      state.isWorking = true
      return .entries(entries)
    }
  }
}
