public import GrapeLog
import GrapeWire
import Synchronization

/// An event log in memory, for tests: every operation completes before its call returns, on the calling thread, so
/// that a test (or a simulation) decides the order of everything. Nothing survives it; every durability is "reached".
public final class InMemoryEventLog: EventLog {
  private struct Topic: Sendable {
    var configuration: TopicConfiguration
    var partitions: [Partition]
  }

  private struct Partition: Sendable {
    var batches: [LogBatch] = []
    var start: Int64 = 0
    var end: Int64 = 0
    var bounds: PartitionBounds { PartitionBounds(start: start, end: end) }
    var watches: [Watch] = []

    /// Copies the batch with its base offset filled in; returns that.
    mutating func append(_ append: Transaction.Append, fired: inout [Watch]) -> Int64 {
      let base = end
      let copy = ByteStorage(capacity: append.batch.count)
      copy.base.copyMemory(from: append.batch.unsafeBytes.baseAddress!, byteCount: append.batch.count)
      RecordBatch.setBaseOffset(base, in: UnsafeMutableRawBufferPointer(start: copy.base, count: append.batch.count))
      end += Int64(append.recordCount)
      batches.append(
        LogBatch(
          bytes: ByteSlice(storage: copy, offset: 0, count: append.batch.count), baseOffset: base, lastOffset: end - 1,
          maxTimestamp: append.maxTimestamp))
      fired += watches.filter { $0.offset < end }
      watches.removeAll { $0.offset < end }
      return base
    }
  }

  private struct Watch: Sendable {
    let id: UInt64
    let offset: Int64
    let notify: @Sendable () -> Void
  }

  private struct State: Sendable {
    var topics: [String: Topic] = [:]
    var groups: [String: [TopicPartition: CommittedOffset]] = [:]
    var lastWatch: UInt64 = 0
    var closed = false
    var failure: LogError?

    func find(_ partition: TopicPartition) throws(LogError) -> Partition {
      if closed { throw LogError(.closed, "the log is closed") }
      guard let topic = topics[partition.topic] else {
        throw LogError(.noSuchTopic, "there is no topic \"\(partition.topic)\"")
      }
      guard topic.partitions.indices.contains(Int(partition.partition)) else {
        throw LogError(
          .noSuchPartition, "there is no partition \(partition): the topic has 0 to \(topic.partitions.count - 1)")
      }
      return topic.partitions[Int(partition.partition)]
    }

    func accepts() throws(LogError) {
      if closed { throw LogError(.closed, "the log is closed") }
      if let failure { throw failure }
    }
  }

  private let state = Mutex(State())
  private let coordinator = GroupCoordinator()

  public init() {}

  /// From now on commits and changes of topics fail with `error`; nil: no more. Reads go on. For tests of what a log's
  /// failure does to its users.
  public func fail(with error: LogError?) { state.withLock { $0.failure = error } }

  public func createTopic(
    _ name: String, configuration: TopicConfiguration,
    completion: @escaping @Sendable (Result<Void, LogError>) -> Void
  ) {
    let result = attempt { state throws(LogError) -> Bool in
      try configuration.check(name: name)
      try state.accepts()
      if let existing = state.topics[name] {
        guard existing.configuration == configuration else {
          throw LogError(
            .topicExists, "topic \(name) is there with another configuration: \(existing.configuration)")
        }
        return false
      }
      state.topics[name] = Topic(
        configuration: configuration,
        partitions: [Partition](repeating: Partition(), count: Int(configuration.partitions)))
      return true
    }
    if case .success(true) = result { coordinator.setPartitions(configuration.partitions, of: name) }
    completion(result.map { _ in })
  }

  public func deleteTopic(_ name: String, completion: @escaping @Sendable (Result<Void, LogError>) -> Void) {
    let result = attempt { state throws(LogError) -> [Watch] in
      try state.accepts()
      guard let topic = state.topics.removeValue(forKey: name) else {
        throw LogError(.noSuchTopic, "there is no topic \"\(name)\"")
      }
      state.groups = state.groups.mapValues { $0.filter { $0.key.topic != name } }
      return topic.partitions.flatMap(\.watches)
    }
    if case .success(let watches) = result {
      coordinator.setPartitions(nil, of: name)
      for watch in watches { watch.notify() }
    }
    completion(result.map { _ in })
  }

  public func alterTopic(
    _ name: String, configuration: TopicConfiguration, completion: @escaping @Sendable (Result<Void, LogError>) -> Void
  ) {
    completion(
      attempt { state throws(LogError) in
        try configuration.check(name: name)
        try state.accepts()
        guard let topic = state.topics[name] else {
          throw LogError(.noSuchTopic, "there is no topic \"\(name)\"")
        }
        try topic.configuration.checkChange(to: configuration, of: name)
        state.topics[name]!.configuration = configuration
      })
  }

  public func deleteRecords(
    of partition: TopicPartition, before offset: Int64, completion: @escaping @Sendable (Result<Void, LogError>) -> Void
  ) {
    completion(
      attempt { state throws(LogError) in
        try state.accepts()
        var found = try state.find(partition)
        try found.bounds.checkTrim(to: offset, of: partition)
        found.start = max(found.start, offset)
        found.batches.removeAll { $0.lastOffset < found.start }
        state.topics[partition.topic]!.partitions[Int(partition.partition)] = found
      })
  }

  /// Takes away the batch with the record at `offset`, as compaction does when all its keys have later records.
  public func compactAway(_ offset: Int64, of partition: TopicPartition) {
    state.withLock {
      $0.topics[partition.topic]?.partitions[Int(partition.partition)].batches.removeAll {
        ($0.baseOffset...$0.lastOffset).contains(offset)
      }
    }
  }

  public func deleteGroup(_ group: String, completion: @escaping @Sendable (Result<Void, LogError>) -> Void) {
    completion(
      attempt { state throws(LogError) in
        try state.accepts()
        state.groups[group] = nil
      })
  }

  public func topics(completion: @escaping @Sendable (Result<[TopicDescription], LogError>) -> Void) {
    completion(
      attempt { state throws(LogError) in
        if state.closed { throw LogError(.closed, "the log is closed") }
        return state.topics.sorted { $0.key < $1.key }.map {
          TopicDescription(name: $0.key, configuration: $0.value.configuration)
        }
      })
  }

  public func commit(
    _ transaction: Transaction, completion: @escaping @Sendable (Result<CommitReceipt, LogError>) -> Void
  ) {
    let result = attempt { state throws(LogError) -> (CommitReceipt, [Watch]) in
      try transaction.check()
      try state.accepts()
      for append in transaction.appends { _ = try state.find(append.partition) }
      for commit in transaction.offsets { _ = try state.find(commit.partition) }
      var fired: [Watch] = []
      var baseOffsets: [Int64] = []
      for append in transaction.appends {
        let place = Int(append.partition.partition)
        baseOffsets.append(state.topics[append.partition.topic]!.partitions[place].append(append, fired: &fired))
      }
      for commit in transaction.offsets {
        state.groups[commit.group, default: [:]][commit.partition] = commit.committed
      }
      return (CommitReceipt(durability: transaction.durability, baseOffsets: baseOffsets), fired)
    }
    if case .success(let (_, fired)) = result {
      for watch in fired { watch.notify() }
    }
    completion(result.map(\.0))
  }

  public func read(
    _ partition: TopicPartition, from offset: Int64, maxBytes: Int,
    completion: @escaping @Sendable (Result<ReadResult, LogError>) -> Void
  ) {
    completion(
      attempt { state throws(LogError) in
        let found = try state.find(partition)
        guard (found.start...found.end).contains(offset) else {
          throw LogError(
            .offsetOutOfRange, "offset \(offset) of \(partition): the log has \(found.start) to \(found.end)")
        }
        var batches: [LogBatch] = []
        var bytes = 0
        let first = found.batches.firstIndex { $0.lastOffset >= offset } ?? found.batches.endIndex
        for batch in found.batches[first...] {
          bytes += batch.bytes.count
          if bytes > maxBytes && !batches.isEmpty { break }
          batches.append(batch)
        }
        return ReadResult(batches: batches, bounds: found.bounds)
      })
  }

  public func whenAvailable(
    _ partition: TopicPartition, after offset: Int64, notify: @escaping @Sendable () -> Void
  ) -> WatchToken {
    let token = state.withLock { state -> WatchToken? in
      guard let found = try? state.find(partition), found.end <= offset else { return nil }
      state.lastWatch += 1
      state.topics[partition.topic]!.partitions[Int(partition.partition)].watches.append(
        Watch(id: state.lastWatch, offset: offset, notify: notify))
      return WatchToken(id: state.lastWatch)
    }
    if let token { return token }
    notify()
    return WatchToken(id: 0)
  }

  public func cancelWatch(_ token: WatchToken) {
    state.withLock { state in
      for name in state.topics.keys {
        for place in state.topics[name]!.partitions.indices {
          state.topics[name]!.partitions[place].watches.removeAll { $0.id == token.id }
        }
      }
    }
  }

  public func bounds(
    of partition: TopicPartition, completion: @escaping @Sendable (Result<PartitionBounds, LogError>) -> Void
  ) {
    completion(attempt { state throws(LogError) in try state.find(partition).bounds })
  }

  public func offset(
    of partition: TopicPartition, at timestamp: Int64, completion: @escaping @Sendable (Result<Int64, LogError>) -> Void
  ) {
    completion(
      attempt { state throws(LogError) in
        let found = try state.find(partition)
        return found.batches.first { $0.maxTimestamp >= timestamp }.map { max($0.baseOffset, found.start) } ?? found.end
      })
  }

  public func committedOffsets(
    group: String, completion: @escaping @Sendable (Result<[TopicPartition: CommittedOffset], LogError>) -> Void
  ) {
    completion(
      attempt { state throws(LogError) in
        if state.closed { throw LogError(.closed, "the log is closed") }
        return state.groups[group] ?? [:]
      })
  }

  public func join(
    group: String, topics: [String], onChange: @escaping @Sendable (GroupChange) -> Void
  ) -> GroupMembership {
    coordinator.join(group: group, topics: topics, onChange: onChange)
  }

  public func leave(_ membership: GroupMembership) { coordinator.leave(membership) }

  public func close(completion: @escaping @Sendable () -> Void) {
    let watches = state.withLock { state in
      state.closed = true
      var watches: [Watch] = []
      for name in state.topics.keys {
        for place in state.topics[name]!.partitions.indices {
          watches += state.topics[name]!.partitions[place].watches
          state.topics[name]!.partitions[place].watches = []
        }
      }
      return watches
    }
    for watch in watches { watch.notify() }
    completion()
  }

  private func attempt<Value: Sendable>(_ body: (inout State) throws(LogError) -> Value) -> Result<Value, LogError> {
    state.withLock { state in
      do throws(LogError) {
        return .success(try body(&state))
      } catch {
        return .failure(error)
      }
    }
  }
}
