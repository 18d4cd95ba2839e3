import CRDKafka
import GrapeKafka
import GrapeLog
import GrapeTestKit
import Testing

@Suite("Partitions that are taken over", .serialized, .timeLimit(.minutes(1))) struct SettledTests {
  /// Another node's transaction, open until it is told how to end.
  private final class OpenTransaction: @unchecked Sendable {
    private let producer: OpaquePointer

    init(_ address: String, id: String, topic: String) throws {
      let conf = rd_kafka_conf_new()
      var reason = [CChar](repeating: 0, count: 256)
      for (name, value) in ["bootstrap.servers": address, "transactional.id": id] {
        rd_kafka_conf_set(conf, name, value, &reason, reason.count)
      }
      guard let producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, &reason, reason.count) else {
        throw LogError(.failed, "no producer")
      }
      self.producer = producer
      try check(rd_kafka_init_transactions(producer, 10_000))
      try check(rd_kafka_begin_transaction(producer))
      let handle = rd_kafka_topic_new(producer, topic, nil)
      defer { rd_kafka_topic_destroy(handle) }
      let code = "x".withCString { value in
        rd_kafka_produce(
          handle, 0, RD_KAFKA_MSG_F_COPY, UnsafeMutableRawPointer(mutating: value), 1, nil, 0, nil)
      }
      guard code == 0, rd_kafka_flush(producer, 10_000) == RD_KAFKA_RESP_ERR_NO_ERROR else {
        throw LogError(.failed, "not written")
      }
    }

    private func check(_ error: OpaquePointer?) throws {
      guard let error else { return }
      defer { rd_kafka_error_destroy(error) }
      throw LogError(.failed, String(cString: rd_kafka_error_string(error)))
    }

    func end(committing: Bool) throws {
      try check(
        committing ? rd_kafka_commit_transaction(producer, 10_000) : rd_kafka_abort_transaction(producer, 10_000))
    }

    deinit { rd_kafka_destroy(producer) }
  }

  @Test("are settled when the transactions that were open in them are decided", arguments: [true, false])
  func settled(committing: Bool) async throws {
    let configuration = try KafkaFixture.configuration()
    let log = try KafkaEventLog(configuration)
    try await log.createTopic("a", configuration: TopicConfiguration(partitions: 2))
    let partitions = [TopicPartition("a", 0), TopicPartition("a", 1)]
    let open = try OpenTransaction(
      configuration.bootstrapServers, id: configuration.namespace + "other", topic: configuration.namespace + "a")
    let answers = Answers()
    async let waiting: Void = {
      try await log.settled(partitions)
      answers.add(.success(CommitReceipt(durability: .disk, baseOffsets: [])), 0)
    }()
    // Another partition, and questions that take a while, come to their end meanwhile.
    try await log.settled([partitions[1]])
    for _ in 0..<20 { _ = try await log.bounds(of: partitions[0]) }
    #expect(answers.codes.isEmpty)
    try open.end(committing: committing)
    try await waiting
    #expect(try await log.read(partitions[0], from: 0, maxBytes: 1_000).batches.count == (committing ? 1 : 0))
    let error = await #expect(throws: LogError.self) { try await log.settled([TopicPartition("b", 0)]) }
    #expect(error?.code == .noSuchTopic)
    await log.close()
  }

  @Test("that stay undecided are an error in time; a log that closes does not wait for them")
  func undecided() async throws {
    var configuration = try KafkaFixture.configuration()
    configuration.transactionTimeout = 1_000
    let log = try KafkaEventLog(configuration)
    try await log.createTopic("a", configuration: TopicConfiguration(partitions: 1))
    let open = try OpenTransaction(
      configuration.bootstrapServers, id: configuration.namespace + "other", topic: configuration.namespace + "a")
    let error = await #expect(throws: LogError.self) { try await log.settled([TopicPartition("a", 0)]) }
    #expect(error?.code == .busy)
    let waiting = Task { try await log.settled([TopicPartition("a", 0)]) }
    await log.close()
    let closed = await #expect(throws: LogError.self) { try await waiting.value }
    #expect(closed?.code == .closed)
    try open.end(committing: false)
  }
}
