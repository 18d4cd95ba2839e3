import GrapeLog
import Testing

@Suite("Assignment of partitions to a group's members") struct GroupAssignmentTests {
  @Test("a member that joins takes no more from the others than balance needs")
  func sticky() {
    var group = GroupAssignment()
    _ = group.setPartitions(6, of: "a")
    #expect(group.join(1, topics: ["a"])[0].assigned.count == 6)
    let second = group.join(2, topics: ["a"])
    #expect(second.first { $0.member == 1 }?.revoked.count == 3)
    #expect(second.first { $0.member == 2 }?.assigned.count == 3)
    let third = group.join(3, topics: ["a"])
    #expect(third.map(\.revoked.count).sorted() == [0, 1, 1])
    // Those of the one that leaves are shared out; nobody else loses any.
    let left = group.leave(1)
    #expect(left.allSatisfy { $0.revoked.isEmpty && $0.assigned.count == 1 })
    #expect(left.count == 2)
  }

  @Test("a member beyond the number of partitions is told that it has none")
  func surplus() {
    var group = GroupAssignment()
    _ = group.setPartitions(1, of: "a")
    _ = group.join(1, topics: ["a"])
    #expect(group.join(2, topics: ["a"]) == [.init(member: 2, assigned: [], revoked: [])])
    #expect(group.leave(1) == [.init(member: 2, assigned: [TopicPartition("a", 0)], revoked: [])])
  }

  @Test("whatever happens, each partition has one owner who subscribes to it, and equal subscribers are balanced")
  func random() {
    for seed in UInt64(0)..<300 {
      var random = SplitMix(state: seed)
      var group = GroupAssignment()
      var topics: [String: Int32] = [:]
      var members: [UInt64: [String]] = [:]
      var told: [UInt64: Set<TopicPartition>] = [:]
      let uniform = seed % 2 == 0
      for step in 0..<40 {
        let changes: [GroupAssignment.Change]
        switch random.next() % 4 {
        case 0, 1:
          let id = UInt64(step + 1)
          let wanted = uniform ? ["a", "b", "c"] : ["a", "b", "c"].filter { _ in random.next() % 2 == 0 }
          members[id] = wanted
          changes = group.join(id, topics: wanted)
          #expect(changes.contains { $0.member == id }, "seed \(seed): the newcomer is told")
        case 2:
          guard let id = members.keys.sorted().randomElement(using: &random) else { continue }
          members[id] = nil
          told[id] = nil
          changes = group.leave(id)
        default:
          let topic = ["a", "b", "c"].randomElement(using: &random)!
          topics[topic] = topics[topic] == nil ? Int32(random.next() % 9 + 1) : nil
          changes = group.setPartitions(topics[topic], of: topic)
        }
        for change in changes {
          #expect(told[change.member, default: []].isSuperset(of: change.revoked), "seed \(seed)")
          told[change.member, default: []].subtract(change.revoked)
          #expect(told[change.member, default: []].isDisjoint(with: change.assigned), "seed \(seed)")
          told[change.member, default: []].formUnion(change.assigned)
        }
        check(group, topics, members, told, "seed \(seed), step \(step)")
        if uniform, let counts = Optional(members.keys.map { group.partitions(of: $0).count }), !counts.isEmpty {
          #expect(counts.max()! - counts.min()! <= 1, "seed \(seed), step \(step): \(counts)")
        }
      }
    }
  }

  private func check(
    _ group: GroupAssignment, _ topics: [String: Int32], _ members: [UInt64: [String]],
    _ told: [UInt64: Set<TopicPartition>], _ place: String
  ) {
    var owners: [TopicPartition: UInt64] = [:]
    for (id, wanted) in members {
      let owned = group.partitions(of: id)
      #expect(Set(owned) == told[id, default: []], "\(place): what was told is what is")
      for partition in owned {
        #expect(wanted.contains(partition.topic) && partition.partition < topics[partition.topic] ?? 0, "\(place)")
        #expect(owners.updateValue(id, forKey: partition) == nil, "\(place): \(partition) has two owners")
      }
    }
    for (topic, count) in topics where members.values.contains(where: { $0.contains(topic) }) {
      for partition in 0..<count { #expect(owners[TopicPartition(topic, partition)] != nil, "\(place): no owner") }
    }
  }
}

/// Random numbers that a seed repeats.
struct SplitMix: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var value = state
    value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
    return value ^ (value >> 31)
  }
}
