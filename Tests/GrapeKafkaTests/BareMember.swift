import CRDKafka
import CGrapeLinux
import GrapeLog

/// A member of a group that is no log of ours, and can be killed.
final class BareMember: @unchecked Sendable {
  private let consumer: OpaquePointer
  private var isAlive = true

  init(_ address: String, group: String, topic: String, settings: [String: String]) throws {
    let conf = rd_kafka_conf_new()
    var reason = [CChar](repeating: 0, count: 256)
    let all = settings.merging(["bootstrap.servers": address, "group.id": group]) { $1 }
    for (name, value) in all { rd_kafka_conf_set(conf, name, value, &reason, reason.count) }
    rd_kafka_conf_set_log_cb(conf) { _, _, _, _ in }
    guard let consumer = rd_kafka_new(RD_KAFKA_CONSUMER, conf, &reason, reason.count) else {
      throw LogError(.failed, "no consumer")
    }
    self.consumer = consumer
    rd_kafka_poll_set_consumer(consumer)
    let topics = rd_kafka_topic_partition_list_new(1)
    defer { rd_kafka_topic_partition_list_destroy(topics) }
    rd_kafka_topic_partition_list_add(topics, topic, -1)
    rd_kafka_subscribe(consumer, topics)
  }

  deinit { kill() }

  /// Polls until it has this many partitions.
  func wait(forOwned count: Int32) throws {
    let deadline = grape_monotonic_ns() + 30_000_000_000
    while grape_monotonic_ns() < deadline {
      if let message = rd_kafka_consumer_poll(consumer, 50) { rd_kafka_message_destroy(message) }
      var list: UnsafeMutablePointer<rd_kafka_topic_partition_list_t>?
      rd_kafka_assignment(consumer, &list)
      defer { if let list { rd_kafka_topic_partition_list_destroy(list) } }
      if list?.pointee.cnt == count { return }
    }
    throw LogError(.failed, "the bare member does not get \(count) partitions")
  }

  /// It says nothing to anybody any more.
  func kill() {
    if isAlive { rd_kafka_destroy_flags(consumer, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE) }
    isAlive = false
  }
}
