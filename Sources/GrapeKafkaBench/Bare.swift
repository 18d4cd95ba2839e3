import CRDKafka

/// The same work by librdkafka alone, without Grape: what there is to be reached. Errors end the program.
struct Bare {
  let servers: String

  func client(_ kind: rd_kafka_type_t, _ settings: [(String, String)]) -> OpaquePointer {
    let conf = rd_kafka_conf_new()
    var reason = [CChar](repeating: 0, count: 512)
    for (name, value) in [("bootstrap.servers", servers)] + settings {
      guard rd_kafka_conf_set(conf, name, value, &reason, reason.count) == RD_KAFKA_CONF_OK else { fatalError(name) }
    }
    guard let client = rd_kafka_new(kind, conf, &reason, reason.count) else { fatalError("rd_kafka_new") }
    return client
  }

  func check(_ error: OpaquePointer?) {
    if let error { fatalError(String(cString: rd_kafka_error_string(error))) }
  }

  /// Writes `count` messages to the partitions in turn, in pieces of `piece`; one transaction per `transaction`
  /// messages, or none.
  func produce(_ topic: String, partitions: Int32, count: Int, size: Int, piece: Int, transaction: Int?) {
    var settings = [
      ("enable.idempotence", "true"), ("acks", "all"), ("batch.num.messages", "1000000"),
      ("queue.buffering.max.messages", "1000000"),
    ]
    if transaction != nil { settings.append(("transactional.id", "bare")) }
    let producer = client(RD_KAFKA_PRODUCER, settings)
    let handle = rd_kafka_topic_new(producer, topic, nil)
    if transaction != nil { check(rd_kafka_init_transactions(producer, 30_000)) }
    let value = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 16)
    value.initializeMemory(as: UInt8.self, repeating: 120, count: size)
    for number in 0..<count {
      if let transaction, number % transaction == 0 { check(rd_kafka_begin_transaction(producer)) }
      let partition = Int32(number / piece) % partitions
      while true {
        let code = grape_kafka_produce(producer, handle, partition, value, size, nil, 0, nil, 1_000, 0, nil)
        if code == RD_KAFKA_RESP_ERR_NO_ERROR { break }
        guard code == RD_KAFKA_RESP_ERR__QUEUE_FULL else { fatalError(String(cString: rd_kafka_err2str(code))) }
        rd_kafka_poll(producer, 10)
      }
      if number % 1_000 == 999 { rd_kafka_poll(producer, 0) }
      if let transaction, (number + 1) % transaction == 0 || number + 1 == count {
        check(rd_kafka_commit_transaction(producer, 60_000))
      }
    }
    guard rd_kafka_flush(producer, 60_000) == RD_KAFKA_RESP_ERR_NO_ERROR else { fatalError("flush") }
    rd_kafka_topic_destroy(handle)
    rd_kafka_destroy(producer)
    value.deallocate()
  }

  /// Reads `count` messages of one partition; returns the bytes of their values.
  func consume(_ topic: String, _ partition: Int32, count: Int) -> Int {
    let consumer = client(
      RD_KAFKA_CONSUMER, [("isolation.level", "read_committed"), ("queued.min.messages", "1000000")])
    let handle = rd_kafka_topic_new(consumer, topic, nil)
    let queue = rd_kafka_queue_new(consumer)
    rd_kafka_consume_start_queue(handle, partition, 0, queue)
    var messages = [UnsafeMutablePointer<rd_kafka_message_t>?](repeating: nil, count: 1_000)
    var seen = 0
    var bytes = 0
    while seen < count {
      // The time is waited out where fewer come.
      let got = rd_kafka_consume_batch_queue(queue, 5, &messages, messages.count)
      for place in 0..<max(0, got) {
        bytes += messages[place]!.pointee.len
        rd_kafka_message_destroy(messages[place])
      }
      seen += max(0, got)
    }
    rd_kafka_consume_stop(handle, partition)
    rd_kafka_queue_destroy(queue)
    rd_kafka_topic_destroy(handle)
    rd_kafka_destroy(consumer)
    return bytes
  }

  /// Milliseconds that one message takes to be acknowledged, for each of `count`, one at a time.
  func acknowledge(_ topic: String, count: Int) -> [Double] {
    let producer = client(RD_KAFKA_PRODUCER, [("enable.idempotence", "true"), ("acks", "all"), ("linger.ms", "0")])
    let handle = rd_kafka_topic_new(producer, topic, nil)
    let value = UnsafeMutableRawPointer.allocate(byteCount: 100, alignment: 16)
    value.initializeMemory(as: UInt8.self, repeating: 120, count: 100)
    var times: [Double] = []
    for _ in 0..<count {
      let clock = ContinuousClock()
      times.append(
        milliseconds(
          clock.measure {
            _ = grape_kafka_produce(producer, handle, 0, value, 100, nil, 0, nil, 1_000, 0, nil)
            rd_kafka_flush(producer, 10_000)
          }))
    }
    rd_kafka_topic_destroy(handle)
    rd_kafka_destroy(producer)
    value.deallocate()
    return times
  }
}

func milliseconds(_ duration: Duration) -> Double {
  Double(duration.components.seconds) * 1e3 + Double(duration.components.attoseconds) / 1e15
}
