import GrapeLog
import GrapeWire

/// What was asked of the log, and what it said.
final class LogOperation {
  enum Request {
    case commit(Transaction)
    case createTopic(String, TopicConfiguration)
    case alterTopic(String, TopicConfiguration)
    case deleteTopic(String)
    case deleteRecords(TopicPartition, before: Int64)
    case deleteGroup(String)
  }

  /// What the log must answer if nothing fails.
  enum Outcome: Equatable {
    case committed([Int64])
    case done
    case refused(LogError.Code)
  }

  enum Answer: Equatable {
    case none
    /// With the durability reached.
    case acknowledged(Durability)
    /// Refused for a reason that lies in the request.
    case refused
    /// The log failed: it may be there after the next start, or not.
    case unknown
    /// Never taken by the log.
    case turnedAway
  }

  let request: Request
  /// Place in the order of submission.
  var number = 0
  var outcome = Outcome.done
  var answer = Answer.none
  /// Refused for want of space.
  var isVoid = false
  /// Number of the last operation that had been handed over when this one was known to be on the disk.
  var durableBefore: Int?
  /// Of the creation of a topic that was not there before: the topic, empty.
  var topic: ModelState.Topic?

  init(_ request: Request) { self.request = request }

  /// The log holds something of it: neither a refusal nor the creation of a topic that is there leaves a trace.
  var hasEffect: Bool {
    if isVoid { return false }
    if case .refused = outcome { return false }
    switch request {
    case .createTopic: return topic != nil
    // Whether it leaves a trace if there was nothing to change is not for the model to know.
    case .deleteRecords, .alterTopic: return false
    case .commit, .deleteTopic, .deleteGroup: return true
    }
  }

  /// Topics are created and deleted durably.
  var durability: Durability {
    if case .commit(let transaction) = request { transaction.durability } else { .disk }
  }
}

extension LogOperation: CustomStringConvertible {
  var description: String {
    switch request {
    case .commit(let transaction):
      let appends = transaction.appends.map { "\($0.partition) \($0.recordCount) records \($0.batch.count) bytes" }
      let offsets = transaction.offsets.map { "\($0.group) \($0.partition) to \($0.committed.offset)" }
      return "#\(number) commit \(transaction.durability) [\((appends + offsets).joined(separator: ", "))]: \(answer)"
    case .createTopic(let name, let configuration):
      return "#\(number) create \(name) with \(configuration.partitions) partitions: \(answer)"
    case .alterTopic(let name, let configuration):
      return "#\(number) alter \(name) to \(configuration): \(answer)"
    case .deleteTopic(let name): return "#\(number) delete \(name): \(answer)"
    case .deleteRecords(let partition, let offset): return "#\(number) trim \(partition) to \(offset): \(answer)"
    case .deleteGroup(let name): return "#\(number) delete group \(name): \(answer)"
    }
  }
}
