import GrapeKafka
import GrapeLog
import GrapeTestKit
import Testing

@Suite("Kafka keeps the contract of event logs", .serialized) struct ConformanceTests {
  @Test("with a broker", .timeLimit(.minutes(2)), arguments: EventLogConformance.all)
  func keeps(_ promise: EventLogConformance.Case) async throws {
    try await promise.run(on: KafkaFixture.conformance())
  }
}
