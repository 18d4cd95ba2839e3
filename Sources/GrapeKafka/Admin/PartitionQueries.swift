internal import CRDKafka
internal import GrapeLog

/// Where partitions begin and end, as readers of committed records see it. All block.
struct PartitionQueries: Sendable {
  let client: RDKafkaClient
  let directory: TopicDirectory
  let lane: Lane
  let timeout: Int

  func bounds(of partition: TopicPartition) throws(LogError) -> PartitionBounds {
    let deadline = MonotonicClock.after(milliseconds: timeout)
    let doing = "asking for the bounds of \(partition)"
    return try lane.retrying(until: deadline, doing) { left throws(LogError) in
      try directory.check(partition, timeout: left)
      var start: Int64 = 0
      var end: Int64 = 0
      let code = rd_kafka_query_watermark_offsets(
        client.pointer, directory.clusterName(partition.topic), partition.partition, &start, &end, Int32(left))
      guard try isAnswer(code, partition, doing) else { return nil }
      return PartitionBounds(start: start, end: end)
    }
  }

  /// Kafka's question is for the first record with such a timestamp.
  func offset(of partition: TopicPartition, at timestamp: Int64) throws(LogError) -> Int64 {
    // Negative times mean something else to brokers; no record can be relied upon to have one.
    if timestamp < 0 { return try bounds(of: partition).start }
    let deadline = MonotonicClock.after(milliseconds: timeout)
    let doing = "asking for the offset at time \(timestamp) of \(partition)"
    let found: Int64 = try lane.retrying(until: deadline, doing) { left throws(LogError) in
      try directory.check(partition, timeout: left)
      let list = PartitionList()
      list.add(directory.clusterName(partition.topic), partition.partition, offset: timestamp)
      var code = rd_kafka_offsets_for_times(client.pointer, list.pointer, Int32(left))
      if code == RD_KAFKA_RESP_ERR_NO_ERROR { code = list.first.err }
      guard try isAnswer(code, partition, doing) else { return nil }
      return list.first.offset
    }
    return found >= 0 ? found : try bounds(of: partition).end
  }

  /// Where readers of committed records come to an end, of those partitions that are answered for (by names on the cluster); beyond everything where
  /// there is no such partition any more.
  func ends(of partitions: Set<TopicPartition>) -> [TopicPartition: Int64] {
    let list = PartitionList(capacity: partitions.count)
    for partition in partitions {
      list.add(partition.topic, partition.partition, offset: Int64(RD_KAFKA_OFFSET_END))
    }
    var ends: [TopicPartition: Int64] = [:]
    var doubted: Set<String> = []
    if rd_kafka_offsets_for_times(client.pointer, list.pointer, 2_000) == RD_KAFKA_RESP_ERR_NO_ERROR {
      for place in 0..<Int(list.pointer.pointee.cnt) {
        let entry = list.pointer.pointee.elems[place]
        let partition = TopicPartition(String(cString: entry.topic), entry.partition)
        if entry.err == RD_KAFKA_RESP_ERR_NO_ERROR {
          ends[partition] = entry.offset
        } else if KafkaError.kind(entry.err) == .noSuchTopic {
          ends[partition] = .max
        } else if KafkaError.isRetriable(entry.err) {
          doubted.insert(partition.topic)
        }
      }
    } else {
      doubted = Set(partitions.map(\.topic))
    }
    // Whoever leads them may be another by now. If that cannot be said either, it is asked again with the next question.
    let deadline = MonotonicClock.after(milliseconds: 2_000)
    for topic in doubted where MonotonicClock.now < deadline {
      let left = MonotonicClock.milliseconds(until: deadline)
      if let name = directory.ownName(topic) { _ = try? directory.refresh(name, timeout: left) }
    }
    return ends
  }

  /// False: ask again, with fresh metadata; librdkafka's own may name a leader that is none any more.
  private func isAnswer(
    _ code: rd_kafka_resp_err_t, _ partition: TopicPartition, _ doing: String
  ) throws(LogError) -> Bool {
    if code == RD_KAFKA_RESP_ERR_NO_ERROR { return true }
    directory.doubt(partition.topic)
    switch KafkaError.kind(code) {
    case .noSuchTopic, .noSuchPartition: return false
    default: throw KafkaError.log(code, doing)
    }
  }
}
