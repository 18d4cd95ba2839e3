import Synchronization

/// Each operation as an `async` function, for callers that do not live on an event loop.
extension EventLog {
  /// See `createTopic(_:configuration:completion:)`.
  public func createTopic(_ name: String, configuration: TopicConfiguration) async throws(LogError) {
    try await outcome { self.createTopic(name, configuration: configuration, completion: $0) }
  }

  /// See `deleteTopic(_:completion:)`.
  public func deleteTopic(_ name: String) async throws(LogError) {
    try await outcome { self.deleteTopic(name, completion: $0) }
  }

  /// See `alterTopic(_:configuration:completion:)`.
  public func alterTopic(_ name: String, configuration: TopicConfiguration) async throws(LogError) {
    try await outcome { self.alterTopic(name, configuration: configuration, completion: $0) }
  }

  /// Creates a topic, or gives an existing one this cleanup and retention. `invalidArgument` if it has another number
  /// of partitions.
  public func ensureTopic(_ name: String, configuration: TopicConfiguration) async throws(LogError) {
    do throws(LogError) {
      try await createTopic(name, configuration: configuration)
    } catch {
      guard error.code == .topicExists else { throw error }
      try await alterTopic(name, configuration: configuration)
    }
  }

  /// See `deleteRecords(of:before:completion:)`.
  public func deleteRecords(of partition: TopicPartition, before offset: Int64) async throws(LogError) {
    try await outcome { self.deleteRecords(of: partition, before: offset, completion: $0) }
  }

  /// See `deleteGroup(_:completion:)`.
  public func deleteGroup(_ group: String) async throws(LogError) {
    try await outcome { self.deleteGroup(group, completion: $0) }
  }

  /// See `topics(completion:)`.
  public func topics() async throws(LogError) -> [TopicDescription] {
    try await outcome { self.topics(completion: $0) }
  }

  /// See `commit(_:completion:)`.
  @discardableResult
  public func commit(_ transaction: Transaction) async throws(LogError) -> CommitReceipt {
    try await outcome { self.commit(transaction, completion: $0) }
  }

  /// See `read(_:from:maxBytes:completion:)`.
  public func read(_ partition: TopicPartition, from offset: Int64, maxBytes: Int) async throws(LogError) -> ReadResult
  {
    try await outcome { self.read(partition, from: offset, maxBytes: maxBytes, completion: $0) }
  }

  /// See `settled(_:completion:)`.
  public func settled(_ partitions: [TopicPartition]) async throws(LogError) {
    try await outcome { self.settled(partitions, completion: $0) }
  }

  /// See `bounds(of:completion:)`.
  public func bounds(of partition: TopicPartition) async throws(LogError) -> PartitionBounds {
    try await outcome { self.bounds(of: partition, completion: $0) }
  }

  /// See `offset(of:at:completion:)`.
  public func offset(of partition: TopicPartition, at timestamp: Int64) async throws(LogError) -> Int64 {
    try await outcome { self.offset(of: partition, at: timestamp, completion: $0) }
  }

  /// See `committedOffsets(group:completion:)`.
  public func committedOffsets(group: String) async throws(LogError) -> [TopicPartition: CommittedOffset] {
    try await outcome { self.committedOffsets(group: group, completion: $0) }
  }

  /// Returns when the partition's end is greater than `offset`, the topic is deleted, the log closes, or the task is
  /// cancelled, whichever comes first.
  public func waitUntilAvailable(_ partition: TopicPartition, after offset: Int64) async {
    let wait = CancellableWait()
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        wait.begin(continuation)
        let token = whenAvailable(partition, after: offset) { wait.finish() }
        if wait.watch(token) { cancelWatch(token) }
      }
    } onCancel: {
      if let token = wait.finish() { cancelWatch(token) }
    }
  }

  /// See `close(completion:)`.
  public func close() async {
    await withCheckedContinuation { continuation in close { continuation.resume() } }
  }
}

private func outcome<Value: Sendable>(
  _ start: (@escaping @Sendable (Result<Value, LogError>) -> Void) -> Void
) async throws(LogError) -> Value {
  let result: Result<Value, LogError> = await withCheckedContinuation { continuation in
    start { continuation.resume(returning: $0) }
  }
  return try result.get()
}

/// Resumes one continuation once, whether the notification or the cancellation comes first.
private final class CancellableWait: Sendable {
  private struct State {
    var continuation: CheckedContinuation<Void, Never>?
    var token: WatchToken?
    var finished = false
  }
  private let state = Mutex(State())

  func begin(_ continuation: CheckedContinuation<Void, Never>) {
    let late = state.withLock { state -> Bool in
      if state.finished { return true }
      state.continuation = continuation
      return false
    }
    if late { continuation.resume() }
  }

  /// Remembers the watch; true if it is no longer wanted.
  func watch(_ token: WatchToken) -> Bool {
    state.withLock { state in
      state.token = token
      return state.finished
    }
  }

  @discardableResult
  func finish() -> WatchToken? {
    let (continuation, token) = state.withLock { state in
      state.finished = true
      defer { state.continuation = nil }
      return (state.continuation, state.token)
    }
    continuation?.resume()
    return token
  }
}
