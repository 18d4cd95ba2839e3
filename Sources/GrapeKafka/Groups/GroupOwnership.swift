internal import GrapeLog
internal import Synchronization

/// What the members of this node have of their groups' partitions: kept by the thread that serves the groups, asked by
/// whoever commits.
///
/// A partition is owned from before its member is told that it is assigned until the member has finished giving it up,
/// has lost it, or has left.
final class GroupOwnership: Sendable {
  private struct Group {
    /// Another one each time that the group is joined by a first member.
    let token: UInt64
    var members = 0
    /// That members have joined for.
    var topics: Set<String> = []
    var consumer: GroupConsumer?
    /// Each with its term: another one each time that it is assigned.
    var owned: [TopicPartition: UInt64] = [:]

    /// Of partitions in topics that nobody has joined for, that of those with the same number; 0: there is none.
    func term(of partition: TopicPartition) -> UInt64? {
      if topics.contains(partition.topic) { return owned[partition] }
      return owned.lazy.filter { $0.key.partition == partition.partition }.map(\.value).max() ?? 0
    }
  }

  private struct State {
    var groups: [String: Group] = [:]
    var lastToken: UInt64 = 0
    var lastTerm: UInt64 = 0
  }

  private let state = Mutex(State())

  /// A member joins: from now on offsets of the group in these topics are committed for its partitions only.
  func join(_ group: String, _ topics: [String]) {
    state.withLock { state in
      if state.groups[group] == nil {
        state.lastToken += 1
        state.groups[group] = Group(token: state.lastToken)
      }
      state.groups[group]!.members += 1
      state.groups[group]!.topics.formUnion(topics)
    }
  }

  /// A member has left, with these partitions. True if it was the last one.
  func leave(_ group: String, _ partitions: [TopicPartition]) -> Bool {
    state.withLock { state in
      guard var found = state.groups.removeValue(forKey: group) else { return true }
      found.members -= 1
      for partition in partitions { found.owned[partition] = nil }
      if found.members == 0 { return true }
      state.groups[group] = found
      return false
    }
  }

  func setConsumer(_ consumer: GroupConsumer?, of group: String) {
    state.withLock { $0.groups[group]?.consumer = consumer }
  }

  func add(_ partitions: [TopicPartition], to group: String) {
    state.withLock { state in
      state.lastTerm += 1
      for partition in partitions { state.groups[group]?.owned[partition] = state.lastTerm }
    }
  }

  func remove(_ partitions: [TopicPartition], from group: String) {
    state.withLock { state in
      for partition in partitions { state.groups[group]?.owned[partition] = nil }
    }
  }

  /// Names this node's stay in a group; nil: it has no members there.
  func token(of group: String) -> UInt64? { state.withLock { $0.groups[group]?.token } }

  /// The consumer of a stay that is not over.
  func consumer(of group: String, _ token: UInt64) -> GroupConsumer? {
    state.withLock { $0.groups[group].flatMap { $0.token == token ? $0.consumer : nil } }
  }

  /// Topics that members of this node have joined a group for.
  func topics(of group: String) -> Set<String> { state.withLock { $0.groups[group]?.topics ?? [] } }

  /// Names this node's term with a partition; nil: no member has it.
  func term(of partition: TopicPartition, in group: String) -> UInt64? {
    state.withLock { $0.groups[group]?.term(of: partition) }
  }

  /// True if a member has the partition now, in the stay with this token, and has had it ever since the term began: what was handed over before it was lost
  /// must not go with a later membership. Topics that nobody has joined for, and in which a member
  /// keeps offsets all the same, are its own affair: there the member's generation alone counts.
  func owns(_ partition: TopicPartition, in group: String, _ token: UInt64, term: UInt64?) -> Bool {
    state.withLock { state in
      guard let found = state.groups[group], found.token == token, let term else { return false }
      return found.term(of: partition) == term
    }
  }
}
