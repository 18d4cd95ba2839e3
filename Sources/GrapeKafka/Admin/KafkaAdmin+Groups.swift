internal import CRDKafka
internal import GrapeLog

extension KafkaAdmin {
  /// Names of all groups that the cluster knows.
  func groups() throws(LogError) -> [String] {
    var list: UnsafePointer<rd_kafka_group_list>?
    let code = rd_kafka_list_groups(client.pointer, nil, &list, Int32(timeout))
    defer { if let list { rd_kafka_group_list_destroy(list) } }
    guard code == RD_KAFKA_RESP_ERR_NO_ERROR, let list else { throw KafkaError.log(code, "listing groups") }
    return (0..<Int(list.pointee.group_cnt)).map { String(cString: list.pointee.groups[$0].group) }
  }
}
