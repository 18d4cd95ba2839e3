/// Which member of one consumer group works on which partition. Pure: no clock, no randomness, no I/O.
///
/// Every partition of a topic that somebody subscribes to belongs to exactly one of its subscribers. The numbers of
/// partitions per member differ by at most one where subscriptions are equal, and a partition moves only if that is
/// needed for balance or its owner has gone: work in progress is worth more than symmetry.
public struct GroupAssignment: Sendable {
  /// What one member is told.
  public struct Change: Sendable, Equatable {
    public var member: UInt64
    public var assigned: [TopicPartition]
    public var revoked: [TopicPartition]

    public init(member: UInt64, assigned: [TopicPartition], revoked: [TopicPartition]) {
      self.member = member
      self.assigned = assigned
      self.revoked = revoked
    }
  }

  private struct Member {
    let id: UInt64
    let topics: Set<String>
    var owned: Set<TopicPartition> = []
  }

  /// In order of joining, which breaks ties.
  private var members: [Member] = []
  /// Topics that exist, with their number of partitions.
  private var topics: [String: Int32] = [:]

  public init() {}

  /// True if nobody is left.
  public var isEmpty: Bool { members.isEmpty }

  /// Partitions that a member holds, in order; none for a stranger.
  public func partitions(of member: UInt64) -> [TopicPartition] {
    members.first { $0.id == member }.map { $0.owned.sorted(by: precedes) } ?? []
  }

  /// Adds a member. Always yields a change for it, even if nothing is left to assign.
  /// Precondition: the id is new.
  public mutating func join(_ id: UInt64, topics: [String]) -> [Change] {
    precondition(!members.contains { $0.id == id })
    members.append(Member(id: id, topics: Set(topics)))
    return rebalance(announce: id)
  }

  /// Removes a member; it gets no change itself. Unknown ids are ignored.
  public mutating func leave(_ id: UInt64) -> [Change] {
    guard let place = members.firstIndex(where: { $0.id == id }) else { return [] }
    members.remove(at: place)
    return rebalance(announce: nil)
  }

  /// A topic came into being, went away (nil), or is told for the first time.
  public mutating func setPartitions(_ count: Int32?, of topic: String) -> [Change] {
    topics[topic] = count
    return rebalance(announce: nil)
  }

  private mutating func rebalance(announce: UInt64?) -> [Change] {
    let before = members.map(\.owned)
    releaseGone()
    placeUnowned()
    while levelOnce() {}
    return changes(since: before, announce: announce)
  }

  private mutating func releaseGone() {
    for place in members.indices {
      members[place].owned = members[place].owned.filter { $0.partition < topics[$0.topic] ?? 0 }
    }
  }

  private mutating func placeUnowned() {
    let owned = members.reduce(into: Set<TopicPartition>()) { $0.formUnion($1.owned) }
    for (topic, count) in topics.sorted(by: { $0.key < $1.key }) {
      let subscribers = members.indices.filter { members[$0].topics.contains(topic) }
      guard !subscribers.isEmpty else { continue }
      for partition in 0..<count where !owned.contains(TopicPartition(topic, partition)) {
        let least = subscribers.min { members[$0].owned.count < members[$1].owned.count }!
        members[least].owned.insert(TopicPartition(topic, partition))
      }
    }
  }

  /// Moves partitions from one member to one that has at least two fewer. False if there is no such pair.
  private mutating func levelOnce() -> Bool {
    let byLoad = members.indices.sorted { members[$0].owned.count > members[$1].owned.count }
    for rich in byLoad {
      for poor in byLoad.reversed() {
        let excess = (members[rich].owned.count - members[poor].owned.count) / 2
        if excess < 1 { break }
        let movable = members[rich].owned.filter { members[poor].topics.contains($0.topic) }.sorted(by: precedes)
        if movable.isEmpty { continue }
        for partition in movable.suffix(excess) {
          members[rich].owned.remove(partition)
          members[poor].owned.insert(partition)
        }
        return true
      }
    }
    return false
  }

  private func changes(since before: [Set<TopicPartition>], announce: UInt64?) -> [Change] {
    zip(members, before).compactMap { member, old in
      let assigned = member.owned.subtracting(old).sorted(by: precedes)
      let revoked = old.subtracting(member.owned).sorted(by: precedes)
      if assigned.isEmpty && revoked.isEmpty && member.id != announce { return nil }
      return Change(member: member.id, assigned: assigned, revoked: revoked)
    }
  }
}

private func precedes(_ left: TopicPartition, _ right: TopicPartition) -> Bool {
  (left.topic, left.partition) < (right.topic, right.partition)
}
