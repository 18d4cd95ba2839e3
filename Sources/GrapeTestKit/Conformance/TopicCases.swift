import GrapeLog

extension EventLogConformance {
  static let topicCases: [Case] = [
    Case("topics are listed in order of name, with their configuration") { probe in
      let kept = TopicConfiguration(
        partitions: 3, cleanup: .compact, retentionMilliseconds: 5_000, retentionBytes: 1 << 20)
      try await probe.log.createTopic("zebra", configuration: kept)
      try await probe.createTopic("Ant.events", partitions: 2)
      try expect(
        try await probe.log.topics(),
        equals: [
          TopicDescription(name: "Ant.events", configuration: TopicConfiguration(partitions: 2)),
          TopicDescription(name: "zebra", configuration: kept),
        ], "topics")
    },
    Case("creating a topic again succeeds if it is the same and is refused if it differs") { probe in
      try await probe.createTopic("a", partitions: 2)
      try await probe.createTopic("a", partitions: 2)
      try await expect(.topicExists, "another number of partitions") {
        try await probe.createTopic("a", partitions: 3)
      }
      try expect(try await probe.log.topics().count, equals: 1, "number of topics")
    },
    Case("bad topic names and configurations are refused") { probe in
      for name in ["", "a b", "a/b", "ä", String(repeating: "x", count: 250)] {
        try await expect(.invalidArgument, "name \"\(name)\"") { try await probe.createTopic(name) }
      }
      for partitions: Int32 in [-1, 0, 10_001] {
        try await expect(.invalidArgument, "\(partitions) partitions") {
          try await probe.createTopic("a", partitions: partitions)
        }
      }
      try expect(try await probe.log.topics().isEmpty, "nothing was created")
    },
    Case("a deleted topic is gone with its records and committed offsets, and its name is free") { probe in
      let partition = TopicPartition("a", 0)
      try await probe.createTopic("a")
      try await probe.createTopic("b")
      try await probe.append(["old"], to: partition)
      try await probe.log.commit(
        Transaction(offsets: [
          .init(group: "g", partition: partition, committed: CommittedOffset(offset: 1)),
          .init(group: "g", partition: TopicPartition("b", 0), committed: CommittedOffset(offset: 0)),
        ]))
      try await probe.log.deleteTopic("a")
      try await expect(.noSuchTopic, "reading it") { _ = try await probe.records(of: partition) }
      try await expect(.noSuchTopic, "appending to it") { try await probe.append(["x"], to: partition) }
      try await expect(.noSuchTopic, "deleting it again") { try await probe.log.deleteTopic("a") }
      try expect(
        try await probe.log.committedOffsets(group: "g"),
        equals: [TopicPartition("b", 0): CommittedOffset(offset: 0)], "offsets left")
      try await probe.createTopic("a", partitions: 2)
      try expect(try await probe.records(of: partition), equals: [], "records of the new topic")
      try expect(try await probe.append(["new"], to: partition), equals: 0, "first offset of the new topic")
    },
    Case("unknown topics and partitions are told apart in every operation") { probe in
      try await probe.createTopic("a", partitions: 2)
      for (partition, code) in [
        (TopicPartition("b", 0), LogError.Code.noSuchTopic), (TopicPartition("a", 2), .noSuchPartition),
        (TopicPartition("a", -1), .noSuchPartition),
      ] {
        try await expect(code, "append") { try await probe.append(["x"], to: partition) }
        try await expect(code, "read") { _ = try await probe.log.read(partition, from: 0, maxBytes: 1) }
        try await expect(code, "bounds") { _ = try await probe.log.bounds(of: partition) }
        try await expect(code, "offset at a time") { _ = try await probe.log.offset(of: partition, at: 0) }
        try await expect(code, "offset commit") {
          try await probe.log.commit(
            Transaction(offsets: [.init(group: "g", partition: partition, committed: CommittedOffset(offset: 0))]))
        }
      }
    },
    Case("a closed log refuses everything, and closing it again is fine") { probe in
      try await probe.createTopic("a")
      await probe.log.close()
      await probe.log.close()
      let partition = TopicPartition("a", 0)
      try await expect(.closed, "append") { try await probe.append(["x"], to: partition) }
      try await expect(.closed, "read") { _ = try await probe.log.read(partition, from: 0, maxBytes: 1) }
      try await expect(.closed, "create") { try await probe.createTopic("b") }
      try await expect(.closed, "delete") { try await probe.log.deleteTopic("a") }
      try await expect(.closed, "topics") { _ = try await probe.log.topics() }
      try await expect(.closed, "bounds") { _ = try await probe.log.bounds(of: partition) }
      try await expect(.closed, "offset") { _ = try await probe.log.offset(of: partition, at: 0) }
      try await expect(.closed, "offsets") { _ = try await probe.log.committedOffsets(group: "g") }
      await probe.log.waitUntilAvailable(partition, after: 100)
    },
  ]
}
