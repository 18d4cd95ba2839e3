import GrapeLog
import GrapeTestKit
import Synchronization

/// A log whose administrator lets a node do some things only. Everything else is the log in memory.
final class GuardedLog: EventLog {
  enum Act: Hashable { case create, alter, describe }

  let inner = InMemoryEventLog()
  private let forbidden: Set<Act>
  private let changes = Mutex<[String]>([])

  init(forbidding forbidden: Set<Act>) { self.forbidden = forbidden }

  /// What was changed through this log: "create NAME", "alter NAME".
  var changed: [String] { changes.withLock { $0 } }

  private func refused<Value>(_ act: Act) -> Result<Value, LogError>? {
    forbidden.contains(act) ? .failure(LogError(.unauthorized, "Topic authorization failed")) : nil
  }

  func createTopic(
    _ name: String, configuration: TopicConfiguration, completion: @escaping @Sendable (Result<Void, LogError>) -> Void
  ) {
    if let refused: Result<Void, LogError> = refused(.create) { return completion(refused) }
    changes.withLock { $0.append("create \(name)") }
    // A topic that is there is compared with what is asked for, which takes the right to describe it.
    inner.createTopic(name, configuration: configuration) { [self] result in
      if case .failure(let error) = result, error.code == .topicExists,
        let hidden: Result<Void, LogError> = refused(.describe)
      {
        return completion(hidden)
      }
      completion(result)
    }
  }

  func alterTopic(
    _ name: String, configuration: TopicConfiguration, completion: @escaping @Sendable (Result<Void, LogError>) -> Void
  ) {
    if let refused: Result<Void, LogError> = refused(.alter) { return completion(refused) }
    changes.withLock { $0.append("alter \(name)") }
    inner.alterTopic(name, configuration: configuration, completion: completion)
  }

  func topics(completion: @escaping @Sendable (Result<[TopicDescription], LogError>) -> Void) {
    // What may not be described is left out.
    if forbidden.contains(.describe) { return completion(.success([])) }
    inner.topics(completion: completion)
  }

  func deleteTopic(_ name: String, completion: @escaping @Sendable (Result<Void, LogError>) -> Void) {
    inner.deleteTopic(name, completion: completion)
  }
  func deleteRecords(
    of partition: TopicPartition, before offset: Int64, completion: @escaping @Sendable (Result<Void, LogError>) -> Void
  ) { inner.deleteRecords(of: partition, before: offset, completion: completion) }
  func deleteGroup(_ group: String, completion: @escaping @Sendable (Result<Void, LogError>) -> Void) {
    inner.deleteGroup(group, completion: completion)
  }
  func commit(_ transaction: Transaction, completion: @escaping @Sendable (Result<CommitReceipt, LogError>) -> Void) {
    inner.commit(transaction, completion: completion)
  }
  func read(
    _ partition: TopicPartition, from offset: Int64, maxBytes: Int,
    completion: @escaping @Sendable (Result<ReadResult, LogError>) -> Void
  ) { inner.read(partition, from: offset, maxBytes: maxBytes, completion: completion) }
  func whenAvailable(
    _ partition: TopicPartition, after offset: Int64, notify: @escaping @Sendable () -> Void
  ) -> WatchToken { inner.whenAvailable(partition, after: offset, notify: notify) }
  func cancelWatch(_ token: WatchToken) { inner.cancelWatch(token) }
  func bounds(
    of partition: TopicPartition, completion: @escaping @Sendable (Result<PartitionBounds, LogError>) -> Void
  ) { inner.bounds(of: partition, completion: completion) }
  func offset(
    of partition: TopicPartition, at timestamp: Int64, completion: @escaping @Sendable (Result<Int64, LogError>) -> Void
  ) { inner.offset(of: partition, at: timestamp, completion: completion) }
  func committedOffsets(
    group: String, completion: @escaping @Sendable (Result<[TopicPartition: CommittedOffset], LogError>) -> Void
  ) { inner.committedOffsets(group: group, completion: completion) }
  func join(group: String, topics: [String], onChange: @escaping @Sendable (GroupChange) -> Void) -> GroupMembership {
    inner.join(group: group, topics: topics, onChange: onChange)
  }
  func leave(_ membership: GroupMembership) { inner.leave(membership) }
  func close(completion: @escaping @Sendable () -> Void) { inner.close(completion: completion) }
}
