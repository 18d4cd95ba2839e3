import GrapeLog

extension IndexFile {
  /// A record for every partition of the snapshot, without batches.
  static func parts(of snapshot: StateSnapshot) -> [Part] {
    var parts: [Part] = []
    for topic in snapshot.topics {
      for (number, partition) in topic.partitions.enumerated() {
        parts.append(
          Part(
            topic: topic.id, partition: Int32(number), end: partition.end,
            greatestTimestamp: partition.greatestTimestamp, bytes: partition.bytes, run: []))
      }
    }
    return parts.sorted { $0.key < $1.key }
  }

  /// Fills in the batches of partitions: for each its pages of the segment.
  static func fill(
    _ parts: inout [Part],
    _ touched: some Sequence<((topic: TopicID, partition: Int32), ArraySlice<PartitionIndex.Page>)>
  ) {
    for ((topic, number), pages) in touched {
      let key = UInt64(topic) << 32 | UInt64(UInt32(bitPattern: number))
      let place = partition(parts.count) { parts[$0].key < key }
      // A topic deleted before the segment's end has no record.
      guard place < parts.count, parts[place].key == key else { continue }
      for page in pages {
        for slot in 0..<page.count { parts[place].run.append(page.location(slot)) }
      }
    }
  }
}
