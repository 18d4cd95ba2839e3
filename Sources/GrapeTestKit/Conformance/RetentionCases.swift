import GrapeLog

extension EventLogConformance {
  static let retentionCases: [Case] = [
    Case("records given up are out of reach, the others stay, and new ones follow") { probe in
      let partition = TopicPartition("a", 0)
      try await probe.createTopic("a")
      for value in ["one", "two", "three"] { try await probe.append([value], to: partition) }
      try await probe.log.deleteRecords(of: partition, before: 2)
      try expect(
        try await probe.log.bounds(of: partition), equals: PartitionBounds(start: 2, end: 3), "bounds")
      try await expect(.offsetOutOfRange, "reading what is gone") {
        _ = try await probe.log.read(partition, from: 1, maxBytes: 1_000)
      }
      try expect(
        try await probe.log.read(partition, from: 2, maxBytes: 1_000).batches.map(\.lastOffset), equals: [2], "the rest"
      )
      try await probe.log.deleteRecords(of: partition, before: 1)
      try expect(
        try await probe.log.bounds(of: partition), equals: PartitionBounds(start: 2, end: 3),
        "the start never goes back")
      try await probe.log.deleteRecords(of: partition, before: 3)
      try expect(
        try await probe.log.read(partition, from: 3, maxBytes: 1_000).batches.isEmpty, "nothing is left")
      try expect(try await probe.append(["four"], to: partition), equals: 3, "next offset")
      try await expect(.offsetOutOfRange, "giving up what is not there yet") {
        try await probe.log.deleteRecords(of: partition, before: 5)
      }
      try await expect(.noSuchTopic, "another topic") {
        try await probe.log.deleteRecords(of: TopicPartition("b", 0), before: 0)
      }
      try await expect(.noSuchPartition, "another partition") {
        try await probe.log.deleteRecords(of: TopicPartition("a", 1), before: 0)
      }
    },
    Case("given up is given up for good, also within a batch", needsReopening: true) { probe in
      let partition = TopicPartition("a", 0)
      try await probe.createTopic("a")
      try await probe.append(["0", "1", "2", "3"], to: partition)
      try await probe.append(["4", "5"], to: partition)
      try await probe.log.deleteRecords(of: partition, before: 3)
      try await probe.reopen()
      try expect(
        try await probe.log.bounds(of: partition), equals: PartitionBounds(start: 3, end: 6), "bounds")
      let result = try await probe.log.read(partition, from: 3, maxBytes: 10_000)
      try expect(
        result.batches.map(\.lastOffset), equals: probe.has(.regroupsBatches) ? [5] : [3, 5],
        "batches that hold what is left")
      try expect(try await probe.records(of: partition, from: 3), equals: ["3", "4", "5"], "records that are left")
      try expect(result.nextOffset, equals: 6, "where to go on")
    },
    Case("a topic's retention can be changed, its number of partitions cannot") { probe in
      try await probe.createTopic("a", partitions: 2)
      let changed = TopicConfiguration(
        partitions: 2, cleanup: .compact, retentionMilliseconds: 1_000, retentionBytes: 5, dropsUnconsumed: true)
      try await probe.log.alterTopic("a", configuration: changed)
      try expect(try await probe.log.topics().map(\.configuration), equals: [changed], "configuration")
      try await expect(.invalidArgument, "three partitions") {
        try await probe.log.alterTopic("a", configuration: TopicConfiguration(partitions: 3))
      }
      try await expect(.noSuchTopic, "another topic") {
        try await probe.log.alterTopic("b", configuration: changed)
      }
    },
    Case("a deleted group has no offsets, and may commit anew") { probe in
      let partition = TopicPartition("a", 0)
      try await probe.createTopic("a")
      let committed = CommittedOffset(offset: 0, metadata: [1])
      for group in ["g", "h"] {
        try await probe.log.commit(
          Transaction(offsets: [.init(group: group, partition: partition, committed: committed)]))
      }
      try await probe.log.deleteGroup("g")
      try await probe.log.deleteGroup("never there")
      try expect(try await probe.log.committedOffsets(group: "g"), equals: [:], "offsets of the deleted group")
      try expect(try await probe.log.committedOffsets(group: "h"), equals: [partition: committed], "the other group's")
      try await probe.log.commit(
        Transaction(offsets: [.init(group: "g", partition: partition, committed: committed)]))
      try expect(try await probe.log.committedOffsets(group: "g"), equals: [partition: committed], "anew")
    },
  ]
}
