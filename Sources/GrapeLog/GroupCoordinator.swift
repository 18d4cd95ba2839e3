import Synchronization

/// Consumer groups of a log whose members all live in this process: keeps the assignments and tells the members, in
/// order, without holding a lock while it does.
///
/// A partition that moves is revoked from the old owner, whose `onChange` has returned, before it is assigned to the
/// new one.
package final class GroupCoordinator: Sendable {
  private struct Member: Sendable {
    let group: String
    let onChange: @Sendable (GroupChange) -> Void
  }

  private struct State: Sendable {
    var groups: [String: GroupAssignment] = [:]
    var members: [UInt64: Member] = [:]
    var topics: [String: Int32] = [:]
    var lastID: UInt64 = 0
    var undelivered: [(member: UInt64, change: GroupChange)] = []
    var next = 0
    /// One thread delivers at a time; the others leave their changes to it.
    var delivering = false

    mutating func queue(_ changes: [GroupAssignment.Change]) {
      for change in changes where !change.revoked.isEmpty {
        undelivered.append((change.member, GroupChange(assigned: [], revoked: change.revoked)))
      }
      for change in changes where !change.assigned.isEmpty || change.revoked.isEmpty {
        undelivered.append((change.member, GroupChange(assigned: change.assigned, revoked: [])))
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
    var first = true
    while true {
      let next = state.withLock { state -> (Member?, GroupChange)? in
        if first && state.delivering { return nil }
        if state.next == state.undelivered.count {
          state.undelivered.removeAll(keepingCapacity: true)
          state.next = 0
          state.delivering = false
          return nil
        }
        state.delivering = true
        let (member, change) = state.undelivered[state.next]
        state.next += 1
        return (state.members[member], change)
      }
      guard let (member, change) = next else { return }
      first = false
      member?.onChange(change)
    }
  }
}
