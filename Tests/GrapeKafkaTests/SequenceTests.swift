import CRDKafka
import GrapeKafka
import GrapeLog
import GrapeTestKit
import Testing

@Suite("Commits that build on one another, and those that can wait", .serialized, .timeLimit(.minutes(1)))
struct SequenceTests {
  private let partition = TopicPartition("a", 0)

  private func withCluster(
    commitTimeout: Int = 20_000, commitInterval: Int = 0, _ body: (MockCluster, KafkaEventLog) async throws -> Void
  ) async throws {
    let cluster = try MockCluster()
    cluster.createTopic("a")
    var configuration = cluster.configuration(commitTimeout: commitTimeout)
    configuration.commitInterval = commitInterval
    let log = try KafkaEventLog(configuration)
    do {
      try await body(cluster, log)
    } catch {
      await log.close()
      throw error
    }
    await log.close()
  }

  private func commit(_ offset: Int64, after previous: Int64?, patient: Bool = false) -> Transaction {
    Transaction(
      appends: [SampleBatch.append(["\(offset)"], to: TopicPartition("a", 1))],
      offsets: [
        .init(group: "g", partition: partition, committed: CommittedOffset(offset: offset), previous: previous)
      ], isPatient: patient)
  }

  /// Hands all over at once and waits for all answers.
  private func codes(_ log: KafkaEventLog, _ transactions: [Transaction]) async -> [LogError.Code?] {
    let answers = Answers()
    await withCheckedContinuation { (done: CheckedContinuation<Void, Never>) in
      let left = Countdown(transactions.count) { done.resume() }
      for (number, transaction) in transactions.enumerated() {
        log.commit(transaction) { result in
          answers.add(result, number)
          left.one()
        }
      }
    }
    return answers.codes
  }

  @Test(
    "a commit whose predecessor failed is refused, and so is all that builds on it", arguments: [nil, 5] as [Int64?])
  func outOfSequence(known: Int64?) async throws {
    // So that what is handed over together goes together.
    try await withCluster(commitInterval: 200) { cluster, log in
      if let known { try await log.commit(commit(known, after: nil)) }
      // Refused for good with the first; tried singly, the first fails again.
      cluster.fail(
        .commitOffsets,
        [RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED, RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED])
      let first = [commit(6, after: known), commit(7, after: 6), commit(8, after: 7)]
      #expect(await codes(log, first) == [.unauthorized, .outOfSequence, .outOfSequence])
      // Also later; what builds on what was committed goes.
      #expect(await codes(log, [commit(9, after: 8)]) == [.outOfSequence])
      #expect(
        await codes(log, [commit(7, after: known), commit(8, after: 7), commit(8, after: 8)]) == [nil, nil, nil])
      #expect(
        await codes(log, [commit(9, after: 7), commit(3, after: nil), commit(4, after: 3)]) == [
          .outOfSequence, nil, nil,
        ])
    }
  }

  @Test("what was read of a group's offsets counts as committed last")
  func readAgain() async throws {
    // The mock cluster shows no offsets that were committed in transactions.
    let configuration = try KafkaFixture.configuration()
    var second = configuration
    second.transactionalID = "node-2"
    let log = try KafkaEventLog(configuration)
    let other = try KafkaEventLog(second)
    try await log.createTopic("a", configuration: TopicConfiguration(partitions: 2))
    try await log.commit(commit(5, after: nil))
    try await other.commit(commit(9, after: nil))
    #expect(await codes(log, [commit(10, after: 9)]) == [.outOfSequence])
    #expect(try await log.committedOffsets(group: "g")[partition]?.offset == 9)
    #expect(await codes(log, [commit(10, after: 9)]) == [nil])
    #expect(try await log.committedOffsets(group: "g")[partition]?.offset == 10)
    await log.close()
    await other.close()
  }

  @Test("a patient commit outlasts an outage; others fail in time, and do not wait behind it for longer")
  func patient() async throws {
    try await withCluster(commitTimeout: 2_000) { cluster, log in
      try await log.commit(commit(1, after: nil))
      for broker: Int32 in 1...3 { cluster.setDown(broker) }
      let answers = Answers()
      let start = ContinuousClock.now
      await withCheckedContinuation { (done: CheckedContinuation<Void, Never>) in
        let left = Countdown(1) { done.resume() }
        log.commit(commit(2, after: 1, patient: true)) { answers.add($0, 0) }
        log.commit(commit(3, after: 2)) { result in
          answers.add(result, 1)
          left.one()
        }
      }
      // The tries themselves, and the way back from them, take their time.
      #expect(ContinuousClock.now - start < .seconds(8))
      #expect(answers.codes == [.busy], "\(answers.errors)")
      #expect(answers.errors.count == 1)
      for broker: Int32 in 1...3 { cluster.setUp(broker) }
      #expect(
        await codes(log, [commit(4, after: 3, patient: true), commit(5, after: 2, patient: true)]) == [
          .outOfSequence, nil,
        ])
      #expect(answers.codes == [nil, .busy])
    }
  }

  @Test("a patient commit that cannot be made fails as closed when the log closes")
  func patientUntilClosed() async throws {
    try await withCluster(commitTimeout: 2_000) { cluster, log in
      try await log.commit(commit(1, after: nil))
      for broker: Int32 in 1...3 { cluster.setDown(broker) }
      async let codes = codes(log, [commit(2, after: 1, patient: true), commit(3, after: 2, patient: true)])
      await log.close()
      #expect(await codes == [.closed, .closed])
    }
  }
}
