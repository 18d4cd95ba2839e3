import CRDKafka
import GrapeKafka
import GrapeLog
import GrapeTestKit
import Testing

/// Each log stands for a node. The mock cluster rebalances as brokers do, with every strategy.
@Suite("Consumer groups over several nodes", .serialized, .timeLimit(.minutes(2))) struct GroupTests {
  private func withNodes(
    _ count: Int, partitions: Int32 = 4, strategy: String? = nil,
    _ change: (inout KafkaConfiguration) -> Void = { _ in },
    _ body: (MockCluster, [KafkaEventLog]) async throws -> Void
  ) async throws {
    let cluster = try MockCluster()
    cluster.createTopic("a", partitions: partitions)
    var logs: [KafkaEventLog] = []
    for number in 0..<count {
      var configuration = cluster.configuration()
      configuration.transactionalID = "node-\(number)"
      // The mock cluster lets a rebalance take a second less than this, whatever happens.
      configuration.settings["session.timeout.ms"] = "3000"
      configuration.settings["heartbeat.interval.ms"] = "200"
      if let strategy { configuration.settings["partition.assignment.strategy"] = strategy }
      if environment("GRAPE_KAFKA_DEBUG") != nil {
        configuration.settings["debug"] = "cgrp"
        configuration.log = { print("node-\(number) \(ContinuousClock.now)", $0.facility, $0.message) }
      }
      change(&configuration)
      logs.append(try KafkaEventLog(configuration))
    }
    do {
      try await body(cluster, logs)
    } catch {
      for log in logs { await log.close() }
      throw error
    }
    for log in logs { await log.close() }
  }

  @Test(
    "two nodes share a topic's partitions; one that leaves hands its over at once",
    arguments: ["cooperative-sticky", "range", "roundrobin"])
  func share(strategy: String) async throws {
    try await withNodes(2, strategy: strategy) { _, logs in
      let one = GroupProbe(logs[0], "g", ["a"])
      await one.wait(forOwned: 4)
      let two = GroupProbe(logs[1], "g", ["a"])
      await two.wait(forOwned: 2)
      await one.wait(forOwned: 2)
      #expect(one.owned.isDisjoint(with: two.owned))
      let start = ContinuousClock.now
      two.leave()
      await one.wait(forOwned: 4)
      // Without waiting for the session to time out, and then for the rebalance.
      #expect(ContinuousClock.now - start < .seconds(4))
      #expect(one.faults + two.faults == [])
      #expect(one.lost.isEmpty && two.lost.isEmpty)
    }
  }

  private let partitions = (0..<4).map { TopicPartition("a", Int32($0)) }

  private func commit(
    _ offset: Int64, in partition: TopicPartition, after previous: Int64? = nil, patient: Bool = false
  ) -> Transaction {
    Transaction(
      appends: [SampleBatch.append(["\(offset)"], to: TopicPartition("b", 0))],
      offsets: [
        .init(group: "g", partition: partition, committed: CommittedOffset(offset: offset), previous: previous)
      ], isPatient: patient)
  }

  private func code(_ log: KafkaEventLog, _ transaction: Transaction) async -> LogError.Code? {
    do throws(LogError) {
      try await log.commit(transaction)
      return nil
    } catch {
      return error.code
    }
  }

  @Test("partitions go from node to node when their members have finished with them, and not before")
  func finish() async throws {
    try await withNodes(2) { cluster, logs in
      cluster.createTopic("b")
      let one = GroupProbe(logs[0], "g", ["a"])
      await one.wait(forOwned: 4)
      try await logs[0].commit(commit(1, in: partitions[3]))
      one.hold()
      let two = GroupProbe(logs[1], "g", ["a"])
      await one.wait { owned, _ in owned.count == 2 }
      let moving = Set(partitions).subtracting(one.owned)
      #expect(two.owned.isEmpty)
      // What is under way is committed before the end of the revocation.
      for partition in moving { try await logs[0].commit(commit(2, in: partition)) }
      #expect(two.owned.isEmpty)
      one.finish()
      await two.wait(forOwned: 2)
      #expect(two.owned == moving)
      for partition in partitions {
        let owner = moving.contains(partition) ? 1 : 0
        #expect(await code(logs[owner], commit(3, in: partition)) == nil)
        #expect(await code(logs[1 - owner], commit(4, in: partition)) == .partitionLost)
      }
      #expect(one.lost.isEmpty && one.faults + two.faults == [])
    }
  }

  @Test("a member that does not finish in time loses its partitions, and cannot commit any more")
  func late() async throws {
    try await withNodes(2, { $0.revocationTimeout = 1_000 }) { cluster, logs in
      cluster.createTopic("b")
      let one = GroupProbe(logs[0], "g", ["a"])
      await one.wait(forOwned: 4)
      one.hold()
      let two = GroupProbe(logs[1], "g", ["a"])
      await two.wait(forOwned: 2)
      #expect(one.lost == two.owned)
      for partition in two.owned {
        #expect(await code(logs[0], commit(1, in: partition)) == .partitionLost)
        #expect(await code(logs[1], commit(2, in: partition)) == nil)
      }
      // Late, and of no effect.
      one.finish()
      two.leave()
      await one.wait(forOwned: 4)
      #expect(one.faults + two.faults == [])
    }
  }

  @Test("members of one node share what the node is given", arguments: ["cooperative-sticky", "range"])
  func local(strategy: String) async throws {
    try await withNodes(2, partitions: 6, strategy: strategy) { _, logs in
      let first = GroupProbe(logs[0], "g", ["a"])
      let second = GroupProbe(logs[0], "g", ["a"])
      await first.wait(forOwned: 3)
      await second.wait(forOwned: 3)
      let other = GroupProbe(logs[1], "g", ["a"])
      await other.wait(forOwned: 3)
      await first.wait { owned, _ in (1...2).contains(owned.count) }
      await second.wait { owned, _ in (1...2).contains(owned.count) }
      #expect(first.owned.union(second.owned).union(other.owned).count == 6)
      first.leave()
      await second.wait(forOwned: 3)
      second.leave()
      await other.wait(forOwned: 6)
      #expect(first.faults + second.faults + other.faults == [])
    }
  }

  @Test("a group goes on when other brokers become its coordinator")
  func coordinatorMove() async throws {
    try await withNodes(2) { cluster, logs in
      cluster.createTopic("b")
      let one = GroupProbe(logs[0], "g", ["a"])
      let two = GroupProbe(logs[1], "g", ["a"])
      await one.wait(forOwned: 2)
      await two.wait(forOwned: 2)
      for (round, broker) in ([1, 2, 3, 1] as [Int32]).enumerated() {
        cluster.setCoordinator(broker, ofGroup: "g")
        for partition in partitions {
          let owner = logs[one.owned.contains(partition) ? 0 : 1]
          #expect(await code(owner, commit(Int64(round) + 1, in: partition)) == nil)
        }
      }
      #expect(one.lost.isEmpty && two.lost.isEmpty)
      // Who left is missed at the new coordinator, too.
      two.leave()
      await one.wait(forOwned: 4)
      #expect(one.faults + two.faults == [])
    }
  }

  @Test("a node that dies is replaced once its session has timed out")
  func killed() async throws {
    try await withNodes(1) { cluster, logs in
      let one = GroupProbe(logs[0], "g", ["a"])
      await one.wait(forOwned: 4)
      let victim = try BareMember(
        cluster.address, group: "g", topic: "a",
        settings: [
          "partition.assignment.strategy": "cooperative-sticky", "session.timeout.ms": "3000",
          "heartbeat.interval.ms": "200",
        ])
      try victim.wait(forOwned: 2)
      #expect(one.owned.count == 2)
      victim.kill()
      await one.wait(forOwned: 4)
      #expect(one.faults == [] && one.lost.isEmpty)
    }
  }

  @Test("a node that the cluster does not hear of loses its partitions, and gets some when it is back")
  func cutOff() async throws {
    try await withNodes(1) { cluster, logs in
      cluster.createTopic("b")
      let one = GroupProbe(logs[0], "g", ["a"])
      await one.wait(forOwned: 4)
      #expect(await code(logs[0], commit(1, in: partitions[0])) == nil)
      for broker: Int32 in 1...3 { cluster.setDown(broker) }
      await one.wait { owned, _ in owned.isEmpty }
      #expect(one.lost == Set(partitions))
      // No question to the cluster is needed for that.
      #expect(await code(logs[0], commit(1, in: partitions[0])) == .partitionLost)
      for broker: Int32 in 1...3 { cluster.setUp(broker) }
      await one.wait(forOwned: 4)
      #expect(await code(logs[0], commit(1, in: partitions[0])) == nil)
    }
  }

  @Test("what a coordinator says of a member decides over its offsets, and over nothing else that is committed")
  func stale() async throws {
    try await withNodes(1) { cluster, logs in
      cluster.createTopic("b")
      let one = GroupProbe(logs[0], "g", ["a"])
      await one.wait(forOwned: 4)
      // Not known to the coordinator: final.
      cluster.fail(.commitOffsets, [RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID])
      let answers = Answers()
      logs[0].commit(commit(1, in: partitions[0])) { answers.add($0, 0) }
      let free = Transaction(
        appends: [SampleBatch.append(["x"], to: TopicPartition("b", 0)), SampleBatch.append(["x"], to: partitions[0])])
      try await logs[0].commit(free)
      #expect(answers.codes == [.partitionLost], "\(answers.errors)")
      // Of another generation: the news may be on their way.
      cluster.fail(.commitOffsets, [RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION])
      #expect(await code(logs[0], commit(2, in: partitions[0])) == nil)
      cluster.fail(.commitOffsets, [RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS])
      #expect(await code(logs[0], commit(3, in: partitions[0], after: 2)) == nil)
    }
  }
}
