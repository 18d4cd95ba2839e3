internal import CRDKafka
internal import GrapeLog
internal import Glibc

/// One librdkafka client. It lives until its last user has let go of it: topics and queues hold on to it, so that they
/// are destroyed before it, as librdkafka demands.
///
/// `@unchecked Sendable`: the pointer never changes, and librdkafka's calls on clients may be made from any thread.
final class RDKafkaClient: @unchecked Sendable {
  enum Role {
    case producer
    case consumer
    /// A consumer that is asked about the cluster, and reports on it by events.
    case observer
    /// A consumer that is a member of a group, and is told of rebalances by events.
    case member
  }

  let pointer: OpaquePointer
  private let role: Role
  /// What callbacks reach; retained by `pointer` until it is destroyed.
  private let context: Unmanaged<Context>

  /// What the C callbacks of one client get to see.
  final class Context: @unchecked Sendable {
    let log: (@Sendable (KafkaLogLine) -> Void)?
    /// Where delivery reports go. Set and read only by the thread that polls the producer.
    var ledger: DeliveryLedger?
    /// Memory that librdkafka may read from until it is gone.
    var kept: [PreparedTransaction] = []
    /// Called for each message instead of a delivery report.
    let acknowledged: Acknowledged?
    /// Called for each error that has no other way, instead of a line in the log.
    let failed: Failed?
    /// Where librdkafka finds this.
    let acknowledger = UnsafeMutablePointer<grape_kafka_acknowledger>.allocate(capacity: 1)

    init(log: (@Sendable (KafkaLogLine) -> Void)?, acknowledged: Acknowledged?, failed: Failed?) {
      self.log = log
      self.acknowledged = acknowledged
      self.failed = failed
      acknowledger.initialize(
        to: grape_kafka_acknowledger(
          call: { message, opaque in
            guard let message, let opaque else { return }
            Unmanaged<Context>.fromOpaque(opaque).takeUnretainedValue().acknowledged?(message)
          }, opaque: Unmanaged.passUnretained(self).toOpaque()))
    }

    deinit { acknowledger.deallocate() }
  }

  /// Told what became of a message, on a thread of librdkafka's, which it must not block.
  typealias Acknowledged = @Sendable (UnsafePointer<rd_kafka_message_t>) -> Void

  /// Told of an error and what librdkafka says of it.
  typealias Failed = @Sendable (rd_kafka_resp_err_t, String) -> Void

  /// - Parameters:
  ///   - acknowledged: of a producer: is told of messages as soon as that can be, instead of the ledger when the client is polled.
  ///   - failed: of a consumer: is told of errors that come with no message, by the thread that takes messages.
  ///
  /// Errors: `invalidArgument` with the setting that librdkafka refused (never its value).
  init(
    _ role: Role, _ configuration: KafkaConfiguration, own: [(name: String, value: String)],
    acknowledged: Acknowledged? = nil,
    failed: Failed? = nil
  ) throws(LogError) {
    guard let conf = rd_kafka_conf_new() else { throw LogError(.failed, "librdkafka has no memory") }
    // librdkafka takes the configuration over once the client is there.
    var owned = true
    defer { if owned { rd_kafka_conf_destroy(conf) } }
    let general = [("bootstrap.servers", configuration.bootstrapServers), ("log.connection.close", "false")]
    let given = configuration.settings.filter {
      role == .producer ? KafkaConfiguration.isForProducers($0.key) : KafkaConfiguration.isForConsumers($0.key)
    }
    for (name, value) in general + given.sorted(by: { $0.key < $1.key }) + own {
      try Self.set(conf, name, value)
    }
    let context = Unmanaged.passRetained(Context(log: configuration.log, acknowledged: acknowledged, failed: failed))
    rd_kafka_conf_set_opaque(conf, context.toOpaque())
    rd_kafka_conf_set_log_cb(conf) { client, level, facility, text in
      guard let client, let opaque = rd_kafka_opaque(client) else { return }
      Unmanaged<Context>.fromOpaque(opaque).takeUnretainedValue().log?(
        KafkaLogLine(
          level: Int(level), facility: facility.map { String(cString: $0) } ?? "",
          message: text.map { String(cString: $0) } ?? ""))
    }
    if acknowledged != nil {
      let code = grape_kafka_acknowledge(conf, context.takeUnretainedValue().acknowledger)
      precondition(code == RD_KAFKA_RESP_ERR_NO_ERROR, "librdkafka takes no interceptor: \(code)")
    } else if role == .producer {
      rd_kafka_conf_set_dr_msg_cb(conf) { _, message, opaque in
        guard let message, let opaque else { return }
        Unmanaged<Context>.fromOpaque(opaque).takeUnretainedValue().ledger?.report(message)
      }
    }
    if failed != nil {
      rd_kafka_conf_set_error_cb(conf) { _, code, reason, opaque in
        guard let opaque else { return }
        Unmanaged<Context>.fromOpaque(opaque).takeUnretainedValue().failed?(
          rd_kafka_resp_err_t(code), reason.map { String(cString: $0) } ?? "")
      }
    }
    if role == .member {
      rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_ERROR)
    }
    if role == .observer { rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_STATS | RD_KAFKA_EVENT_ERROR) }
    var reason = [CChar](repeating: 0, count: 512)
    let kind = role == .producer ? RD_KAFKA_PRODUCER : RD_KAFKA_CONSUMER
    guard let client = rd_kafka_new(kind, conf, &reason, reason.count) else {
      context.release()
      throw LogError(.invalidArgument, "Kafka: librdkafka refuses its settings: \(text(reason))")
    }
    owned = false
    pointer = client
    self.context = context
    self.role = role
  }

  deinit {
    // Nobody waits for what is still queued: whoever cared has been told by the delivery reports.
    // A member has left its group before, or has no time to.
    rd_kafka_destroy_flags(pointer, role == .member ? RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE : 0)
    context.release()
  }

  /// Where delivery reports go from now on. Only for the thread that polls the producer.
  var ledger: DeliveryLedger? {
    get { context.takeUnretainedValue().ledger }
    set { context.takeUnretainedValue().ledger = newValue }
  }

  /// Asks for all topics, which makes a member look whether those that it subscribes to have come or gone. Blocks.
  func refreshTopics(timeout: Int) {
    var metadata: UnsafePointer<rd_kafka_metadata>?
    if rd_kafka_metadata(pointer, 1, nil, &metadata, Int32(timeout)) == RD_KAFKA_RESP_ERR_NO_ERROR, let metadata {
      rd_kafka_metadata_destroy(metadata)
    }
  }

  /// Keeps memory that messages under way refer to until librdkafka has let go of them. Only for the thread that polls the
  /// producer.
  func keepUntilEnd(_ transactions: [PreparedTransaction]) { context.takeUnretainedValue().kept += transactions }

  private static func set(_ conf: OpaquePointer, _ name: String, _ value: String) throws(LogError) {
    var reason = [CChar](repeating: 0, count: 512)
    guard rd_kafka_conf_set(conf, name, value, &reason, reason.count) == RD_KAFKA_CONF_OK else {
      // librdkafka's reason may quote the value.
      let quotesValue = !value.isEmpty && text(reason).contains(value)
      throw LogError(
        .invalidArgument,
        "Kafka setting \(name): " + (quotesValue ? "librdkafka does not take the value given" : text(reason)))
    }
  }
}

/// A topic as one client knows it.
final class RDKafkaTopic: @unchecked Sendable {
  let pointer: OpaquePointer
  let client: RDKafkaClient

  init(_ client: RDKafkaClient, _ name: String) throws(LogError) {
    guard let pointer = rd_kafka_topic_new(client.pointer, name, nil) else {
      throw KafkaError.log(rd_kafka_last_error(), "opening topic \(name)")
    }
    self.pointer = pointer
    self.client = client
  }

  deinit { rd_kafka_topic_destroy(pointer) }

  /// Asks the cluster, and with that tells the client, how many partitions the topic has; nil: there is no such topic.
  /// Blocks. `isReady` is false while a partition has no leader.
  func refresh(_ name: String, timeout: Int) throws(LogError) -> (partitions: Int32, isReady: Bool)? {
    var metadata: UnsafePointer<rd_kafka_metadata>?
    let code = rd_kafka_metadata(client.pointer, 0, pointer, &metadata, Int32(timeout))
    guard code == RD_KAFKA_RESP_ERR_NO_ERROR, let metadata else {
      throw KafkaError.log(code, "asking for topic \(name)")
    }
    defer { rd_kafka_metadata_destroy(metadata) }
    guard metadata.pointee.topic_cnt > 0 else { return nil }
    let topic = metadata.pointee.topics[0]
    switch topic.err {
    case RD_KAFKA_RESP_ERR_NO_ERROR: break
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC: return nil
    default: throw KafkaError.log(topic.err, "asking for topic \(name)")
    }
    let hasLeaders = (0..<Int(topic.partition_cnt)).allSatisfy { topic.partitions[$0].leader >= 0 }
    return (topic.partition_cnt, hasLeaders && topic.partition_cnt > 0)
  }
}

/// A queue of one client's events or messages.
final class RDKafkaQueue: @unchecked Sendable {
  let pointer: OpaquePointer
  let client: RDKafkaClient

  init(_ client: RDKafkaClient) {
    pointer = rd_kafka_queue_new(client.pointer)
    self.client = client
  }

  /// Takes over a reference to one of the client's own queues.
  init(_ client: RDKafkaClient, _ pointer: OpaquePointer) {
    self.pointer = pointer
    self.client = client
  }

  /// Has librdkafka signal `wakeup`, or nobody, when the queue is no longer empty.
  func signal(_ wakeup: Wakeup?) {
    // librdkafka copies the eight bytes, which an eventfd takes for a count.
    var one: UInt64 = 1
    rd_kafka_queue_io_event_enable(pointer, wakeup?.descriptor ?? -1, &one, wakeup == nil ? 0 : 8)
  }

  deinit { rd_kafka_queue_destroy(pointer) }
}

/// A list of partitions for a call.
struct PartitionList: ~Copyable {
  let pointer: UnsafeMutablePointer<rd_kafka_topic_partition_list_t>

  init(capacity: Int = 1) { pointer = rd_kafka_topic_partition_list_new(Int32(max(capacity, 1))) }

  deinit { rd_kafka_topic_partition_list_destroy(pointer) }

  /// `metadata` is copied.
  func add(_ topic: String, _ partition: Int32, offset: Int64, metadata: [UInt8] = []) {
    let entry = rd_kafka_topic_partition_list_add(pointer, topic, partition)!
    entry.pointee.offset = offset
    guard !metadata.isEmpty, let copy = malloc(metadata.count) else { return }
    metadata.withUnsafeBytes { copy.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
    // Freed with the list.
    entry.pointee.metadata = copy
    entry.pointee.metadata_size = metadata.count
  }

  var first: rd_kafka_topic_partition_t { pointer.pointee.elems[0] }
}

private func text(_ reason: [CChar]) -> String {
  String(decoding: reason.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}
