import GrapeKafka
import GrapeLog
import GrapeTestKit
import Synchronization

/// Logs on the tests' broker. Each test has a namespace of its own, so that it finds the cluster empty.
enum KafkaFixture {
  private static let numbers = Atomic<Int>(0)

  static func configuration() throws -> KafkaConfiguration {
    let number = numbers.add(1, ordering: .relaxed).newValue
    var configuration = KafkaConfiguration(
      bootstrapServers: try Broker.shared().address, transactionalID: "node-1")
    let run = UInt32.random(in: 0 ... .max)
    configuration.namespace = "t\(String(run, radix: 36))-\(number)."
    // Other than the default only so that a test that fails does not take a minute.
    configuration.requestTimeout = 15_000
    configuration.commitTimeout = 20_000
    return configuration
  }

  static func conformance(_ change: (inout KafkaConfiguration) -> Void = { _ in }) throws -> EventLogFixture {
    var configuration = try configuration()
    change(&configuration)
    let final = configuration
    return EventLogFixture(
      open: { try KafkaEventLog(final) }, reopen: { _ in try KafkaEventLog(final) },
      traits: [.regroupsBatches, .leavesGaps, .tellsMembersLater, .showsPartitionsApart])
  }
}
