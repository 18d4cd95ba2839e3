import GrapeLog

/// A log whose commits are told to the model as they come and as they are answered.
final class ObservedLog: EventLog, @unchecked Sendable {
  // A simulation lives on one thread.
  private var log: (any EventLog)?
  private let model: EngineModel
  /// nil: the node has the log for itself.
  private let groups: SimulatedGroups?

  init(_ log: any EventLog, model: EngineModel, groups: SimulatedGroups?) {
    self.log = log
    self.model = model
    self.groups = groups
  }

  /// The process is gone: breaks the circle of references between log and engines.
  func discard() {
    log = nil
    groups?.discard()
  }

  private static let gone = LogError(.closed, "the process is gone")

  func commit(_ transaction: Transaction, completion: @escaping @Sendable (Result<CommitReceipt, LogError>) -> Void) {
    guard let log else { return completion(.failure(Self.gone)) }
    if let refusal = groups?.refusal(of: transaction) { return completion(.failure(refusal)) }
    let isForgotten = groups?.forgets(transaction) ?? false
    let number = model.submitted(transaction)
    log.commit(transaction) { [model, groups] result in
      model.completed(number, result)
      groups?.answered(transaction)
      completion(isForgotten ? .failure(LogError(.unknown, "it was committed, or not")) : result)
    }
  }

  func createTopic(
    _ name: String, configuration: TopicConfiguration, completion: @escaping @Sendable (Result<Void, LogError>) -> Void
  ) {
    guard let log else { return completion(.failure(Self.gone)) }
    log.createTopic(name, configuration: configuration, completion: completion)
  }

  func deleteTopic(_ name: String, completion: @escaping @Sendable (Result<Void, LogError>) -> Void) {
    guard let log else { return completion(.failure(Self.gone)) }
    log.deleteTopic(name, completion: completion)
  }

  func alterTopic(
    _ name: String, configuration: TopicConfiguration, completion: @escaping @Sendable (Result<Void, LogError>) -> Void
  ) {
    guard let log else { return completion(.failure(Self.gone)) }
    log.alterTopic(name, configuration: configuration, completion: completion)
  }

  func deleteRecords(
    of partition: TopicPartition, before offset: Int64, completion: @escaping @Sendable (Result<Void, LogError>) -> Void
  ) {
    guard let log else { return completion(.failure(Self.gone)) }
    log.deleteRecords(of: partition, before: offset, completion: completion)
  }

  func deleteGroup(_ group: String, completion: @escaping @Sendable (Result<Void, LogError>) -> Void) {
    guard let log else { return completion(.failure(Self.gone)) }
    log.deleteGroup(group, completion: completion)
  }

  func topics(completion: @escaping @Sendable (Result<[TopicDescription], LogError>) -> Void) {
    guard let log else { return completion(.failure(Self.gone)) }
    log.topics(completion: completion)
  }

  func read(
    _ partition: TopicPartition, from offset: Int64, maxBytes: Int,
    completion: @escaping @Sendable (Result<ReadResult, LogError>) -> Void
  ) {
    guard let log else { return completion(.failure(Self.gone)) }
    log.read(partition, from: offset, maxBytes: maxBytes, completion: completion)
  }

  func whenAvailable(
    _ partition: TopicPartition, after offset: Int64, notify: @escaping @Sendable () -> Void
  ) -> WatchToken {
    log?.whenAvailable(partition, after: offset, notify: notify) ?? WatchToken(id: 0)
  }

  func cancelWatch(_ token: WatchToken) { log?.cancelWatch(token) }

  func bounds(
    of partition: TopicPartition, completion: @escaping @Sendable (Result<PartitionBounds, LogError>) -> Void
  ) {
    guard let log else { return completion(.failure(Self.gone)) }
    log.bounds(of: partition, completion: completion)
  }

  func offset(
    of partition: TopicPartition, at timestamp: Int64,
    completion: @escaping @Sendable (Result<Int64, LogError>) -> Void
  ) {
    guard let log else { return completion(.failure(Self.gone)) }
    log.offset(of: partition, at: timestamp, completion: completion)
  }

  func committedOffsets(
    group: String, completion: @escaping @Sendable (Result<[TopicPartition: CommittedOffset], LogError>) -> Void
  ) {
    guard let log else { return completion(.failure(Self.gone)) }
    groups?.read(group)
    log.committedOffsets(group: group, completion: completion)
  }

  func join(
    group: String, topics: [String], onChange: @escaping @Sendable (GroupChange) -> Void
  ) -> GroupMembership {
    if let groups {
      groups.join(group, topics, onChange)
      return GroupMembership(id: 0)
    }
    return log?.join(group: group, topics: topics, onChange: onChange) ?? GroupMembership(id: 0)
  }

  func leave(_ membership: GroupMembership) { if groups == nil { log?.leave(membership) } }

  func close(completion: @escaping @Sendable () -> Void) {
    guard let log else { return completion() }
    log.close(completion: completion)
  }
}
