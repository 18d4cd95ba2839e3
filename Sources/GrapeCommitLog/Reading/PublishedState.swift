import GrapeLog
import GrapeWire

/// One change of what readers see: made by the writer when a group is published, and by recovery from the entries.
enum StateChange {
  case append(topic: TopicID, partition: Int32, PartitionIndex.Location, end: Int64)
  case offsetCommit(topic: TopicID, partition: Int32, group: String, committed: CommittedOffset)
  case topicCreated(TopicID, name: String, TopicConfiguration)
  case topicAltered(TopicID, TopicConfiguration)
  case topicDeleted(TopicID, name: String)
  case trimmed(topic: TopicID, partition: Int32, start: Int64)
  case partitionState(topic: TopicID, partition: Int32, PartitionState)
  case topicIDs(next: TopicID)
  case groupDeleted(String)
}

/// Everything that readers see: a materialised view of the log.
struct PublishedState {
  struct Topic {
    let name: String
    var configuration: TopicConfiguration
    var partitions: ContiguousArray<Partition>
  }

  struct Partition {
    /// Batches of the segments whose indexes are in memory.
    var index = PartitionIndex()
    var bounds = PartitionBounds(start: 0, end: 0)
    /// Of all batches ever appended.
    var bytes: UInt64 = 0
    /// Base of the last segment that has a batch of the partition.
    var lastSegment: Int64 = -1
    var watches: [Watch] = []

    var state: PartitionState {
      PartitionState(
        start: bounds.start, end: bounds.end, greatestTimestamp: index.greatestTimestamp, bytes: bytes)
    }

    /// Batches from this offset on are in the index in memory; before it, index files have to be asked.
    var indexedFrom: Int64 { index.firstOffset ?? bounds.end }

    init() {}

    init(_ state: PartitionState) {
      index = PartitionIndex(greatestTimestamp: state.greatestTimestamp)
      bounds = PartitionBounds(start: state.start, end: state.end)
      bytes = state.bytes
    }

    /// The watches that an end of `bounds.end` fires, taken out.
    mutating func fire() -> [Watch] {
      if watches.isEmpty { return [] }
      let end = bounds.end
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
  /// Partitions with batches in the segment written last, in order of their first batch there.
  private(set) var touched: [(topic: TopicID, partition: Int32)] = []
  private var watchHomes: [UInt64: (topic: TopicID, partition: Int32)] = [:]
  private var lastWatch: UInt64 = 0

  /// Why a change from the disk does not fit what was before it: damage that no CRC shows.
  struct Misfit: Error {
    let reason: String
  }

  init() {}

  /// Nil if the snapshot contradicts itself.
  init?(_ snapshot: StateSnapshot) {
    for topic in snapshot.topics {
      guard topic.id >= TopicID(topics.count), topic.id < snapshot.nextTopicID, ids[topic.name] == nil,
        (try? topic.configuration.check(name: topic.name)) != nil
      else { return nil }
      while topics.count < Int(topic.id) { topics.append(nil) }
      topics.append(
        Topic(
          name: topic.name, configuration: topic.configuration,
          partitions: ContiguousArray(topic.partitions.map(Partition.init))))
      ids[topic.name] = topic.id
    }
    guard snapshot.nextTopicID >= TopicID(topics.count), Int(snapshot.nextTopicID) - topics.count < 1 << 20 else {
      return nil
    }
    while topics.count < Int(snapshot.nextTopicID) { topics.append(nil) }
    groups = snapshot.groups
  }

  /// What a start needs instead of reading the log. O(partitions), without their indexes.
  func snapshot(sequence: UInt64) -> StateSnapshot {
    var snapshot = StateSnapshot(sequence: sequence, nextTopicID: TopicID(topics.count), groups: groups)
    for id in topics.indices {
      guard let topic = topics[id] else { continue }
      snapshot.topics.append(
        StateSnapshot.Topic(
          id: TopicID(id), name: topic.name, configuration: topic.configuration,
          partitions: topic.partitions.map(\.state)))
    }
    return snapshot
  }

  /// Starts a new list of touched partitions; returns the last one.
  mutating func takeTouched() -> [(topic: TopicID, partition: Int32)] {
    defer { touched = [] }
    return touched
  }

  /// Applies one change of a group in the segment that begins at `segment`; watches that it fires are appended to
  /// `fired`. `sparse`: offsets may be missing, as in cleaned segments.
  mutating func apply(
    _ change: StateChange, segment: Int64, sparse: Bool = false, fired: inout [@Sendable () -> Void]
  ) throws(Misfit) {
    switch change {
    case .append(let topic, let partition, let location, let end):
      guard let place = try place(topic, partition, "append") else { return }
      try append(place, location, end, segment, sparse, &fired)
    case .offsetCommit(let topic, let partition, let group, let committed):
      guard let place = try place(topic, partition, "offset") else { return }
      groups[group, default: [:]][TopicPartition(topics[place.topic]!.name, partition)] = committed
    case .trimmed(let topic, let partition, let start):
      guard let place = try place(topic, partition, "trim") else { return }
      var bounds = topics[place.topic]!.partitions[place.partition].bounds
      bounds.start = max(bounds.start, start)
      bounds.end = max(bounds.end, bounds.start)
      topics[place.topic]!.partitions[place.partition].bounds = bounds
    case .partitionState(let topic, let partition, let state):
      guard let place = try place(topic, partition, "state") else { return }
      take(state, place)
    case .topicCreated(let id, let name, let configuration): try create(id, name, configuration, sparse)
    case .topicAltered(let id, let configuration):
      guard topics.indices.contains(Int(id)) else { throw Misfit(reason: "change of topic id \(id), never made") }
      guard topics[Int(id)] != nil else { return }
      guard configuration.partitions == topics[Int(id)]!.configuration.partitions else {
        throw Misfit(reason: "change of \(topics[Int(id)]!.name) to \(configuration.partitions) partitions")
      }
      topics[Int(id)]!.configuration = configuration
    case .topicDeleted(let id, _):
      guard topics.indices.contains(Int(id)), let topic = topics[Int(id)] else {
        throw Misfit(reason: "deletion of topic id \(id), which is not there")
      }
      delete(id, topic, fired: &fired)
    case .topicIDs(let next):
      guard Int(next) - topics.count < 1 << 20 else { throw Misfit(reason: "\(next) topic ids") }
      while topics.count < Int(next) { topics.append(nil) }
    case .groupDeleted(let group): groups[group] = nil
    }
  }

  /// Nil if the topic was deleted since: its records are gone for readers.
  private func place(
    _ topic: TopicID, _ partition: Int32, _ what: String
  ) throws(Misfit) -> (topic: Int, partition: Int)? {
    guard topics.indices.contains(Int(topic)) else {
      throw Misfit(reason: "\(what) for topic id \(topic), never made")
    }
    guard topics[Int(topic)] != nil else { return nil }
    guard partition >= 0, partition < topics[Int(topic)]!.configuration.partitions else {
      throw Misfit(reason: "\(what) for partition \(partition) of \(topics[Int(topic)]!.name), never made")
    }
    return (Int(topic), Int(partition))
  }

  private mutating func append(
    _ place: (topic: Int, partition: Int), _ location: PartitionIndex.Location, _ end: Int64, _ segment: Int64,
    _ sparse: Bool, _ fired: inout [@Sendable () -> Void]
  ) throws(Misfit) {
    let next = topics[place.topic]!.partitions[place.partition].bounds.end
    guard sparse ? location.baseOffset >= next : location.baseOffset == next, end > location.baseOffset else {
      throw Misfit(reason: "batch with offsets \(location.baseOffset) ..< \(end) where \(next) is next")
    }
    topics[place.topic]!.partitions[place.partition].index.append(location, segment: segment)
    topics[place.topic]!.partitions[place.partition].bounds.end = end
    topics[place.topic]!.partitions[place.partition].bytes += UInt64(location.length)
    if topics[place.topic]!.partitions[place.partition].lastSegment != segment {
      topics[place.topic]!.partitions[place.partition].lastSegment = segment
      touched.append((TopicID(place.topic), Int32(place.partition)))
    }
    for watch in topics[place.topic]!.partitions[place.partition].fire() {
      watchHomes[watch.id] = nil
      fired.append(watch.notify)
    }
  }

  private mutating func take(_ state: PartitionState, _ place: (topic: Int, partition: Int)) {
    var bounds = topics[place.topic]!.partitions[place.partition].bounds
    bounds.start = max(bounds.start, state.start)
    bounds.end = max(bounds.end, state.end)
    topics[place.topic]!.partitions[place.partition].bounds = bounds
    topics[place.topic]!.partitions[place.partition].bytes = max(
      topics[place.topic]!.partitions[place.partition].bytes, state.bytes)
    topics[place.topic]!.partitions[place.partition].index.raise(timestamp: state.greatestTimestamp)
  }

  /// Pages of a partition's batches in one segment; nothing if its topic is gone.
  func pages(_ topic: TopicID, _ partition: Int32, segment: Int64) -> ArraySlice<PartitionIndex.Page> {
    guard topics.indices.contains(Int(topic)), topics[Int(topic)] != nil else { return [] }
    return topics[Int(topic)]!.partitions[Int(partition)].index.pages(of: segment)
  }

  /// Forgets where batches are that index files know.
  mutating func drop(_ partitions: [(topic: TopicID, partition: Int32)], before segment: Int64) {
    for (topic, partition) in partitions where topics[Int(topic)] != nil {
      topics[Int(topic)]!.partitions[Int(partition)].index.drop(before: segment)
    }
  }

  private mutating func create(
    _ id: TopicID, _ name: String, _ configuration: TopicConfiguration, _ sparse: Bool
  ) throws(Misfit) {
    // Cleaning tells of topics that were deleted later behind those that were made after them.
    let isNew = Int(id) >= topics.count || (sparse && id > 0 && topics[Int(id)] == nil)
    guard ids[name] == nil, isNew, Int(id) - topics.count < 1 << 20 else {
      throw Misfit(reason: "topic \(name) with id \(id) made twice")
    }
    while topics.count <= Int(id) { topics.append(nil) }
    topics[Int(id)] = Topic(
      name: name, configuration: configuration,
      partitions: ContiguousArray(repeating: Partition(), count: Int(configuration.partitions)))
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

  /// The lowest offset that some group has still to consume; nil if no group has committed an offset there.
  func unconsumed(_ partition: TopicPartition) -> Int64? {
    var lowest: Int64?
    for offsets in groups.values {
      if let committed = offsets[partition] { lowest = min(lowest ?? .max, committed.offset) }
    }
    return lowest
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
