import CRDKafka
import GrapeKafka
import GrapeLog
import GrapeTestKit
import Testing

@Suite("What Kafka does when brokers fail", .serialized, .timeLimit(.minutes(1))) struct FaultTests {
  private let first = TopicPartition("a", 0)
  private let second = TopicPartition("a", 1)

  private func withCluster(
    commitTimeout: Int = 20_000, requestTimeout: Int? = nil, settings: [String: String] = [:],
    _ body: (MockCluster, KafkaEventLog) async throws -> Void
  ) async throws {
    let cluster = try MockCluster()
    cluster.createTopic("a")
    var configuration = cluster.configuration(commitTimeout: commitTimeout)
    configuration.settings.merge(settings) { $1 }
    if let requestTimeout { configuration.requestTimeout = requestTimeout }
    let log = try KafkaEventLog(configuration)
    do {
      try await body(cluster, log)
    } catch {
      await log.close()
      throw error
    }
    await log.close()
  }

  private func values(_ log: KafkaEventLog, _ partition: TopicPartition) async throws -> [String] {
    var values: [String] = []
    var next: Int64 = 0
    while true {
      let result = try await log.read(partition, from: next, maxBytes: 1 << 20)
      if result.batches.isEmpty { return values }
      for batch in result.batches { values += try SampleBatch.records(in: batch).map(\.value) }
      next = result.nextOffset
    }
  }

  /// A transaction that goes plainly, and one that needs Kafka's.
  private func transaction(_ value: String, plain: Bool) -> Transaction {
    Transaction(
      appends: [SampleBatch.append([value], to: first)] + (plain ? [] : [SampleBatch.append([value], to: second)]))
  }

  @Test("commits and reads go on when a partition gets another leader", arguments: [true, false])
  func leaderChange(plain: Bool) async throws {
    try await withCluster { cluster, log in
      for leader: Int32 in [1, 2, 3, 1] {
        cluster.setLeader(leader, of: "a", 0)
        try await log.commit(transaction("\(leader)", plain: plain))
      }
      #expect(try await values(log, first) == ["1", "2", "3", "1"])
      cluster.setLeader(3, of: "a", 0)
      #expect(try await values(log, first) == ["1", "2", "3", "1"])
    }
  }

  @Test("who waits at the end is told of what this log writes without its being fetched")
  func ownRecords() async throws {
    // A broker that has nothing for a fetch answers it minutes later.
    try await withCluster(settings: ["fetch.wait.max.ms": "200000", "socket.timeout.ms": "290000"]) { cluster, log in
      try await log.commit(transaction("0", plain: true))
      #expect(try await values(log, first) == ["0"])
      for number in 1...20 {
        let offset = Int64(number)
        let (told, tell) = AsyncStream.makeStream(of: Void.self)
        _ = log.whenAvailable(first, after: offset) { tell.yield() }
        // What is asked later is answered later: then the watch is in place.
        #expect(try await log.read(first, from: offset, maxBytes: 1).batches.isEmpty)
        try await log.commit(transaction("\(number)", plain: true))
        for await _ in told { break }
        let batches = try await log.read(first, from: offset, maxBytes: 1 << 20).batches
        #expect(try batches.flatMap { try SampleBatch.records(in: $0) }.map(\.value) == ["\(number)"])
        #expect(batches.map(\.baseOffset) == [offset])
      }
    }
  }

  @Test("a commit outlives its coordinator's move and refusals that pass")
  func coordinatorMove() async throws {
    try await withCluster { cluster, log in
      try await log.commit(transaction("1", plain: false))
      cluster.setCoordinator(3, ofTransactions: "node-1")
      try await log.commit(transaction("2", plain: false))
      cluster.fail(.endTransaction, [RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE, RD_KAFKA_RESP_ERR_NOT_COORDINATOR])
      cluster.fail(.addPartitions, [RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS])
      cluster.fail(.produce, [RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS])
      try await log.commit(transaction("3", plain: false))
      #expect(try await values(log, first) == ["1", "2", "3"])
    }
  }

  @Test(
    "with all brokers down a commit fails in time as one that may be tried again, and later ones succeed",
    arguments: [true, false])
  func down(plain: Bool) async throws {
    try await withCluster(commitTimeout: 2_000) { cluster, log in
      try await log.commit(transaction("before", plain: plain))
      for broker: Int32 in 1...3 { cluster.setDown(broker) }
      let error = await #expect(throws: LogError.self) { try await log.commit(transaction("lost", plain: plain)) }
      #expect(error?.code == .busy, "\(error.map { "\($0)" } ?? "")")
      for broker: Int32 in 1...3 { cluster.setUp(broker) }
      var last: LogError?
      // The way back takes the client a moment; every answer until then must be that one.
      for _ in 0..<10 {
        do throws(LogError) {
          try await log.commit(transaction("after", plain: plain))
          last = nil
          break
        } catch {
          #expect(error.code == .busy, "\(error)")
          last = error
        }
      }
      #expect(last == nil)
      #expect(try await values(log, first).last == "after")
    }
  }

  @Test("questions that nobody answered in time do no harm when brokers are back")
  func unanswered() async throws {
    try await withCluster(requestTimeout: 2_000) { cluster, log in
      for broker: Int32 in 1...3 { cluster.setDown(broker) }
      for _ in 0..<2 {
        let error = await #expect(throws: LogError.self) { _ = try await log.committedOffsets(group: "g") }
        #expect(error?.code == .busy, "\(error.map { "\($0)" } ?? "")")
      }
      let error = await #expect(throws: LogError.self) { try await log.deleteGroup("g") }
      #expect(error?.code == .busy, "\(error.map { "\($0)" } ?? "")")
      for broker: Int32 in 1...3 { cluster.setUp(broker) }
      // librdkafka has connected to all of them, and gone through what waited for that, when each has answered.
      var last: LogError?
      for _ in 0..<20 {
        do throws(LogError) {
          _ = try await log.committedOffsets(group: "g")
          try await log.commit(transaction("after", plain: false))
          last = nil
          break
        } catch {
          last = error
        }
      }
      #expect(last == nil, "\(last.map { "\($0)" } ?? "")")
    }
  }

  @Test("a fenced producer fails for good, and says why")
  func fenced() async throws {
    try await withCluster { cluster, log in
      try await log.commit(transaction("1", plain: false))
      cluster.fail(.addPartitions, [RD_KAFKA_RESP_ERR_PRODUCER_FENCED])
      for plain in [false, true, false] {
        let error = await #expect(throws: LogError.self) { try await log.commit(transaction("2", plain: plain)) }
        #expect(error?.code == .failed)
        #expect(error?.message.contains("another node has taken over") == true, "\(error.map { "\($0)" } ?? "")")
      }
    }
  }

  @Test("what a broker refuses for good fails with what it said, and the log goes on", arguments: [true, false])
  func refused(plain: Bool) async throws {
    try await withCluster { cluster, log in
      for (refusal, code) in [
        (RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, LogError.Code.tooLarge),
        (RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, .unauthorized),
        (RD_KAFKA_RESP_ERR_INVALID_RECORD, .invalidArgument),
      ] {
        cluster.fail(.produce, [refusal])
        let error = await #expect(throws: LogError.self) { try await log.commit(transaction("no", plain: plain)) }
        #expect(error?.code == code, "\(error.map { "\($0)" } ?? "")")
        try await log.commit(transaction("yes", plain: plain))
      }
      // The mock cluster has no markers, and so shows tries that were rolled back.
      let found = try await values(log, first).filter { $0 == "yes" }.count
      #expect(plain ? found == 3 : found >= 3)
    }
  }

  @Test("offsets that the group's coordinator refuses fail their transaction")
  func offsetsRefused() async throws {
    try await withCluster { cluster, log in
      let commit = Transaction(
        appends: [SampleBatch.append(["x"], to: first)],
        offsets: [.init(group: "g", partition: second, committed: CommittedOffset(offset: 0))])
      cluster.fail(.commitOffsets, [RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED])
      let error = await #expect(throws: LogError.self) { try await log.commit(commit) }
      #expect(error?.code == .unauthorized, "\(error.map { "\($0)" } ?? "")")
      try await log.commit(commit)
    }
  }

  @Test("a cluster that does not answer is an error in time, not a wait for ever")
  func unreachable() async throws {
    var configuration = KafkaConfiguration(bootstrapServers: "127.0.0.1:1", transactionalID: "node-1")
    configuration.requestTimeout = 300
    let error = #expect(throws: LogError.self) { _ = try KafkaEventLog(configuration) }
    #expect(error?.code == .busy, "\(error.map { "\($0)" } ?? "")")
  }
}
