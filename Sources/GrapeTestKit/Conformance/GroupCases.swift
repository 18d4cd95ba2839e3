import GrapeLog
import Synchronization

extension EventLogConformance {
  static let groupCases: [Case] = [
    Case("committed offsets are kept per group and partition, the last one counts") { probe in
      try await probe.createTopic("a", partitions: 2)
      let first = TopicPartition("a", 0)
      let second = TopicPartition("a", 1)
      try expect(try await probe.log.committedOffsets(group: "g"), equals: [:], "an unknown group")
      try await probe.log.commit(
        Transaction(offsets: [
          .init(group: "g", partition: first, committed: CommittedOffset(offset: 5)),
          .init(group: "g", partition: first, committed: CommittedOffset(offset: 7, metadata: [1, 0, 255])),
          .init(group: "h", partition: second, committed: CommittedOffset(offset: 1)),
        ]))
      try await probe.log.commit(
        Transaction(
          durability: .memory, offsets: [.init(group: "g", partition: second, committed: CommittedOffset(offset: 3))]))
      try expect(
        try await probe.log.committedOffsets(group: "g"),
        equals: [first: CommittedOffset(offset: 7, metadata: [1, 0, 255]), second: CommittedOffset(offset: 3)],
        "offsets of g")
      try expect(
        try await probe.log.committedOffsets(group: "h"), equals: [second: CommittedOffset(offset: 1)], "offsets of h")
    },
    Case("offset commits out of bounds are refused") { probe in
      try await probe.createTopic("a")
      let bad: [(String, CommittedOffset)] = [
        ("", CommittedOffset(offset: 0)), ("g", CommittedOffset(offset: -1)),
        ("g", CommittedOffset(offset: 0, metadata: [UInt8](repeating: 0, count: 4_097))),
        (String(repeating: "g", count: 250), CommittedOffset(offset: 0)),
      ]
      for (group, committed) in bad {
        try await expect(.invalidArgument, "group \"\(group)\", \(committed.offset)") {
          try await probe.log.commit(
            Transaction(offsets: [.init(group: group, partition: TopicPartition("a", 0), committed: committed)]))
        }
      }
    },
    Case("a group's partitions are shared among its members, each with one owner at a time") { probe in
      try await probe.createTopic("a", partitions: 4)
      try await probe.createTopic("b", partitions: 3)
      let ledger = OwnershipLedger()
      let one = ledger.join(probe.log, "g", ["a", "b"], as: 1)
      try expect(ledger.owned(by: 1).count, equals: 7, "partitions of the only member")
      let two = ledger.join(probe.log, "g", ["a", "b"], as: 2)
      try expect([3, 4].contains(ledger.owned(by: 2).count), "a fair share: \(ledger.owned(by: 2).count) of 7")
      let other = ledger.join(probe.log, "other", ["b"], as: 3)
      try expect(ledger.owned(by: 3).count, equals: 3, "partitions in another group")
      ledger.leaving(1)
      probe.log.leave(one)
      probe.log.leave(one)
      ledger.forget(1)
      try expect(ledger.owned(by: 2).count, equals: 7, "partitions after the first has left")
      probe.log.leave(two)
      probe.log.leave(other)
      try ledger.check()
    },
    Case("a partition goes to its new owner only when the old one has finished with it") { probe in
      try await probe.createTopic("a", partitions: 4)
      let ledger = OwnershipLedger()
      let one = ledger.join(probe.log, "g", ["a"], as: 1)
      ledger.hold(1)
      let two = ledger.join(probe.log, "g", ["a"], as: 2)
      try expect(ledger.owned(by: 2), equals: [], "while the first has not finished")
      try expect(ledger.finishHeld(), equals: 1, "revocations")
      try expect(ledger.owned(by: 2).count, equals: 2, "once it has")
      ledger.hold(2)
      ledger.leaving(1)
      probe.log.leave(one)
      ledger.forget(1)
      try expect(ledger.owned(by: 2).count, equals: 4, "after the first has left")
      // Those of members that are gone change nothing.
      ledger.hold(2)
      let three = ledger.join(probe.log, "g", ["a"], as: 3)
      ledger.leaving(2)
      probe.log.leave(two)
      ledger.forget(2)
      try expect(ledger.owned(by: 3).count, equals: 4, "after one left without finishing")
      try expect(ledger.finishHeld(), equals: 1, "revocations of who has left")
      try expect(ledger.owned(by: 3).count, equals: 4, "after they were finished late")
      probe.log.leave(three)
      try ledger.check()
    },
    Case("members are told of topics that come and go") { probe in
      let ledger = OwnershipLedger()
      let member = ledger.join(probe.log, "g", ["a"], as: 1)
      try expect(ledger.calls(of: 1), equals: 1, "calls with the initial, empty assignment")
      try expect(ledger.owned(by: 1), equals: [], "before the topic is there")
      try await probe.createTopic("a", partitions: 2)
      try expect(ledger.owned(by: 1), equals: [TopicPartition("a", 0), TopicPartition("a", 1)], "after its creation")
      try await probe.log.deleteTopic("a")
      try expect(ledger.owned(by: 1), equals: [], "after its deletion")
      probe.log.leave(member)
      try ledger.check()
    },
    Case("however members come and go at once, every partition ends with one owner") { probe in
      try await probe.createTopic("a", partitions: 16)
      let ledger = OwnershipLedger()
      let stay = ledger.join(probe.log, "g", ["a"], as: 0)
      await withTaskGroup(of: Void.self) { group in
        for member in 1...6 {
          group.addTask {
            for round in 0..<20 {
              let id = member * 100 + round
              let membership = ledger.join(probe.log, "g", ["a"], as: id)
              ledger.leaving(id)
              probe.log.leave(membership)
              ledger.forget(id)
            }
          }
        }
      }
      try expect(ledger.owned(by: 0).count, equals: 16, "partitions of the member that stayed")
      probe.log.leave(stay)
      try ledger.check()
    },
  ]
}

/// Who owns what in each group, as told by `onChange`.
private final class OwnershipLedger: Sendable {
  private struct State {
    var owned: [Int: Set<TopicPartition>] = [:]
    var calls: [Int: Int] = [:]
    /// Members that have begun to leave: others may get their partitions.
    var leaving: Set<Int> = []
    var groups: [Int: String] = [:]
    var fault: String?
    var holding: Set<Int> = []
    var held: [GroupChange] = []
  }

  private let state = Mutex(State())

  func join(_ log: any EventLog, _ group: String, _ topics: [String], as member: Int) -> GroupMembership {
    state.withLock { $0.groups[member] = group }
    return log.join(group: group, topics: topics) { change in self.apply(change, member) }
  }

  private func apply(_ change: GroupChange, _ member: Int) {
    state.withLock { state in
      state.calls[member, default: 0] += 1
      for partition in change.revoked where state.owned[member]?.remove(partition) == nil {
        state.fault = "\(partition) was revoked from \(member), which did not have it"
      }
      for partition in change.assigned {
        for (other, owned) in state.owned
        where other != member && owned.contains(partition) && state.groups[other] == state.groups[member]
          && !state.leaving.contains(other)
        {
          state.fault = "\(partition) was given to \(member) while \(other) had it"
        }
        state.owned[member, default: []].insert(partition)
      }
    }
    if !change.revoked.isEmpty { finish(change, member) }
  }

  /// Finishes a revocation, or keeps it for later.
  private func finish(_ change: GroupChange, _ member: Int) {
    let isHeld = state.withLock { state in
      guard state.holding.contains(member) else { return false }
      state.held.append(change)
      return true
    }
    if !isHeld { change.finish() }
  }

  /// The member takes its time over revocations until `finishHeld`.
  func hold(_ member: Int) { _ = state.withLock { $0.holding.insert(member) } }

  /// Finishes what was held back, twice; returns how many that were.
  func finishHeld() -> Int {
    let held = state.withLock { state in
      defer { state.held = [] }
      state.holding = []
      return state.held
    }
    for change in held {
      change.finish()
      change.finish()
    }
    return held.count
  }

  func owned(by member: Int) -> Set<TopicPartition> { state.withLock { $0.owned[member] ?? [] } }

  func calls(of member: Int) -> Int { state.withLock { $0.calls[member] ?? 0 } }

  func leaving(_ member: Int) { _ = state.withLock { $0.leaving.insert(member) } }

  func forget(_ member: Int) {
    state.withLock { state in
      state.owned[member] = nil
      state.leaving.insert(member)
    }
  }

  func check() throws(ConformanceFailure) {
    if let fault = state.withLock({ $0.fault }) { throw ConformanceFailure(message: fault, file: #fileID, line: #line) }
  }
}
