import GrapeLog
import GrapeTestKit
import GrapeWire
import Testing

@testable import GrapeKafka

@Suite("What a log on Kafka tells of itself", .timeLimit(.minutes(1))) struct StatisticsTests {
  @Test("commits, reads and their sizes are counted")
  func counts() async throws {
    let log = try KafkaEventLog(KafkaFixture.configuration())
    try await log.createTopic("a", configuration: TopicConfiguration(partitions: 2))
    let append = SampleBatch.append(["x", "y"], to: TopicPartition("a", 0))
    try await log.commit(Transaction(appends: [append]))
    try await log.commit(Transaction(appends: [append, SampleBatch.append(["z"], to: TopicPartition("a", 1))]))
    _ = try await log.read(TopicPartition("a", 0), from: 0, maxBytes: 1_000)
    let statistics = log.statistics
    #expect(statistics.commits == 2 && statistics.plainCommits == 1 && statistics.commitsRefused == 0)
    #expect(statistics.transactionsBegun == 1 && statistics.transactionsCommitted == 1)
    #expect(statistics.recordsWritten == 5 && statistics.bytesWritten > 2 * append.batch.count)
    #expect(statistics.recordsRead >= 2 && statistics.bytesRead > 0)
    #expect(statistics.commitLatency.count == 2)
    #expect(statistics.commitLatency.percentile(0.5) <= statistics.commitLatency.maximum)
    await log.close()
  }

  @Test("percentiles are off by an eighth at most")
  func percentiles() {
    var histogram = LatencyHistogram()
    for value in 1...10_000 { histogram.add(microseconds: value) }
    for share in [0.001, 0.1, 0.5, 0.9, 0.99, 1] {
      let exact = Int(10_000 * share)
      #expect((exact...exact + exact / 8 + 1).contains(histogram.percentile(share)))
    }
    histogram.add(microseconds: .max)
    #expect(histogram.percentile(1) > 10_000)
  }

  @Test("librdkafka's report tells which brokers are up, and how far away; what is no report tells nothing")
  func report() {
    let report = """
      {"name":"x\\"y","brokers":{ "one:9092/1":{"nodeid":1,"state":"UP","rtt":{"avg":120,"p99":900},"toppars":{}},
      "two:9092/2":{"nodeid":2,"state":"DOWN","list":[1,{"a":null},"b"],"rtt":{}},
      "one:9092/bootstrap":{"nodeid":-1,"state":"UP"}, "three:9092/3":{"nodeid":3,"state":"INIT"} },"more":true}
      """
    #expect(
      ClusterView.brokers(in: report) == [
        KafkaStatistics.Broker(name: "one:9092/1", isUp: true, roundTripMean: 120, roundTrip99: 900),
        KafkaStatistics.Broker(name: "two:9092/2", isUp: false, roundTripMean: 0, roundTrip99: 0),
      ])
    for end in 0..<report.utf8.count {
      #expect(ClusterView.brokers(in: String(decoding: report.utf8.prefix(end), as: UTF8.self)).isEmpty)
    }
  }
}
