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

extension KafkaAdmin {
  /// Names of all groups that the cluster knows.
  func groups() throws(LogError) -> [String] {
    var list: UnsafePointer<rd_kafka_group_list>?
    let code = rd_kafka_list_groups(client.pointer, nil, &list, Int32(timeout))
    defer { if let list { rd_kafka_group_list_destroy(list) } }
    guard code == RD_KAFKA_RESP_ERR_NO_ERROR, let list else { throw KafkaError.log(code, "listing groups") }
    return (0..<Int(list.pointee.group_cnt)).map { String(cString: list.pointee.groups[$0].group) }
  }

  /// Offsets that a group committed, those of transactions under way not before they are decided.
  func offsets(of group: String) throws(LogError) -> [GroupOffset] {
    var request = rd_kafka_ListConsumerGroupOffsets_new(group, nil)
    defer { rd_kafka_ListConsumerGroupOffsets_destroy(request) }
    let doing = "asking for the offsets of group \(group)"
    return try ask(doing, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS, stable: true) { options, queue in
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

  /// Forgets a group's offsets in these partitions.
  func deleteOffsets(of group: String, _ offsets: [GroupOffset]) throws(LogError) {
    let list = PartitionList(capacity: offsets.count)
    for offset in offsets { list.add(offset.topic, offset.partition, offset: 0) }
    var request = rd_kafka_DeleteConsumerGroupOffsets_new(group, list.pointer)
    defer { rd_kafka_DeleteConsumerGroupOffsets_destroy(request) }
    let doing = "forgetting offsets of group \(group)"
    try ask(doing, RD_KAFKA_ADMIN_OP_DELETECONSUMERGROUPOFFSETS) { options, queue in
      rd_kafka_DeleteConsumerGroupOffsets(client.pointer, &request, 1, options, queue)
    } read: { event throws(LogError) in
      var count = 0
      let results = rd_kafka_DeleteConsumerGroupOffsets_result_groups(
        rd_kafka_event_DeleteConsumerGroupOffsets_result(event), &count)
      for place in 0..<count { try check(results![place], doing) }
    }
  }

  /// Forgets a group; one that is not there is forgotten already.
  func deleteGroup(_ group: String) throws(LogError) {
    var request = rd_kafka_DeleteGroup_new(group)
    defer { rd_kafka_DeleteGroup_destroy(request) }
    let doing = "deleting group \(group)"
    try ask(doing, RD_KAFKA_ADMIN_OP_DELETEGROUPS) { options, queue in
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
