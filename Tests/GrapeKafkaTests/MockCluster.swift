import CRDKafka
import GrapeKafka
import GrapeLog

/// Three brokers of librdkafka's own making, in this process, that fail on demand. They know no topic administration
/// and no transaction markers.
final class MockCluster: @unchecked Sendable {
  private let host: OpaquePointer
  private let cluster: OpaquePointer
  let address: String

  init() throws {
    let conf = rd_kafka_conf_new()
    // Its own log would say that the host has no brokers.
    rd_kafka_conf_set_log_cb(conf) { _, _, _, _ in }
    var reason = [CChar](repeating: 0, count: 256)
    guard let host = rd_kafka_new(RD_KAFKA_PRODUCER, conf, &reason, reason.count),
      let cluster = rd_kafka_mock_cluster_new(host, 3)
    else { throw LogError(.failed, "librdkafka makes no mock cluster") }
    self.host = host
    self.cluster = cluster
    address = String(cString: rd_kafka_mock_cluster_bootstraps(cluster))
  }

  deinit {
    rd_kafka_mock_cluster_destroy(cluster)
    rd_kafka_destroy(host)
  }

  func createTopic(_ name: String, partitions: Int32 = 2) {
    rd_kafka_mock_topic_create(cluster, name, partitions, 3)
    for partition in 0..<partitions { setLeader(1, of: name, partition) }
  }

  func setLeader(_ broker: Int32, of topic: String, _ partition: Int32) {
    rd_kafka_mock_partition_set_leader(cluster, topic, partition, broker)
  }

  func setCoordinator(_ broker: Int32, ofTransactions id: String) {
    rd_kafka_mock_coordinator_set(cluster, "transaction", id, broker)
  }

  func setCoordinator(_ broker: Int32, ofGroup group: String) {
    rd_kafka_mock_coordinator_set(cluster, "group", group, broker)
  }

  func setDown(_ broker: Int32) { rd_kafka_mock_broker_set_down(cluster, broker) }
  func setUp(_ broker: Int32) { rd_kafka_mock_broker_set_up(cluster, broker) }

  enum Request: Int16 {
    case produce = 0
    case addPartitions = 24
    case endTransaction = 26
    case commitOffsets = 28
  }

  /// The next requests of a kind get these answers.
  func fail(_ request: Request, _ errors: [rd_kafka_resp_err_t]) {
    rd_kafka_mock_push_request_errors_array(cluster, request.rawValue, errors.count, errors)
  }

  func configuration(commitTimeout: Int = 20_000) -> KafkaConfiguration {
    var configuration = KafkaConfiguration(bootstrapServers: address, transactionalID: "node-1")
    configuration.commitTimeout = commitTimeout
    configuration.requestTimeout = 10_000
    configuration.settings = [
      "reconnect.backoff.ms": "20", "reconnect.backoff.max.ms": "100", "retry.backoff.ms": "20",
      "topic.metadata.refresh.fast.interval.ms": "20", "socket.timeout.ms": "2000",
    ]
    return configuration
  }
}
