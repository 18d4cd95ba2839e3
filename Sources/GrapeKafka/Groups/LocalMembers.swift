internal import GrapeLog

/// The members that this node has in one consumer group, and how they share the partitions that the cluster gives to the
/// node. Pure: no clock, no randomness, no I/O.
///
/// A partition has one owner at a time: it is told to its next one after the last one has finished with it, has lost it,
/// or has left. Each member is told one change after the other; while it has a revocation to finish it is told nothing but
/// losses. Shares differ by one partition at most where members subscribe to the same topics, and nothing moves that need
/// not.
struct LocalMembers {
  /// What a member is to be told. Revocations carry a number, with which they are finished.
  struct Telling: Equatable {
    var member: UInt64
    var number: UInt64 = 0
    var assigned: [TopicPartition] = []
    var revoked: [TopicPartition] = []
    var lost: [TopicPartition] = []
  }

  private struct Member {
    let id: UInt64
    let topics: Set<String>
    var owned: Set<TopicPartition> = []
    /// Told to give these up; it has not finished yet.
    var revoking: Set<TopicPartition> = []
    /// The revocation's number.
    var unfinished: UInt64?
    /// Has been told something, be it an empty change.
    var isGreeted = false
  }

  /// In order of joining, which breaks ties.
  private var members: [Member] = []
  /// The node's, those that it is to give back included.
  private var held: Set<TopicPartition> = []
  /// To be given back to the cluster once nobody here has them any more.
  private var leaving: Set<TopicPartition> = []
  private var lastNumber: UInt64 = 0
  private var losses: [Telling] = []

  var isEmpty: Bool { members.isEmpty }
  /// All that somebody subscribes to.
  var topics: Set<String> { members.reduce(into: []) { $0.formUnion($1.topics) } }
  /// True if none of those to be given back has an owner here.
  var isReleased: Bool {
    leaving.isEmpty
      || members.allSatisfy { $0.owned.isDisjoint(with: leaving) && $0.revoking.isDisjoint(with: leaving) }
  }

  /// Precondition: the id is new.
  mutating func join(_ id: UInt64, topics: Set<String>) {
    precondition(!members.contains { $0.id == id })
    members.append(Member(id: id, topics: topics))
  }

  /// The member is told nothing more; returns what it had.
  mutating func leave(_ id: UInt64) -> [TopicPartition] {
    guard let place = members.firstIndex(where: { $0.id == id }) else { return [] }
    let member = members.remove(at: place)
    losses.removeAll { $0.member == id }
    return Array(member.owned.union(member.revoking))
  }

  /// The cluster gives partitions to the node.
  mutating func assign(_ partitions: [TopicPartition]) { held.formUnion(partitions) }

  /// The cluster wants partitions back; `isReleased` tells when they can go, `release` that they went.
  mutating func revoke(_ partitions: [TopicPartition]) { leaving.formUnion(held.intersection(partitions)) }

  /// Those that were to be given back are gone.
  mutating func release() {
    held.subtract(leaving)
    leaving = []
  }

  /// Partitions are gone without notice.
  mutating func lose(_ partitions: [TopicPartition]) {
    takeAway(Set(partitions))
    held.subtract(partitions)
    leaving.subtract(partitions)
  }

  /// All that the node has is gone.
  mutating func loseAll() { lose(Array(held)) }

  /// The time for giving back is over: whoever still has some of it loses it.
  mutating func giveUpLeaving() { takeAway(leaving) }

  private mutating func takeAway(_ partitions: Set<TopicPartition>) {
    for place in members.indices {
      let lost = members[place].owned.union(members[place].revoking).intersection(partitions)
      if lost.isEmpty { continue }
      members[place].owned.subtract(lost)
      members[place].revoking.subtract(lost)
      if members[place].revoking.isEmpty { members[place].unfinished = nil }
      losses.append(Telling(member: members[place].id, lost: lost.sorted(by: precedes)))
    }
  }

  /// A member has finished a revocation; returns what it let go of. Nothing if that is over already.
  mutating func finish(_ id: UInt64, _ number: UInt64) -> [TopicPartition] {
    guard let place = members.firstIndex(where: { $0.id == id && $0.unfinished == number }) else { return [] }
    defer {
      members[place].unfinished = nil
      members[place].revoking = []
    }
    return Array(members[place].revoking)
  }

  /// The time for a revocation is over: what was not let go of is lost.
  mutating func expire(_ id: UInt64, _ number: UInt64) {
    guard let member = members.first(where: { $0.id == id && $0.unfinished == number }) else { return }
    takeAway(member.revoking)
  }

  /// What is to be told now, in this order. It counts as told.
  mutating func tell() -> [Telling] {
    var tellings = losses
    losses = []
    let wanted = share()
    for place in members.indices where members[place].unfinished == nil {
      let revoked = members[place].owned.filter { wanted[$0] != members[place].id }
      if !revoked.isEmpty {
        lastNumber += 1
        members[place].owned.subtract(revoked)
        members[place].revoking = revoked
        members[place].unfinished = lastNumber
        tellings.append(
          Telling(member: members[place].id, number: lastNumber, revoked: revoked.sorted(by: precedes)))
      }
    }
    let taken = members.reduce(into: Set<TopicPartition>()) {
      $0.formUnion($1.owned)
      $0.formUnion($1.revoking)
    }
    for place in members.indices where members[place].unfinished == nil {
      let assigned = wanted.filter { $0.value == members[place].id && !taken.contains($0.key) }.map(\.key)
      if assigned.isEmpty && members[place].isGreeted { continue }
      members[place].owned.formUnion(assigned)
      tellings.append(Telling(member: members[place].id, assigned: assigned.sorted(by: precedes)))
    }
    for telling in tellings {
      if let place = members.firstIndex(where: { $0.id == telling.member }) { members[place].isGreeted = true }
    }
    return tellings
  }

  /// Who is to have which partition.
  private func share() -> [TopicPartition: UInt64] {
    let available = held.subtracting(leaving)
    var shares = members.map { member in member.owned.filter { available.contains($0) } }
    let owned = shares.reduce(into: Set<TopicPartition>()) { $0.formUnion($1) }
    for partition in available.subtracting(owned).sorted(by: precedes) {
      let subscribers = members.indices.filter { members[$0].topics.contains(partition.topic) }
      guard let least = subscribers.min(by: { shares[$0].count < shares[$1].count }) else { continue }
      shares[least].insert(partition)
    }
    while level(&shares) {}
    var wanted: [TopicPartition: UInt64] = [:]
    for (member, share) in zip(members, shares) {
      for partition in share { wanted[partition] = member.id }
    }
    return wanted
  }

  /// Moves partitions from one share to another that has at least two fewer. False if there is no such pair.
  private func level(_ shares: inout [Set<TopicPartition>]) -> Bool {
    let places = shares.indices.sorted { shares[$0].count > shares[$1].count }
    for rich in places {
      for poor in places.reversed() {
        let excess = (shares[rich].count - shares[poor].count) / 2
        if excess < 1 { break }
        let movable = shares[rich].filter { members[poor].topics.contains($0.topic) }.sorted(by: precedes)
        if movable.isEmpty { continue }
        for partition in movable.suffix(excess) {
          shares[rich].remove(partition)
          shares[poor].insert(partition)
        }
        return true
      }
    }
    return false
  }
}

private func precedes(_ left: TopicPartition, _ right: TopicPartition) -> Bool {
  (left.topic, left.partition) < (right.topic, right.partition)
}
