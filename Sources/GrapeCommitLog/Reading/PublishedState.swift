import GrapeLog
import GrapeWire

/// One change of what readers see: made by the writer when a group is published, and by recovery from the entries.
enum StateChange {
  case append(topic: TopicID, partition: Int32, PartitionIndex.Location, end: Int64)
  case offsetCommit(topic: TopicID, partition: Int32, group: String, committed: CommittedOffset)
  case topicCreated(TopicID, name: String, TopicConfiguration)
  case topicDeleted(TopicID, name: String)
}

/// Everything that readers see: a materialised view of the log.
struct PublishedState {
  struct Topic {
    let name: String
    let configuration: TopicConfiguration
    var partitions: ContiguousArray<Partition>
  }

  struct Partition {
    var index = PartitionIndex()
    var bounds = PartitionBounds(start: 0, end: 0)
    var watches: [Watch] = []

    /// Adds a batch; returns the watches that it fires.
    mutating func append(_ location: PartitionIndex.Location, end: Int64) throws(Misfit) -> [Watch] {
      guard location.baseOffset == bounds.end, end > location.baseOffset else {
        throw Misfit(reason: "batch with offsets \(location.baseOffset) ..< \(end) where \(bounds.end) is next")
      }
      index.append(location)
      bounds.end = end
      if watches.isEmpty { return [] }
      let fires = watches.filter { $0.offset < end }
      if !fires.isEmpty { watches.removeAll { $0.offset < end } }
      return fires
    }
  }

  struct Watch {
    let id: UInt64
    let offset: Int64
    let notify: @Sendable () -> Void
  }

  /// By id; nil where there is none or it was deleted.
  private(set) var topics: ContiguousArray<Topic?> = [nil]
  private(set) var ids: [String: TopicID] = [:]
  private(set) var groups: [String: [TopicPartition: CommittedOffset]] = [:]
  private var watchHomes: [UInt64: (topic: TopicID, partition: Int32)] = [:]
  private var lastWatch: UInt64 = 0

  /// Why a change from the disk does not fit what was before it: damage that no CRC shows.
  struct Misfit: Error {
    let reason: String
  }

  /// Applies one change; watches that it fires are appended to `fired`.
  mutating func apply(_ change: StateChange, fired: inout [@Sendable () -> Void]) throws(Misfit) {
    switch change {
    case .append(let topic, let partition, let location, let end):
      guard topics.indices.contains(Int(topic)) else { throw Misfit(reason: "append to topic id \(topic), never made") }
      // Appends to a topic deleted since are skipped: their records are gone for readers.
      guard topics[Int(topic)] != nil else { return }
      guard partition >= 0, partition < topics[Int(topic)]!.configuration.partitions else {
        throw Misfit(reason: "append to partition \(partition) of \(topics[Int(topic)]!.name), never made")
      }
      let fires = try topics[Int(topic)]!.partitions[Int(partition)].append(location, end: end)
      for watch in fires {
        watchHomes[watch.id] = nil
        fired.append(watch.notify)
      }
    case .offsetCommit(let topic, let partition, let group, let committed):
      guard topics.indices.contains(Int(topic)) else {
        throw Misfit(reason: "offset for topic id \(topic), never made")
      }
      guard let name = topics[Int(topic)]?.name else { return }
      groups[group, default: [:]][TopicPartition(name, partition)] = committed
    case .topicCreated(let id, let name, let configuration):
      try create(id, name, configuration)
    case .topicDeleted(let id, _):
      guard topics.indices.contains(Int(id)), let topic = topics[Int(id)] else {
        throw Misfit(reason: "deletion of topic id \(id), which is not there")
      }
      delete(id, topic, fired: &fired)
    }
  }

  private mutating func create(_ id: TopicID, _ name: String, _ configuration: TopicConfiguration) throws(Misfit) {
    guard ids[name] == nil, Int(id) >= topics.count, Int(id) - topics.count < 1 << 20 else {
      throw Misfit(reason: "topic \(name) with id \(id) made twice")
    }
    while topics.count < Int(id) { topics.append(nil) }
    topics.append(
      Topic(
        name: name, configuration: configuration,
        partitions: ContiguousArray(repeating: Partition(), count: Int(configuration.partitions))))
    ids[name] = id
  }

  private mutating func delete(_ id: TopicID, _ topic: Topic, fired: inout [@Sendable () -> Void]) {
    for partition in topic.partitions {
      for watch in partition.watches {
        watchHomes[watch.id] = nil
        fired.append(watch.notify)
      }
    }
    topics[Int(id)] = nil
    ids[topic.name] = nil
    for group in groups.keys {
      groups[group] = groups[group]?.filter { $0.key.topic != topic.name }
      if groups[group]?.isEmpty == true { groups[group] = nil }
    }
  }

  /// The partition's place: topic id and partition number. Errors: `noSuchTopic`, `noSuchPartition`.
  func find(_ partition: TopicPartition) throws(LogError) -> (topic: Int, partition: Int) {
    guard let id = ids[partition.topic], let topic = topics[Int(id)] else { throw .noTopic(partition.topic) }
    guard partition.partition >= 0, partition.partition < topic.configuration.partitions else {
      throw .noPartition(partition, of: topic.configuration)
    }
    return (Int(id), Int(partition.partition))
  }

  /// Index and bounds. Errors as `find`.
  func partition(_ partition: TopicPartition) throws(LogError) -> Partition {
    let (topic, number) = try find(partition)
    return topics[topic]!.partitions[number]
  }

  /// Registers a watch; nil if it must fire at once.
  mutating func watch(
    _ partition: TopicPartition, after offset: Int64, notify: @escaping @Sendable () -> Void
  ) -> WatchToken? {
    guard let (topic, number) = try? find(partition), topics[topic]!.partitions[number].bounds.end <= offset else {
      return nil
    }
    lastWatch += 1
    topics[topic]!.partitions[number].watches.append(Watch(id: lastWatch, offset: offset, notify: notify))
    watchHomes[lastWatch] = (TopicID(topic), Int32(number))
    return WatchToken(id: lastWatch)
  }

  mutating func cancelWatch(_ token: WatchToken) {
    guard let home = watchHomes.removeValue(forKey: token.id) else { return }
    topics[Int(home.topic)]?.partitions[Int(home.partition)].watches.removeAll { $0.id == token.id }
  }

  /// All watches, for the log's end.
  mutating func takeAllWatches() -> [@Sendable () -> Void] {
    var fired: [@Sendable () -> Void] = []
    for id in topics.indices where topics[id] != nil {
      for number in topics[id]!.partitions.indices {
        fired += topics[id]!.partitions[number].watches.map(\.notify)
        topics[id]!.partitions[number].watches = []
      }
    }
    watchHomes = [:]
    return fired
  }
}

extension LogError {
  static func noTopic(_ name: String) -> LogError { LogError(.noSuchTopic, "there is no topic \"\(name)\"") }

  static func noPartition(_ partition: TopicPartition, of configuration: TopicConfiguration) -> LogError {
    LogError(
      .noSuchPartition, "there is no partition \(partition): the topic has 0 to \(configuration.partitions - 1)")
  }
}
