import GrapeKafka
import GrapeLog
import GrapeTestKit
import Testing

@Suite("Kafka keeps the contract of event logs", .serialized) struct ConformanceTests {
  /// Cases that hold a log to more than the contract says, each with why Kafka does otherwise. `PromiseTests` has what
  /// holds instead.
  private static let beyondTheContract = [
    "a transaction's batches get their base offsets in its order, and keep it within a partition":
      "a Kafka transaction takes an offset for its marker, so the end is not behind the last record",
    "reading from the middle of a batch gives that batch whole": "librdkafka does not tell where batches begin",
    "a read returns as many batches as fit, and at least one": "reads gather records into one batch",
    "batches come out as they went in, but for the base offset": "reads gather records anew",
    "given up is given up for good, also within a batch": "reads gather records into one batch",
  ]
  /// Counts transactions by offsets, so that it would wait for ever if it missed one.
  private static let counted = "readers see a transaction whole or not at all"

  @Test(
    "with a broker", .timeLimit(.minutes(2)),
    arguments: EventLogConformance.all.filter { beyondTheContract[$0.name] == nil && $0.name != counted })
  func keeps(_ promise: EventLogConformance.Case) async throws {
    try await promise.run(on: KafkaFixture.conformance())
  }

  @Test(
    "cases that ask for more fail as is known", .timeLimit(.minutes(1)),
    arguments: beyondTheContract.sorted { $0.key < $1.key })
  func knownDifference(name: String, reason: String) async throws {
    let promise = try #require(EventLogConformance.all.first { $0.name == name })
    let fixture = try KafkaFixture.conformance()
    await withKnownIssue(Comment(rawValue: reason)) { try await promise.run(on: fixture) }
  }
}
