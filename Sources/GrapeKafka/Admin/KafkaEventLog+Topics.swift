internal import CRDKafka
public import GrapeLog

/// What a cluster has of a topic beyond the contract of `EventLog`.
public struct KafkaTopicDetails: Hashable, Sendable {
  /// Copies of the partition that has fewest.
  public var replication: Int
  /// All settings by name; empty if this node may not describe the topic.
  public var settings: [String: String]

  public init(replication: Int, settings: [String: String]) {
    self.replication = replication
    self.settings = settings
  }
}

extension KafkaEventLog {
  /// Copies and settings of all topics in the namespace, by the names without it.
  public func topicDetails(
    completion: @escaping @Sendable (Result<[String: KafkaTopicDetails], LogError>) -> Void
  ) {
    adminLane.answer(completion) { [admin, directory, configuration] () throws(LogError) in
      var metadata: UnsafePointer<rd_kafka_metadata>?
      let code = rd_kafka_metadata(admin.client.pointer, 1, nil, &metadata, Int32(configuration.requestTimeout))
      guard code == RD_KAFKA_RESP_ERR_NO_ERROR, let metadata else {
        throw KafkaError.log(code, "asking for all topics")
      }
      defer { rd_kafka_metadata_destroy(metadata) }
      var details: [String: KafkaTopicDetails] = [:]
      for place in 0..<Int(metadata.pointee.topic_cnt) {
        let topic = metadata.pointee.topics[place]
        guard let name = directory.ownName(String(cString: topic.topic)), topic.err == RD_KAFKA_RESP_ERR_NO_ERROR else {
          continue
        }
        let copies = (0..<Int(topic.partition_cnt)).map { Int(topic.partitions[$0].replica_cnt) }.min() ?? 0
        details[name] = KafkaTopicDetails(replication: copies, settings: [:])
      }
      let names = details.keys.map { directory.clusterName($0) }
      for (name, settings) in try admin.topicSettings(names, isLenient: true) {
        if let name = directory.ownName(name) { details[name]?.settings = settings }
      }
      return details
    }
  }
}
