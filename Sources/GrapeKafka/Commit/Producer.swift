internal import CRDKafka
internal import GrapeLog
internal import GrapeWire

/// A producer and the topics it has written to. Confined to the committer's thread, or behind a lock.
final class Producer {
  let client: RDKafkaClient
  private var topics: [String: RDKafkaTopic] = [:]
  private let timeout: Int
  /// True: librdkafka did not report on all messages, so that a report may come that would be taken for one of another
  /// commit. Another producer is needed.
  private(set) var isUnusable = false

  /// - Parameters:
  ///   - messageTimeout: how long a message may be under way, milliseconds.
  ///   - acknowledged: see `RDKafkaClient`.
  init(
    _ configuration: KafkaConfiguration, messageTimeout: Int, own: [(name: String, value: String)],
    acknowledged: RDKafkaClient.Acknowledged? = nil
  ) throws(LogError) {
    // Sets are bounded by batch.size; this only bounds single records, which the topic's own setting decides on.
    let sizes = configuration.settings["message.max.bytes"] == nil ? [("message.max.bytes", "68157440")] : []
    client = try RDKafkaClient(
      .producer, configuration,
      own: sizes + [
        ("enable.idempotence", "true"), ("acks", "all"), ("allow.auto.create.topics", "false"),
        ("message.timeout.ms", String(messageTimeout)),
        // The committer bounds what it hands over.
        ("queue.buffering.max.messages", "10000000"), ("queue.buffering.max.kbytes", "2097151"),
        ("batch.num.messages", "1000000"),
      ] + own, acknowledged: acknowledged)
    timeout = configuration.requestTimeout
  }

  func hasWritten(to topic: String) -> Bool { topics[topic] != nil }
  func forget(_ topic: String) { topics[topic] = nil }

  /// The value that librdkafka works with for a setting.
  func setting(_ name: String) -> Int? {
    var size = 64
    var value = [CChar](repeating: 0, count: size)
    guard rd_kafka_conf_get(rd_kafka_conf(client.pointer), name, &value, &size) == RD_KAFKA_CONF_OK else { return nil }
    return Int(String(decoding: value.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))
  }

  /// Finds out where a topic's messages go. Blocks if that is not known yet. Errors: `noSuchTopic`, and why the cluster does not tell.
  @discardableResult
  func topic(_ name: String) throws(LogError) -> RDKafkaTopic {
    if let topic = topics[name] { return topic }
    let topic = try RDKafkaTopic(client, name)
    // Else the first messages wait for librdkafka to find out where they go.
    guard try topic.refresh(name, timeout: timeout) != nil else {
      throw LogError(.noSuchTopic, "there is no topic \"\(name)\"")
    }
    topics[name] = topic
    return topic
  }

  /// Queues the records of one append; their memory must stay until they are reported on. `ledger` counts under
  /// `place`.
  func produce(
    _ batch: UnpackedBatch, to clusterName: String, _ partition: Int32, _ ledger: DeliveryLedger, _ place: Int,
    deadline: Int64
  ) throws(LogError) {
    let topic = try topic(clusterName)
    let opaque = DeliveryLedger.opaque(append: place)
    var reader = batch.reader()
    while true {
      let next: Record?
      do throws(WireError) { next = try reader.next() } catch {
        throw LogError(.invalidArgument, "\(clusterName)/\(partition): \(error.message)")
      }
      guard let record = next else { return }
      let timestamp = batch.header.baseTimestamp &+ record.timestampDelta
      while true {
        let code = try send(record, timestamp, to: topic, partition, opaque)
        if code == RD_KAFKA_RESP_ERR_NO_ERROR { break }
        guard code == RD_KAFKA_RESP_ERR__QUEUE_FULL, MonotonicClock.now < deadline else {
          ledger.refused(append: place, code)
          throw KafkaError.log(code, "writing to \(clusterName)/\(partition)")
        }
        // Reports make room.
        rd_kafka_poll(client.pointer, 100)
      }
      ledger.handedOver(append: place)
    }
  }

  /// Hands one record to librdkafka, or says why that does not take it. `copying`: its memory need not stay.
  func send(
    _ record: Record, _ timestamp: Int64, to topic: RDKafkaTopic, _ partition: Int32,
    _ opaque: UnsafeMutableRawPointer?,
    copying: Bool = false
  ) throws(LogError) -> rd_kafka_resp_err_t {
    let headers = try headers(record)
    // A time of 0 means "now" to librdkafka.
    let code = grape_kafka_produce(
      client.pointer, topic.pointer, partition, pointer(record.value), record.value?.count ?? 0, pointer(record.key),
      record.key?.count ?? 0, headers, timestamp == 0 ? 1 : timestamp, copying ? RD_KAFKA_MSG_F_COPY : 0, opaque)
    if code != RD_KAFKA_RESP_ERR_NO_ERROR, let headers { rd_kafka_headers_destroy(headers) }
    return code
  }

  /// Null for null; for empty bytes some pointer that is not null.
  private func pointer(_ bytes: UnsafeRawBufferPointer?) -> UnsafeRawPointer? {
    bytes.map { $0.baseAddress ?? UnsafeRawPointer(bitPattern: 1)! }
  }

  private func headers(_ record: Record) throws(LogError) -> OpaquePointer? {
    // A count of zero.
    if record.headerSection.count == 1 { return nil }
    let headers = rd_kafka_headers_new(8)
    var reader = record.headers
    do throws(WireError) {
      while let (name, value) = try reader.next() {
        rd_kafka_header_add(
          headers, name.baseAddress?.assumingMemoryBound(to: CChar.self), name.count, pointer(value), value?.count ?? 0)
      }
    } catch {
      rd_kafka_headers_destroy(headers)
      throw LogError(.invalidArgument, "a record's headers: \(error.message)")
    }
    return headers
  }

  /// Waits until every message was reported on. At the deadline what is left is given up, and reported as such.
  func flush(_ ledger: DeliveryLedger, until deadline: Int64) {
    let left = MonotonicClock.milliseconds(until: deadline)
    if rd_kafka_flush(client.pointer, Int32(left)) == RD_KAFKA_RESP_ERR_NO_ERROR && ledger.isComplete { return }
    giveUp(ledger)
  }

  /// Drops whatever is queued or under way and waits for the reports on it: afterwards librdkafka refers to none of it.
  func giveUp(_ ledger: DeliveryLedger) {
    rd_kafka_purge(client.pointer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT)
    settle(ledger)
  }

  /// Waits for reports that are due at once: nothing is queued or under way any more. One that came later would be
  /// taken for one on the next commit.
  func settle(_ ledger: DeliveryLedger) {
    let deadline = MonotonicClock.after(milliseconds: 5_000)
    while !ledger.isComplete && MonotonicClock.now < deadline { rd_kafka_poll(client.pointer, 100) }
    if ledger.isComplete { return }
    ledger.close()
    isUnusable = true
  }
}
