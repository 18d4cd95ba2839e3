import Synchronization

/// Consumer groups of a log whose members all live in this process: keeps the assignments and tells the members, in
/// order, without holding a lock while it does.
///
/// A partition that moves is assigned to its new owner once the old one has finished with it, or has left.
package final class GroupCoordinator: Sendable {
  fileprivate struct Member: Sendable {
    let group: String
    let onChange: @Sendable (GroupChange) -> Void
  }

  fileprivate struct State: Sendable {
    var groups: [String: GroupAssignment] = [:]
    var members: [UInt64: Member] = [:]
    var topics: [String: Int32] = [:]
    var lastID: UInt64 = 0
    var undelivered: [(member: UInt64, change: GroupChange)] = []
    var next = 0
    /// The change that a member is being told, or has not finished: one at a time, the others wait.
    var current: (number: UInt64, member: UInt64)?
    var lastNumber: UInt64 = 0

    mutating func queue(_ changes: [GroupAssignment.Change]) {
      for change in changes where !change.revoked.isEmpty {
        undelivered.append((change.member, GroupChange(revoked: change.revoked)))
      }
      for change in changes where !change.assigned.isEmpty || change.revoked.isEmpty {
        undelivered.append((change.member, GroupChange(assigned: change.assigned)))
      }
    }
  }

  private let state = Mutex(State())

  package init() {}

  package func join(
    group: String, topics: [String], onChange: @escaping @Sendable (GroupChange) -> Void
  ) -> GroupMembership {
    let id = state.withLock { state -> UInt64 in
      state.lastID += 1
      let id = state.lastID
      state.members[id] = Member(group: group, onChange: onChange)
      var assignment = state.groups.removeValue(forKey: group) ?? GroupAssignment()
      for topic in topics {
        // Told before the newcomer joins, so that these yield changes only for others who wait for the topic.
        state.queue(assignment.setPartitions(state.topics[topic], of: topic))
      }
      state.queue(assignment.join(id, topics: topics))
      state.groups[group] = assignment
      return id
    }
    deliver()
    return GroupMembership(id: id)
  }

  package func leave(_ membership: GroupMembership) {
    state.withLock { state in
      guard let member = state.members.removeValue(forKey: membership.id),
        var assignment = state.groups.removeValue(forKey: member.group)
      else { return }
      state.queue(assignment.leave(membership.id))
      if !assignment.isEmpty { state.groups[member.group] = assignment }
      // It will not finish any more.
      if state.current?.member == membership.id { state.current = nil }
    }
    deliver()
  }

  /// A topic was created, or deleted (nil).
  package func setPartitions(_ count: Int32?, of topic: String) {
    state.withLock { state in
      state.topics[topic] = count
      for group in state.groups.keys.sorted() {
        guard var assignment = state.groups.removeValue(forKey: group) else { continue }
        state.queue(assignment.setPartitions(count, of: topic))
        state.groups[group] = assignment
      }
    }
    deliver()
  }

  private func deliver() {
    while let (number, member, change) = state.withLock({ $0.takeNext() }) {
      member?.onChange(
        GroupChange(assigned: change.assigned, revoked: change.revoked) { [self] in
          if state.withLock({ $0.end(number) }) { deliver() }
        })
      if change.revoked.isEmpty || member == nil { _ = state.withLock { $0.end(number) } }
    }
  }
}

extension GroupCoordinator.State {
  /// The next change to be told; nil: there is none, or it is not time yet.
  fileprivate mutating func takeNext() -> (number: UInt64, GroupCoordinator.Member?, GroupChange)? {
    guard current == nil else { return nil }
    guard next < undelivered.count else {
      undelivered.removeAll(keepingCapacity: true)
      next = 0
      return nil
    }
    let (member, change) = undelivered[next]
    next += 1
    lastNumber += 1
    current = (lastNumber, member)
    return (lastNumber, members[member], change)
  }

  /// Ends the telling of a change; false if it had ended before.
  fileprivate mutating func end(_ number: UInt64) -> Bool {
    guard current?.number == number else { return false }
    current = nil
    return true
  }
}
