internal import CRDKafka
internal import GrapeLog
internal import Synchronization

/// Which topics there are, with how many partitions: what was learnt last. Whoever finds a topic missing asks the
/// cluster before saying so; topics that others deleted are noticed when the cluster refuses to work on them.
final class TopicDirectory: Sendable {
  private struct Entry {
    var partitions: Int32
    /// False after an error that speaks against it: the cluster is asked before it is relied upon again.
    var isTrusted = true
  }

  private let known = Mutex<[String: Entry]>([:])
  private let client: RDKafkaClient
  private let configuration: KafkaConfiguration
  private let listener = Mutex<(@Sendable (String) -> Void)?>(nil)

  init(_ client: RDKafkaClient, _ configuration: KafkaConfiguration) {
    self.client = client
    self.configuration = configuration
  }

  /// Has `listener` told of every topic that changes (without its namespace). One listener.
  func onChange(_ listener: @escaping @Sendable (String) -> Void) { self.listener.withLock { $0 = listener } }

  /// The topic's name on the cluster.
  func clusterName(_ topic: String) -> String {
    (isExternal(topic) ? configuration.externalNamespace : configuration.namespace) + topic
  }

  /// The partition, by its topic's name on the cluster.
  func clusterName(_ partition: TopicPartition) -> TopicPartition {
    TopicPartition(clusterName(partition.topic), partition.partition)
  }

  private func isExternal(_ topic: String) -> Bool { configuration.isExternal?(topic) ?? false }

  /// The name without the namespace; nil for topics that are not seen: those of other namespaces.
  func ownName(_ clusterName: String) -> String? {
    if let name = Self.name(clusterName, in: configuration.namespace), !isExternal(name) { return name }
    guard let name = Self.name(clusterName, in: configuration.externalNamespace), isExternal(name) else { return nil }
    return name
  }

  private static func name(_ clusterName: String, in namespace: String) -> String? {
    guard clusterName.hasPrefix(namespace) else { return nil }
    let name = String(clusterName.dropFirst(namespace.count))
    return name.isEmpty || namespace.isEmpty && name.hasPrefix("__") ? nil : name
  }

  func set(_ topic: String, partitions: Int32?) {
    let changed = known.withLock { known in
      defer { known[topic] = partitions.map { Entry(partitions: $0) } }
      return known[topic]?.partitions != partitions
    }
    if changed, let listener = listener.withLock({ $0 }) { listener(topic) }
  }

  /// Something the cluster said speaks against what is known of a topic, or of where its partitions are.
  func doubt(_ topic: String) { known.withLock { $0[topic]?.isTrusted = false } }

  /// True if the partition is known to be there, without asking anyone.
  func knows(_ partition: TopicPartition) -> Bool {
    known.withLock { known in
      guard let entry = known[partition.topic], entry.isTrusted else { return false }
      return partition.partition >= 0 && partition.partition < entry.partitions
    }
  }

  /// Asks the cluster about one topic. Blocks. Nil: there is none.
  func refresh(_ topic: String, timeout: Int) throws(LogError) -> (partitions: Int32, isReady: Bool)? {
    let found = try RDKafkaTopic(client, clusterName(topic)).refresh(clusterName(topic), timeout: timeout)
    set(topic, partitions: found?.partitions)
    return found
  }

  /// Checks that a partition exists. Blocks if it is not known to. Errors: `noSuchTopic`, `noSuchPartition`, or why the
  /// cluster cannot tell.
  func check(_ partition: TopicPartition, timeout: Int? = nil) throws(LogError) {
    if knows(partition) { return }
    // A name that no topic can have: brokers would call it an invalid question.
    do throws(LogError) {
      try TopicConfiguration(partitions: 1).check(name: clusterName(partition.topic))
    } catch {
      throw LogError(.noSuchTopic, "there is no topic \"\(partition.topic)\"")
    }
    guard let found = try refresh(partition.topic, timeout: timeout ?? configuration.requestTimeout) else {
      throw LogError(.noSuchTopic, "there is no topic \"\(partition.topic)\"")
    }
    guard partition.partition >= 0, partition.partition < found.partitions else {
      throw LogError(
        .noSuchPartition, "there is no partition \(partition): the topic has 0 to \(found.partitions - 1)")
    }
  }

  /// All topics with their numbers of partitions, as the cluster has them now. Blocks.
  func all() throws(LogError) -> [String: Int32] {
    var metadata: UnsafePointer<rd_kafka_metadata>?
    let code = rd_kafka_metadata(client.pointer, 1, nil, &metadata, Int32(configuration.requestTimeout))
    guard code == RD_KAFKA_RESP_ERR_NO_ERROR, let metadata else {
      throw KafkaError.log(code, "asking for all topics")
    }
    defer { rd_kafka_metadata_destroy(metadata) }
    var found: [String: Int32] = [:]
    for place in 0..<Int(metadata.pointee.topic_cnt) {
      let topic = metadata.pointee.topics[place]
      guard let name = ownName(String(cString: topic.topic)), topic.err == RD_KAFKA_RESP_ERR_NO_ERROR else { continue }
      found[name] = topic.partition_cnt
    }
    let gone = known.withLock { $0.keys.filter { found[$0] == nil } }
    for name in gone { set(name, partitions: nil) }
    for (name, partitions) in found { set(name, partitions: partitions) }
    return found
  }
}
