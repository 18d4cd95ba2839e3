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
      let ledger = OwnershipLedger(probe)
      let one = ledger.join("g", ["a", "b"], as: 1)
      try await ledger.expect("seven partitions for the only member") { $0.owned(by: 1).count == 7 }
      let two = ledger.join("g", ["a", "b"], as: 2)
      try await ledger.expect("a fair share of seven") { [3, 4].contains($0.owned(by: 2).count) }
      let other = ledger.join("other", ["b"], as: 3)
      try await ledger.expect("three partitions in another group") { $0.owned(by: 3).count == 3 }
      ledger.leave(one, as: 1)
      ledger.leave(one, as: 1)
      try await ledger.expect("seven partitions after the first has left") { $0.owned(by: 2).count == 7 }
      ledger.leave(two, as: 2)
      ledger.leave(other, as: 3)
      try ledger.check()
    },
    Case("a partition goes to its new owner only when the old one has finished with it") { probe in
      try await probe.createTopic("a", partitions: 4)
      let ledger = OwnershipLedger(probe)
      let one = ledger.join("g", ["a"], as: 1)
      try await ledger.expect("four partitions for the only member") { $0.owned(by: 1).count == 4 }
      ledger.hold(1)
      let two = ledger.join("g", ["a"], as: 2)
      try await ledger.expect("one revocation") { $0.held.count == 1 }
      try expect(ledger.owned(by: 2), equals: [], "while the first has not finished")
      ledger.finishHeld()
      try await ledger.expect("two partitions once it has") { $0.owned(by: 2).count == 2 }
      ledger.hold(2)
      ledger.leave(one, as: 1)
      try await ledger.expect("four partitions after the first has left") { $0.owned(by: 2).count == 4 }
      // Those of members that are gone change nothing.
      ledger.hold(2)
      let three = ledger.join("g", ["a"], as: 3)
      try await ledger.expect("one revocation of the second") { $0.held.count == 1 }
      ledger.leave(two, as: 2)
      try await ledger.expect("four partitions after one left without finishing") { $0.owned(by: 3).count == 4 }
      ledger.finishHeld()
      try expect(ledger.owned(by: 3).count, equals: 4, "partitions after they were finished late")
      ledger.leave(three, as: 3)
      try ledger.check()
    },
    Case("members are told of topics that come and go") { probe in
      let ledger = OwnershipLedger(probe)
      let member = ledger.join("g", ["a"], as: 1)
      try await ledger.expect("a call with the initial, empty assignment") { $0.calls(of: 1) == 1 }
      try expect(ledger.owned(by: 1), equals: [], "before the topic is there")
      try await probe.createTopic("a", partitions: 2)
      try await ledger.expect("two partitions after its creation") {
        $0.owned(by: 1) == [TopicPartition("a", 0), TopicPartition("a", 1)]
      }
      try await probe.log.deleteTopic("a")
      try await ledger.expect("none after its deletion") { $0.owned(by: 1).isEmpty }
      ledger.leave(member, as: 1)
      try ledger.check()
    },
    Case("however members come and go at once, every partition ends with one owner") { probe in
      try await probe.createTopic("a", partitions: 16)
      let ledger = OwnershipLedger(probe)
      let stay = ledger.join("g", ["a"], as: 0)
      await withTaskGroup(of: Void.self) { group in
        for member in 1...6 {
          group.addTask {
            for round in 0..<20 {
              let id = member * 100 + round
              ledger.leave(ledger.join("g", ["a"], as: id), as: id)
            }
          }
        }
      }
      try await ledger.expect("all partitions for the member that stayed") { $0.owned(by: 0).count == 16 }
      ledger.leave(stay, as: 0)
      try ledger.check()
    },
    Case("a member commits offsets of the partitions that it has") { probe in
      try await probe.createTopic("a", partitions: 2)
      let ledger = OwnershipLedger(probe)
      let member = ledger.join("g", ["a"], as: 1)
      try await ledger.expect("both partitions") { $0.owned(by: 1).count == 2 }
      var expected: [TopicPartition: CommittedOffset] = [:]
      for partition in [TopicPartition("a", 0), TopicPartition("a", 1)] {
        try await probe.append(["x", "y"], to: partition)
        for offset: Int64 in 1...2 {
          let committed = CommittedOffset(offset: offset)
          try await probe.log.commit(
            Transaction(offsets: [
              .init(group: "g", partition: partition, committed: committed, previous: offset == 1 ? nil : offset - 1)
            ]))
          expected[partition] = committed
        }
      }
      try expect(try await probe.log.committedOffsets(group: "g"), equals: expected, "offsets")
      ledger.leave(member, as: 1)
      try ledger.check()
    },
  ]
}

/// Who owns what in each group, as told by `onChange`.
private final class OwnershipLedger: Sendable {
  struct State: Sendable {
    fileprivate var owned: [Int: Set<TopicPartition>] = [:]
    fileprivate var calls: [Int: Int] = [:]
    /// Members that leave or have left: others may get their partitions.
    fileprivate var gone: Set<Int> = []
    fileprivate var groups: [Int: String] = [:]
    fileprivate var fault: String?
    fileprivate var holding: Set<Int> = []
    fileprivate(set) var held: [GroupChange] = []
    fileprivate var waits: [Wait] = []
    fileprivate var lastWait = 0

    func owned(by member: Int) -> Set<TopicPartition> { owned[member] ?? [] }
    func calls(of member: Int) -> Int { calls[member] ?? 0 }
  }

  fileprivate struct Wait: Sendable {
    let id: Int
    let condition: @Sendable (State) -> Bool
    let answer: CheckedContinuation<Bool, Never>
  }

  private let state = Mutex(State())
  private let log: any EventLog
  private let waits: Bool
  /// How long a log may take that tells its members later.
  private static let patience = Duration.seconds(40)

  init(_ probe: LogProbe) {
    log = probe.log
    waits = probe.has(.tellsMembersLater)
  }

  func join(_ group: String, _ topics: [String], as member: Int) -> GroupMembership {
    state.withLock { $0.groups[member] = group }
    return log.join(group: group, topics: topics) { change in self.apply(change, member) }
  }

  func leave(_ membership: GroupMembership, as member: Int) {
    state.withLock { state in
      state.gone.insert(member)
      state.owned[member] = nil
    }
    log.leave(membership)
  }

  private func apply(_ change: GroupChange, _ member: Int) {
    let (due, finishes) = state.withLock { state -> ([Wait], Bool) in
      // What was on its way while the member left.
      if state.gone.contains(member) { return ([], true) }
      state.calls[member, default: 0] += 1
      for partition in change.revoked + change.lost where state.owned[member]?.remove(partition) == nil {
        state.fault = "\(partition) was taken from \(member), which did not have it"
      }
      for partition in change.assigned {
        for (other, owned) in state.owned
        where other != member && owned.contains(partition) && state.groups[other] == state.groups[member] {
          state.fault = "\(partition) was given to \(member) while \(other) had it"
        }
        state.owned[member, default: []].insert(partition)
      }
      let isHeld = !change.revoked.isEmpty && state.holding.contains(member)
      if isHeld { state.held.append(change) }
      return (state.takeDue(), !isHeld)
    }
    for wait in due { wait.answer.resume(returning: true) }
    if finishes && !change.revoked.isEmpty { change.finish() }
  }

  /// Passes if the condition holds now, or, with a log that tells its members later, in time.
  func expect(
    _ what: String, file: String = #fileID, line: Int = #line, _ condition: @escaping @Sendable (State) -> Bool
  ) async throws {
    if state.withLock({ condition($0) }) { return }
    let isMet = waits ? await wait(condition) : false
    if !isMet {
      let owned = state.withLock { $0.owned.mapValues(\.count) }
      throw ConformanceFailure(
        message: "expected \(what); partitions per member: \(owned)", file: file, line: line)
    }
  }

  private func wait(_ condition: @escaping @Sendable (State) -> Bool) async -> Bool {
    let id = state.withLock { state in
      state.lastWait += 1
      return state.lastWait
    }
    let timer = Task {
      // Ends early when the wait is over.
      try? await Task.sleep(for: Self.patience)
      let late = self.state.withLock { state in
        defer { state.waits.removeAll { $0.id == id } }
        return state.waits.first { $0.id == id }
      }
      late?.answer.resume(returning: false)
    }
    let isMet = await withCheckedContinuation { answer in
      let due = state.withLock { state in
        state.waits.append(Wait(id: id, condition: condition, answer: answer))
        return state.takeDue()
      }
      for wait in due { wait.answer.resume(returning: true) }
    }
    timer.cancel()
    return isMet
  }

  /// The member takes its time over revocations until `finishHeld`.
  func hold(_ member: Int) { _ = state.withLock { $0.holding.insert(member) } }

  /// Finishes what was held back, twice.
  func finishHeld() {
    let held = state.withLock { state in
      defer { state.held = [] }
      state.holding = []
      return state.held
    }
    for change in held {
      change.finish()
      change.finish()
    }
  }

  func owned(by member: Int) -> Set<TopicPartition> { state.withLock { $0.owned(by: member) } }

  func check() throws(ConformanceFailure) {
    if let fault = state.withLock({ $0.fault }) { throw ConformanceFailure(message: fault, file: #fileID, line: #line) }
  }
}

extension OwnershipLedger.State {
  fileprivate mutating func takeDue() -> [OwnershipLedger.Wait] {
    let due = waits.filter { $0.condition(self) }
    waits.removeAll { wait in due.contains { $0.id == wait.id } }
    return due
  }
}
