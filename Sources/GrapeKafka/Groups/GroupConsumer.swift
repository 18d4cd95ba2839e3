internal import CRDKafka
internal import GrapeLog

/// This node as one member of a consumer group on the cluster. It fetches nothing: the reader reads the partitions.
///
/// `@unchecked Sendable`: the thread that serves the groups uses it; others only ask for its identity, which librdkafka
/// allows on any thread.
final class GroupConsumer: @unchecked Sendable {
  /// What the cluster, or librdkafka, says.
  enum Event {
    case assigned(Partitions)
    case revoked(Partitions, isLost: Bool)
    case failed(rd_kafka_resp_err_t, String, isFatal: Bool)
    case other
  }

  /// Partitions by their names on the cluster.
  typealias Partitions = [TopicPartition]

  let client: RDKafkaClient
  /// Where events come from.
  private var queue: RDKafkaQueue
  private let group: String
  private let wakeup: Wakeup

  /// - Parameter group: its name on the cluster. `wakeup` is signalled when there are events.
  init(_ configuration: KafkaConfiguration, group: String, wakeup: Wakeup) throws(LogError) {
    self.group = group
    self.wakeup = wakeup
    client = try RDKafkaClient(
      .member, configuration,
      own: configuration.groupDefaults + [
        ("group.id", group), ("enable.auto.commit", "false"), ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "latest"), ("allow.auto.create.topics", "false"), ("isolation.level", "read_uncommitted"),
      ])
    // Everything that the client has to say comes on the one queue.
    rd_kafka_poll_set_consumer(client.pointer)
    queue = RDKafkaQueue(client, rd_kafka_queue_get_consumer(client.pointer))
    queue.signal(wakeup)
  }

  /// Takes part for these topics (by their names on the cluster), which need not be there yet.
  func subscribe(_ topics: some Sequence<String>) throws(LogError) {
    let list = PartitionList()
    for topic in topics { list.add(topic, -1, offset: 0) }
    let code = rd_kafka_subscribe(client.pointer, list.pointer)
    if code != RD_KAFKA_RESP_ERR_NO_ERROR { throw KafkaError.log(code, "joining group \(group)") }
  }

  /// The next event; nil: none now. Must be called every now and then: a member whose node does not ask is thrown out.
  func next() -> Event? {
    guard let event = rd_kafka_queue_poll(queue.pointer, 0) else { return nil }
    defer { rd_kafka_event_destroy(event) }
    switch rd_kafka_event_type(event) {
    case RD_KAFKA_EVENT_REBALANCE:
      var partitions: [TopicPartition] = []
      if let list = rd_kafka_event_topic_partition_list(event) {
        for place in 0..<Int(list.pointee.cnt) {
          let entry = list.pointee.elems[place]
          partitions.append(TopicPartition(String(cString: entry.topic), entry.partition))
        }
      }
      if rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS { return .assigned(partitions) }
      return .revoked(partitions, isLost: rd_kafka_assignment_lost(client.pointer) != 0)
    case RD_KAFKA_EVENT_ERROR:
      let isFatal = rd_kafka_event_error_is_fatal(event) != 0
      let code = isFatal ? rd_kafka_fatal_error(client.pointer, nil, 0) : rd_kafka_event_error(event)
      let text = rd_kafka_event_error_string(event).map { String(cString: $0) } ?? ""
      return .failed(code, text, isFatal: isFatal)
    default: return .other
    }
  }

  private var isCooperative: Bool {
    rd_kafka_rebalance_protocol(client.pointer).map { String(cString: $0) } == "COOPERATIVE"
  }

  /// Answers `assigned`. What librdkafka is told to fetch is nothing; it keeps what the group has given to this member
  /// apart from that.
  func accept() throws(LogError) {
    let nothing = PartitionList()
    let doing = "taking partitions of group \(group)"
    if isCooperative {
      if let error = rd_kafka_incremental_assign(client.pointer, nothing.pointer) {
        throw KafkaError.log(consuming: error, doing)
      }
    } else {
      let code = rd_kafka_assign(client.pointer, nothing.pointer)
      if code != RD_KAFKA_RESP_ERR_NO_ERROR { throw KafkaError.log(code, doing) }
    }
  }

  /// Answers `revoked`: from now on others may have what was to be given back.
  func release() throws(LogError) {
    let nothing = PartitionList()
    let doing = "giving partitions of group \(group) back"
    if isCooperative {
      if let error = rd_kafka_incremental_unassign(client.pointer, nothing.pointer) {
        throw KafkaError.log(consuming: error, doing)
      }
    } else {
      let code = rd_kafka_assign(client.pointer, nil)
      if code != RD_KAFKA_RESP_ERR_NO_ERROR { throw KafkaError.log(code, doing) }
    }
  }

  /// Begins to leave the group. Events go on until `isClosed`; partitions that are revoked must be given back at once.
  func close() throws(LogError) {
    // Not the queue of before: librdkafka hands that one's events on to this one.
    let last = RDKafkaQueue(client)
    last.signal(wakeup)
    if let error = rd_kafka_consumer_close_queue(client.pointer, last.pointer) {
      throw KafkaError.log(consuming: error, "leaving group \(group)")
    }
    queue.signal(nil)
    queue = last
  }

  var isClosed: Bool { rd_kafka_consumer_closed(client.pointer) != 0 }

  /// Lets go of the wakeup.
  func end() { queue.signal(nil) }

  /// Who this member is now, as commits say it. Blocks for a moment. Nil: it is none at this time.
  func identity() -> MemberIdentity? { MemberIdentity(client, group: group) }
}

/// A member of a group in one of its generations.
final class MemberIdentity {
  let pointer: OpaquePointer
  /// The same for the same member in the same generation.
  let bytes: [UInt8]

  fileprivate init?(_ client: RDKafkaClient, group: String) {
    guard let pointer = rd_kafka_consumer_group_metadata(client.pointer) else { return nil }
    self.pointer = pointer
    bytes = Self.bytes(of: pointer)
    // librdkafka does not tell the generation. Without one it would commit as if there were no members, which brokers
    // allow; so what it says is compared with what it would say then.
    let member = rd_kafka_memberid(client.pointer)
    defer { if let member { rd_kafka_mem_free(client.pointer, member) } }
    let instance = Self.instance(of: client)
    for name in ["", member.map { String(cString: $0) } ?? ""] {
      let none = rd_kafka_consumer_group_metadata_new_with_genid(group, -1, name, instance)
      defer { rd_kafka_consumer_group_metadata_destroy(none) }
      if let none, Self.bytes(of: none) == bytes { return nil }
    }
  }

  deinit { rd_kafka_consumer_group_metadata_destroy(pointer) }

  private static func bytes(of metadata: OpaquePointer) -> [UInt8] {
    var buffer: UnsafeMutableRawPointer?
    var size = 0
    if let error = rd_kafka_consumer_group_metadata_write(metadata, &buffer, &size) {
      rd_kafka_error_destroy(error)
      return []
    }
    defer { rd_kafka_mem_free(nil, buffer) }
    return [UInt8](UnsafeRawBufferPointer(start: buffer, count: size))
  }

  private static func instance(of client: RDKafkaClient) -> String? {
    var size = 512
    var value = [CChar](repeating: 0, count: size)
    guard rd_kafka_conf_get(rd_kafka_conf(client.pointer), "group.instance.id", &value, &size) == RD_KAFKA_CONF_OK
    else { return nil }
    let text = String(decoding: value.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return text.isEmpty ? nil : text
  }
}
