import CRDKafka
import GrapeKafka
import GrapeLog
import GrapeTestKit
import Synchronization
import Testing

/// Single records are sent by the thread that hands them over when nothing is waiting; everything else by the committer's. Nobody who commits is to see a
/// difference.
@Suite("Records sent by the express way", .serialized, .timeLimit(.minutes(2))) struct ExpressTests {
  private let first = TopicPartition("a", 0)
  private let second = TopicPartition("a", 1)

  private func withCluster(
    commitTimeout: Int = 20_000, _ body: (MockCluster, KafkaEventLog) async throws -> Void
  ) async throws {
    let cluster = try MockCluster()
    cluster.createTopic("a")
    let log = try KafkaEventLog(cluster.configuration(commitTimeout: commitTimeout))
    do {
      try await body(cluster, log)
    } catch {
      await log.close()
      throw error
    }
    await log.close()
  }

  private func one(_ value: String, patient: Bool = false) -> Transaction {
    var transaction = Transaction(appends: [SampleBatch.append([value], to: first)], isPatient: patient)
    transaction.mayRepeat = patient
    return transaction
  }

  /// Commits, one at a time, until they go by the express way: the first shows where the topic's records go, which takes a moment. How many.
  private func warm(_ log: KafkaEventLog, _ transaction: Transaction) async throws -> Int {
    for count in 1...1_000 {
      try await log.commit(transaction)
      if log.statistics.expressCommits > 0 { return count }
    }
    throw LogError(.failed, "none of 1,000 commits went by the express way")
  }

  private func values(_ log: KafkaEventLog, _ partition: TopicPartition) async throws -> [(
    offset: Int64, value: String
  )] {
    var values: [(Int64, String)] = []
    var next: Int64 = 0
    while true {
      let result = try await log.read(partition, from: next, maxBytes: 1 << 20)
      if result.batches.isEmpty { return values }
      for batch in result.batches {
        values += try SampleBatch.records(in: batch).enumerated().map {
          (batch.baseOffset + Int64($0.offset), $0.element.value)
        }
      }
      next = result.nextOffset
    }
  }

  @Test("one at a time goes there, once the first has shown the way")
  func taken() async throws {
    try await withCluster { _, log in
      let count = try await warm(log, one("way"))
      #expect(count > 1)
      for number in 0..<10 { try await log.commit(one("\(number)")) }
      #expect(log.statistics.expressCommits == 11)
      #expect(log.statistics.plainCommits == count + 10)
      #expect(
        try await values(log, first).map(\.value) == [String](repeating: "way", count: count)
          + (0..<10).map(String.init))
    }
  }

  @Test("every order of commits, small and large, plain and in transactions, is that of handing over", arguments: 0..<6)
  func order(round: Int) async throws {
    let seed = UInt64.random(in: 0 ... .max)
    var random = SeededRandom(state: seed)
    let log = try KafkaEventLog(try KafkaFixture.configuration())
    try await log.createTopic("t", configuration: TopicConfiguration(partitions: 3))
    var expected: [Int32: [String]] = [:]
    let receipts = Mutex<[String: (partition: Int32, offset: Int64)]>([:])
    let failures = Mutex<[LogError]>([])
    var next = 0
    func commit() async {
      let count = [1, 1, 1, 1, 2, 5][Int(random.next() % 6)]
      let partitions: [Int32] = random.next() % 8 == 0 ? [0, 1, 2] : [Int32(random.next() % 3)]
      // Some are too large for the express way.
      let filling = String(repeating: "x", count: random.next() % 10 == 0 ? 20_000 : Int(random.next() % 100))
      var transaction = Transaction()
      var firsts: [(String, Int32)] = []
      for partition in partitions {
        let values = (0..<count).map { "\(next + $0) \(partition) \(filling)" }
        firsts.append((values[0], partition))
        expected[partition, default: []] += values
        transaction.appends.append(SampleBatch.append(values, to: TopicPartition("t", partition)))
      }
      next += count
      let waits = random.next() % 4 == 0
      let made = transaction
      let told = firsts
      await withCheckedContinuation { (done: CheckedContinuation<Void, Never>) in
        log.commit(made) { result in
          switch result {
          case .success(let receipt):
            receipts.withLock { receipts in
              for (place, (value, partition)) in told.enumerated() {
                receipts[value] = (partition, receipt.baseOffsets[place])
              }
            }
          case .failure(let error): failures.withLock { $0.append(error) }
          }
          if waits { done.resume() }
        }
        if !waits { done.resume() }
      }
    }
    for _ in 0..<300 { await commit() }
    // Everything before it in its partition is answered before it is.
    for partition: Int32 in 0..<3 {
      try await log.commit(Transaction(appends: [SampleBatch.append(["end"], to: TopicPartition("t", partition))]))
      expected[partition, default: []].append("end")
    }
    #expect(failures.withLock { $0.isEmpty }, "seed \(seed): \(failures.withLock { $0 })")
    let told = receipts.withLock { $0 }
    for partition: Int32 in 0..<3 {
      let found = try await values(log, TopicPartition("t", partition))
      let isAsHandedOver = found.map(\.value) == expected[partition]
      #expect(isAsHandedOver, "partition \(partition), seed \(seed)")
      for (offset, value) in found {
        if let receipt = told[value] { #expect(receipt == (partition, offset), "seed \(seed)") }
      }
    }
    #expect(log.statistics.expressCommits > 0, "seed \(seed)")
    await log.close()
  }

  @Test("what a broker refuses for good fails with what it said, and the log goes on")
  func refused() async throws {
    try await withCluster { cluster, log in
      _ = try await warm(log, one("way"))
      for (refusal, code) in [
        (RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, LogError.Code.tooLarge),
        (RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, .unauthorized),
        (RD_KAFKA_RESP_ERR_INVALID_RECORD, .invalidArgument),
      ] {
        cluster.fail(.produce, [refusal])
        let error = await #expect(throws: LogError.self) { try await log.commit(one("no")) }
        #expect(error?.code == code, "\(error.map { "\($0)" } ?? "")")
        // Where the topic's records go is found out again.
        for _ in 1...2 { try await log.commit(one("yes")) }
      }
      #expect(try await values(log, first).map(\.value).filter { $0 != "way" } == [String](repeating: "yes", count: 6))
    }
  }

  @Test("an outage: what may wait is written in the end, what may not is told in time, and nothing is overtaken")
  func outage() async throws {
    try await withCluster(commitTimeout: 2_000) { cluster, log in
      _ = try await warm(log, one("way"))
      for broker: Int32 in 1...3 { cluster.setDown(broker) }
      let answers = Answers()
      await withCheckedContinuation { (done: CheckedContinuation<Void, Never>) in
        let left = Countdown(2) { done.resume() }
        log.commit(one("patient", patient: true)) { answers.add($0, 0) }
        for number in 1...2 {
          log.commit(one("late")) { result in
            answers.add(result, number)
            left.one()
          }
        }
      }
      #expect(answers.codes.allSatisfy { $0 == .busy || $0 == .unknown }, "\(answers.errors)")
      for broker: Int32 in 1...3 { cluster.setUp(broker) }
      try await log.commit(one("after", patient: true))
      let found = try await values(log, first).map(\.value)
      #expect(found.filter { $0 == "after" }.count >= 1)
      // It may have been written twice, but not never.
      #expect(found.contains("patient"))
      #expect(found.firstIndex(of: "patient")! < found.firstIndex(of: "after")!)
    }
  }

  @Test("a log that closes waits for what was sent")
  func closing() async throws {
    let configuration = try KafkaFixture.configuration()
    for _ in 0..<20 {
      let log = try KafkaEventLog(configuration)
      if try await log.topics().isEmpty {
        try await log.createTopic("t", configuration: TopicConfiguration(partitions: 1))
      }
      let place = TopicPartition("t", 0)
      _ = try await warm(log, Transaction(appends: [SampleBatch.append(["way"], to: place)]))
      let sent = log.statistics.expressCommits
      let answers = Answers()
      log.commit(Transaction(appends: [SampleBatch.append(["last"], to: place)])) { answers.add($0, 0) }
      await log.close()
      #expect(answers.codes == [nil], "\(answers.errors)")
      #expect(log.statistics.expressCommits == sent + 1)
    }
  }
}
