internal import CRDKafka
internal import GrapeLog

/// Questions and orders to the cluster, each of which blocks until it is answered or its time is over.
struct KafkaAdmin: Sendable {
  let client: RDKafkaClient
  let timeout: Int

  /// Sends one request and waits for its answer, which is valid in `read` only.
  func ask<Value>(
    _ doing: String, _ operation: rd_kafka_admin_op_t, stable: Bool = false,
    send: (_ options: OpaquePointer, _ queue: OpaquePointer) -> Void,
    read: (_ event: OpaquePointer) throws(LogError) -> Value
  ) throws(LogError) -> Value {
    let options = rd_kafka_AdminOptions_new(client.pointer, operation)
    defer { rd_kafka_AdminOptions_destroy(options) }
    var reason = [CChar](repeating: 0, count: 256)
    _ = rd_kafka_AdminOptions_set_request_timeout(options, Int32(timeout), &reason, reason.count)
    if operation == RD_KAFKA_ADMIN_OP_CREATETOPICS || operation == RD_KAFKA_ADMIN_OP_DELETETOPICS {
      _ = rd_kafka_AdminOptions_set_operation_timeout(options, Int32(timeout), &reason, reason.count)
    }
    if stable, let error = rd_kafka_AdminOptions_set_require_stable_offsets(options, 1) {
      rd_kafka_error_destroy(error)
    }
    let queue = RDKafkaQueue(client)
    send(options!, queue.pointer)
    // librdkafka answers in time by itself; the second more is for its own threads.
    guard let event = rd_kafka_queue_poll(queue.pointer, Int32(timeout + 1_000)) else {
      throw KafkaError.log(RD_KAFKA_RESP_ERR__TIMED_OUT, doing)
    }
    defer { rd_kafka_event_destroy(event) }
    let code = rd_kafka_event_error(event)
    guard code == RD_KAFKA_RESP_ERR_NO_ERROR else {
      throw KafkaError.log(
        code, doing, detail: rd_kafka_event_error_string(event).map { String(cString: $0) })
    }
    return try read(event)
  }

  func createTopic(
    _ name: String, partitions: Int32, replicationFactor: Int32, settings: [(name: String, value: String)]
  ) throws(LogError) {
    var reason = [CChar](repeating: 0, count: 256)
    var topic = rd_kafka_NewTopic_new(name, partitions, replicationFactor, &reason, reason.count)
    guard topic != nil else { throw LogError(.invalidArgument, "Kafka: creating topic \(name): bad arguments") }
    defer { rd_kafka_NewTopic_destroy(topic) }
    for (name, value) in settings { rd_kafka_NewTopic_set_config(topic, name, value) }
    let doing = "creating topic \(name)"
    try ask(doing, RD_KAFKA_ADMIN_OP_CREATETOPICS) { options, queue in
      rd_kafka_CreateTopics(client.pointer, &topic, 1, options, queue)
    } read: { event throws(LogError) in
      var count = 0
      let results = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &count)
      try check(results, count, doing)
    }
  }

  func deleteTopic(_ name: String) throws(LogError) {
    var topic = rd_kafka_DeleteTopic_new(name)
    defer { rd_kafka_DeleteTopic_destroy(topic) }
    let doing = "deleting topic \(name)"
    try ask(doing, RD_KAFKA_ADMIN_OP_DELETETOPICS) { options, queue in
      rd_kafka_DeleteTopics(client.pointer, &topic, 1, options, queue)
    } read: { event throws(LogError) in
      var count = 0
      let results = rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(event), &count)
      try check(results, count, doing)
    }
  }

  private func check(
    _ results: UnsafeMutablePointer<OpaquePointer?>?, _ count: Int, _ doing: String
  ) throws(LogError) {
    for place in 0..<count {
      let code = rd_kafka_topic_result_error(results![place])
      guard code != RD_KAFKA_RESP_ERR_NO_ERROR else { continue }
      throw KafkaError.log(
        code, doing, detail: rd_kafka_topic_result_error_string(results![place]).map { String(cString: $0) })
    }
  }

  /// Settings of topics: all, or those given to the topic itself. A topic that is gone meanwhile is left out, and with
  /// `isLenient` one that may not be described, too: it may be somebody else's.
  func topicSettings(
    _ names: [String], ownOnly: Bool = false, isLenient: Bool = false
  ) throws(LogError) -> [String: [String: String]] {
    if names.isEmpty { return [:] }
    var resources: [OpaquePointer?] = names.map { rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, $0) }
    let owned = resources
    defer { for resource in owned { rd_kafka_ConfigResource_destroy(resource) } }
    return try ask("describing topics", RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS) { options, queue in
      rd_kafka_DescribeConfigs(client.pointer, &resources, resources.count, options, queue)
    } read: { event throws(LogError) in
      var count = 0
      let results = rd_kafka_DescribeConfigs_result_resources(rd_kafka_event_DescribeConfigs_result(event), &count)
      var found: [String: [String: String]] = [:]
      for place in 0..<count {
        let resource = results![place]
        let name = String(cString: rd_kafka_ConfigResource_name(resource))
        let code = rd_kafka_ConfigResource_error(resource)
        if code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART { continue }
        if isLenient, KafkaError.kind(code) == .unauthorized { continue }
        guard code == RD_KAFKA_RESP_ERR_NO_ERROR else {
          throw KafkaError.log(code, "describing topic \(name)")
        }
        found[name] = entries(of: resource, ownOnly: ownOnly)
      }
      return found
    }
  }

  private func entries(of resource: OpaquePointer?, ownOnly: Bool) -> [String: String] {
    var count = 0
    let entries = rd_kafka_ConfigResource_configs(resource, &count)
    var settings: [String: String] = [:]
    for place in 0..<count {
      let entry = entries![place]
      if ownOnly && rd_kafka_ConfigEntry_source(entry) != RD_KAFKA_CONFIG_SOURCE_DYNAMIC_TOPIC_CONFIG { continue }
      guard let value = rd_kafka_ConfigEntry_value(entry) else { continue }
      settings[String(cString: rd_kafka_ConfigEntry_name(entry))] = String(cString: value)
    }
    return settings
  }

  /// Gives a topic these settings and takes all others from it.
  func replaceSettings(of name: String, _ settings: [(name: String, value: String)]) throws(LogError) {
    var resource = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, name)
    defer { rd_kafka_ConfigResource_destroy(resource) }
    for (name, value) in settings { rd_kafka_ConfigResource_set_config(resource, name, value) }
    let doing = "changing the settings of topic \(name)"
    try ask(doing, RD_KAFKA_ADMIN_OP_ALTERCONFIGS) { options, queue in
      rd_kafka_AlterConfigs(client.pointer, &resource, 1, options, queue)
    } read: { event throws(LogError) in
      var count = 0
      let results = rd_kafka_AlterConfigs_result_resources(rd_kafka_event_AlterConfigs_result(event), &count)
      for place in 0..<count {
        let code = rd_kafka_ConfigResource_error(results![place])
        guard code != RD_KAFKA_RESP_ERR_NO_ERROR else { continue }
        throw KafkaError.log(
          code, doing, detail: rd_kafka_ConfigResource_error_string(results![place]).map { String(cString: $0) })
      }
    }
  }

  func deleteRecords(_ topic: String, _ partition: Int32, before offset: Int64) throws(LogError) {
    let list = PartitionList()
    list.add(topic, partition, offset: offset)
    var records = rd_kafka_DeleteRecords_new(list.pointer)
    defer { rd_kafka_DeleteRecords_destroy(records) }
    let doing = "giving up records of \(topic)/\(partition) before \(offset)"
    try ask(doing, RD_KAFKA_ADMIN_OP_DELETERECORDS) { options, queue in
      rd_kafka_DeleteRecords(client.pointer, &records, 1, options, queue)
    } read: { event throws(LogError) in
      let offsets = rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(event))
      guard let offsets, offsets.pointee.cnt > 0 else { return }
      let code = offsets.pointee.elems[0].err
      if code != RD_KAFKA_RESP_ERR_NO_ERROR { throw KafkaError.log(code, doing) }
    }
  }
}
