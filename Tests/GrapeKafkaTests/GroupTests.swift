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
}
