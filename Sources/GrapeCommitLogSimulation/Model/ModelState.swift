import GrapeLog
import GrapeWire

/// A record batch that was given to the log, and where it must be.
struct ModelBatch {
  var baseOffset: Int64
  var recordCount: Int32
  var maxTimestamp: Int64
  /// As it was given: with base offset 0.
  var bytes: ByteSlice

  var endOffset: Int64 { baseOffset + Int64(recordCount) }
}

/// All batches that were ever appended to a partition, in order. States share it: each knows how many it has.
final class PartitionHistory {
  private(set) var batches: [ModelBatch] = []

  /// Sets batch number `place`. If there is another it was expected only, and so were those behind it.
  func put(_ batch: ModelBatch, at place: Int) {
    if place < batches.count {
      if batches[place].bytes.storage === batch.bytes.storage { return }
      truncate(to: place)
    }
    batches.append(batch)
  }

  /// What the log lost was never there.
  func truncate(to count: Int) { batches.removeLast(batches.count - count) }
}

/// What a log contains after some sequence of operations: the reference that the real one is compared with.
struct ModelState {
  struct Partition {
    let history = PartitionHistory()
    /// Batches of the history that this state has.
    var count = 0
    var bounds = PartitionBounds(start: 0, end: 0)

    /// Number of the first batch with a record that was not given up.
    var first: Int { batchNumber(of: bounds.start) }

    /// The batches that a reader must find.
    var batches: ArraySlice<ModelBatch> { history.batches[first..<count] }

    /// The same partition with more of its history; nil if it never had these bounds.
    func grown(to bounds: PartitionBounds) -> Self? {
      guard self.bounds.start <= bounds.start, self.bounds.end <= bounds.end else { return nil }
      var copy = self
      copy.count = history.batches.count
      copy.bounds.end = history.batches.last?.endOffset ?? 0
      copy.bounds.start = bounds.start
      return copy.earlier(end: bounds.end)
    }

    /// The same partition as it was when it ended at `end`; nil if it never did.
    func earlier(end: Int64) -> Self? {
      var copy = self
      copy.count = batchNumber(of: end)
      copy.bounds.end = copy.count == 0 ? 0 : history.batches[copy.count - 1].endOffset
      return copy.bounds.end == end && end >= bounds.start ? copy : nil
    }
  }

  struct Topic {
    /// Tells a topic from one of the same name that was deleted.
    let incarnation: Int
    let name: String
    var configuration: TopicConfiguration
    var partitions: [Partition]
  }

  /// In order of name.
  private(set) var topics: [Topic] = []
  private(set) var groups: [String: [TopicPartition: CommittedOffset]] = [:]

  func topic(_ name: String) -> Topic? { topics.first { $0.name == name } }

  /// The place of a partition, or why there is none.
  func find(_ partition: TopicPartition) -> Result<(topic: Int, partition: Int), LogError> {
    guard let topic = topics.firstIndex(where: { $0.name == partition.topic }) else {
      return .failure(LogError(.noSuchTopic, "no topic"))
    }
    guard topics[topic].partitions.indices.contains(Int(partition.partition)) else {
      return .failure(LogError(.noSuchPartition, "no partition"))
    }
    return .success((topic, Int(partition.partition)))
  }

  func partition(_ name: TopicPartition) -> Partition? {
    guard case .success(let place) = find(name) else { return nil }
    return topics[place.topic].partitions[place.partition]
  }

  /// Applies an operation and tells what the log must answer. A refused one changes nothing.
  @discardableResult
  mutating func apply(_ operation: LogOperation) -> LogOperation.Outcome {
    if operation.isVoid { return .refused(.noSpace) }
    switch operation.request {
    case .commit(let transaction): return apply(transaction)
    case .createTopic(let name, let configuration):
      if let existing = topic(name) {
        return existing.configuration == configuration ? .done : .refused(.topicExists)
      }
      // Histories belong to the operation, so that all states that apply it share them.
      let fresh =
        operation.topic
        ?? Topic(
          incarnation: operation.number, name: name, configuration: configuration,
          partitions: (0..<configuration.partitions).map { _ in Partition() })
      operation.topic = fresh
      topics.insert(fresh, at: topics.firstIndex { $0.name > name } ?? topics.count)
      return .done
    case .alterTopic(let name, let configuration):
      guard let place = topics.firstIndex(where: { $0.name == name }) else { return .refused(.noSuchTopic) }
      guard topics[place].partitions.count == Int(configuration.partitions) else { return .refused(.invalidArgument) }
      topics[place].configuration = configuration
      return .done
    case .deleteTopic(let name):
      guard let place = topics.firstIndex(where: { $0.name == name }) else { return .refused(.noSuchTopic) }
      topics.remove(at: place)
      for group in groups.keys {
        groups[group] = groups[group]!.filter { $0.key.topic != name }
        if groups[group]!.isEmpty { groups[group] = nil }
      }
      return .done
    case .deleteRecords(let partition, let offset):
      switch find(partition) {
      case .failure(let error): return .refused(error.code)
      case .success(let (topic, number)):
        let bounds = topics[topic].partitions[number].bounds
        if offset > bounds.end { return .refused(.offsetOutOfRange) }
        topics[topic].partitions[number].bounds.start = max(offset, bounds.start)
        return .done
      }
    case .deleteGroup(let name):
      groups[name] = nil
      return .done
    }
  }

  private mutating func apply(_ transaction: Transaction) -> LogOperation.Outcome {
    for partition in transaction.appends.map(\.partition) + transaction.offsets.map(\.partition) {
      if case .failure(let error) = find(partition) { return .refused(error.code) }
    }
    var baseOffsets: [Int64] = []
    for append in transaction.appends {
      guard case .success(let (topic, number)) = find(append.partition) else { preconditionFailure("found before") }
      baseOffsets.append(topics[topic].partitions[number].append(append))
    }
    for commit in transaction.offsets { groups[commit.group, default: [:]][commit.partition] = commit.committed }
    return .committed(baseOffsets)
  }
}

extension ModelState.Partition {
  fileprivate mutating func append(_ append: Transaction.Append) -> Int64 {
    let batch = ModelBatch(
      baseOffset: bounds.end, recordCount: append.recordCount, maxTimestamp: append.maxTimestamp, bytes: append.batch)
    history.put(batch, at: count)
    count += 1
    bounds.end = batch.endOffset
    return batch.baseOffset
  }
}
