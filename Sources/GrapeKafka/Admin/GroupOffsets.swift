internal import CRDKafka
internal import GrapeLog

/// A group's progress as the cluster has it.
struct GroupOffset {
  var topic: String
  var partition: Int32
  var offset: Int64
  /// UTF-8.
  var metadata: [UInt8]
}

/// Asks for offsets of a group, and deletes them, by a client of its own. Each call blocks until it is answered or its
/// time is over.
///
/// The client serves for one call and is gone: an administrative request of librdkafka's to a group's coordinator whose time is over
/// ends the process when the coordinator comes back later (an assertion on `eonce->refcnt`), unless its client is gone by then. That
/// costs a connection, and the question who the coordinator is, each time.
struct GroupOffsets {
  private let client: RDKafkaClient
  /// On the cluster.
  private let group: String
  /// Milliseconds.
  private let timeout: Int

  init(_ configuration: KafkaConfiguration, of group: String, timeout: Int) throws(LogError) {
    self.group = group
    self.timeout = timeout
    client = try RDKafkaClient(
      .consumer, configuration, own: [("enable.auto.commit", "false"), ("allow.auto.create.topics", "false")])
  }

  private var admin: KafkaAdmin { KafkaAdmin(client: client, timeout: timeout) }

  /// Offsets that the group committed, those of transactions under way not before they are decided.
  func get() throws(LogError) -> [GroupOffset] {
    var request = rd_kafka_ListConsumerGroupOffsets_new(group, nil)
    defer { rd_kafka_ListConsumerGroupOffsets_destroy(request) }
    let doing = "asking for the offsets of group \(group)"
    return try admin.ask(doing, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS, stable: true) { options, queue in
      rd_kafka_ListConsumerGroupOffsets(client.pointer, &request, 1, options, queue)
    } read: { event throws(LogError) in
      var count = 0
      let results = rd_kafka_ListConsumerGroupOffsets_result_groups(
        rd_kafka_event_ListConsumerGroupOffsets_result(event), &count)
      var offsets: [GroupOffset] = []
      for place in 0..<count {
        try check(results![place], doing)
        guard let list = rd_kafka_group_result_partitions(results![place]) else { continue }
        for place in 0..<Int(list.pointee.cnt) {
          let entry = list.pointee.elems[place]
          if entry.err != RD_KAFKA_RESP_ERR_NO_ERROR { throw KafkaError.log(entry.err, doing) }
          guard entry.offset >= 0 else { continue }
          let metadata = UnsafeRawBufferPointer(start: entry.metadata, count: entry.metadata_size)
          offsets.append(
            GroupOffset(
              topic: String(cString: entry.topic), partition: entry.partition, offset: entry.offset,
              metadata: [UInt8](metadata)))
        }
      }
      return offsets
    }
  }

  /// Has the cluster forget offsets in these partitions, whatever they are.
  func delete(_ offsets: [GroupOffset]) throws(LogError) {
    let list = PartitionList(capacity: offsets.count)
    for offset in offsets { list.add(offset.topic, offset.partition, offset: 0) }
    var request = rd_kafka_DeleteConsumerGroupOffsets_new(group, list.pointer)
    defer { rd_kafka_DeleteConsumerGroupOffsets_destroy(request) }
    let doing = "forgetting offsets of group \(group)"
    try admin.ask(doing, RD_KAFKA_ADMIN_OP_DELETECONSUMERGROUPOFFSETS) { options, queue in
      rd_kafka_DeleteConsumerGroupOffsets(client.pointer, &request, 1, options, queue)
    } read: { event throws(LogError) in
      var count = 0
      let results = rd_kafka_DeleteConsumerGroupOffsets_result_groups(
        rd_kafka_event_DeleteConsumerGroupOffsets_result(event), &count)
      for place in 0..<count { try check(results![place], doing) }
    }
  }

  /// Has the cluster forget the group; one that is not there is forgotten already.
  func deleteGroup() throws(LogError) {
    var request = rd_kafka_DeleteGroup_new(group)
    defer { rd_kafka_DeleteGroup_destroy(request) }
    let doing = "deleting group \(group)"
    try admin.ask(doing, RD_KAFKA_ADMIN_OP_DELETEGROUPS) { options, queue in
      rd_kafka_DeleteGroups(client.pointer, &request, 1, options, queue)
    } read: { event throws(LogError) in
      var count = 0
      let results = rd_kafka_DeleteGroups_result_groups(rd_kafka_event_DeleteGroups_result(event), &count)
      for place in 0..<count { try check(results![place], doing) }
    }
  }

  private func check(_ result: OpaquePointer?, _ doing: String) throws(LogError) {
    guard let error = rd_kafka_group_result_error(result) else { return }
    let code = rd_kafka_error_code(error)
    if code == RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND { return }
    throw KafkaError.log(code, doing, detail: String(cString: rd_kafka_error_string(error)))
  }
}
