import CGrapeLinux
import GrapeLog
import Synchronization

/// A member of a group that keeps what it is told, finishes revocations at once or when it is told to, and lets tests wait
/// for what shall become true.
final class GroupProbe: Sendable {
  typealias Condition = @Sendable (Set<TopicPartition>, [GroupChange]) -> Bool

  private struct State {
    var owned: Set<TopicPartition> = []
    var changes: [GroupChange] = []
    var held: [GroupChange] = []
    var holds = false
    var membership: GroupMembership?
    var lost: Set<TopicPartition> = []
    var faults: [String] = []
    var waiters: [(condition: Condition, resume: CheckedContinuation<Void, Never>)] = []
  }

  private let state = Mutex(State())
  let log: any EventLog

  init(_ log: any EventLog, _ group: String, _ topics: [String], holds: Bool = false) {
    self.log = log
    state.withLock { $0.holds = holds }
    let membership = log.join(group: group, topics: topics) { [weak self] change in self?.apply(change) }
    state.withLock { $0.membership = membership }
  }

  private func apply(_ change: GroupChange) {
    let (due, finishes) = state.withLock { state in
      for partition in change.assigned where !state.owned.insert(partition).inserted {
        state.faults.append("\(partition) was assigned twice")
      }
      for partition in change.revoked + change.lost { state.owned.remove(partition) }
      state.lost.formUnion(change.lost)
      state.changes.append(change)
      if state.holds && !change.revoked.isEmpty { state.held.append(change) }
      let due = state.waiters.filter { $0.condition(state.owned, state.changes) }
      state.waiters.removeAll { $0.condition(state.owned, state.changes) }
      return (due.map(\.resume), !state.holds && !change.revoked.isEmpty)
    }
    if finishes { change.finish() }
    for waiter in due { waiter.resume() }
  }

  var owned: Set<TopicPartition> { state.withLock { $0.owned } }
  var changes: [GroupChange] { state.withLock { $0.changes } }
  var lost: Set<TopicPartition> { state.withLock { $0.lost } }
  var faults: [String] { state.withLock { $0.faults } }
  var heldCount: Int { state.withLock { $0.held.count } }

  /// Revocations are kept from now on; `finish` finishes them.
  func hold() { state.withLock { $0.holds = true } }

  func finish() {
    let held = state.withLock { state in
      defer { state.held = [] }
      state.holds = false
      return state.held
    }
    for change in held { change.finish() }
  }

  func leave() {
    if let membership = state.withLock({ $0.membership }) { log.leave(membership) }
  }

  /// Returns once `condition` holds of what is owned and of all changes. The test's time limit bounds the wait.
  func wait(until condition: @escaping Condition) async {
    await withCheckedContinuation { continuation in
      let holds = state.withLock { state in
        if condition(state.owned, state.changes) { return true }
        state.waiters.append((condition, continuation))
        return false
      }
      if holds { continuation.resume() }
    }
  }

  func wait(forOwned count: Int) async { await wait { owned, _ in owned.count == count } }
}
