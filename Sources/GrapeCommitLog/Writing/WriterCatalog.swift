import GrapeLog

/// Topics and next offsets as of the last group serialised, which readers may not see yet. Owned by whoever writes.
struct WriterCatalog {
  final class Topic {
    let id: TopicID
    let name: String
    var configuration: TopicConfiguration
    /// Next offset per partition.
    var next: [Int64]

    init(id: TopicID, name: String, configuration: TopicConfiguration, next: [Int64]) {
      self.id = id
      self.name = name
      self.configuration = configuration
      self.next = next
    }
  }

  private var topics: [String: Topic] = [:]
  private var nextID: TopicID
  /// The topic found last: transactions tend to name the same one again.
  private var recent: Topic?

  init(_ state: PublishedState) {
    nextID = TopicID(state.topics.count)
    for (name, id) in state.ids {
      guard let topic = state.topics[Int(id)] else { continue }
      topics[name] = Topic(
        id: id, name: name, configuration: topic.configuration, next: topic.partitions.map(\.bounds.end))
    }
  }

  mutating func find(_ partition: TopicPartition) throws(LogError) -> Topic {
    let topic: Topic
    if let recent, recent.name == partition.topic {
      topic = recent
    } else {
      guard let found = topics[partition.topic] else { throw .noTopic(partition.topic) }
      topic = found
      recent = found
    }
    guard partition.partition >= 0, partition.partition < topic.configuration.partitions else {
      throw .noPartition(partition, of: topic.configuration)
    }
    return topic
  }

  /// The new topic; nil if it is there already in the same form.
  mutating func create(_ name: String, _ configuration: TopicConfiguration) throws(LogError) -> Topic? {
    if let existing = topics[name] {
      if existing.configuration == configuration { return nil }
      throw LogError(
        .topicExists, "topic \(name) is there with another configuration: \(existing.configuration)")
    }
    let topic = Topic(
      id: nextID, name: name, configuration: configuration,
      next: [Int64](repeating: 0, count: Int(configuration.partitions)))
    nextID += 1
    topics[name] = topic
    return topic
  }

  /// The changed topic; nil if it was like that already.
  mutating func alter(_ name: String, _ configuration: TopicConfiguration) throws(LogError) -> Topic? {
    guard let topic = topics[name] else { throw .noTopic(name) }
    try topic.configuration.checkChange(to: configuration, of: name)
    if topic.configuration == configuration { return nil }
    topic.configuration = configuration
    return topic
  }

  mutating func delete(_ name: String) throws(LogError) -> TopicID {
    guard let topic = topics.removeValue(forKey: name) else { throw .noTopic(name) }
    recent = nil
    return topic.id
  }
}
