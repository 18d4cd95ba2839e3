import GrapeLog

extension EventLogConformance {
  static let durabilityCases: [Case] = [
    Case("topics, records and offsets are all there after closing and opening again", needsReopening: true) { probe in
      try await probe.createTopic("a", partitions: 2)
      try await probe.createTopic("gone")
      try await probe.append(["x"], to: TopicPartition("gone", 0))
      let kept = TopicConfiguration(partitions: 1, cleanup: .compact, retentionMilliseconds: 1, retentionBytes: 2)
      try await probe.log.createTopic("b", configuration: kept)
      let partition = TopicPartition("a", 1)
      for durability in Durability.allCases {
        try await probe.append(["\(durability)", "too"], to: partition, timestamp: 70, durability: durability)
      }
      try await probe.log.commit(
        Transaction(offsets: [
          .init(group: "g", partition: partition, committed: CommittedOffset(offset: 4, metadata: [9])),
          .init(group: "g", partition: TopicPartition("gone", 0), committed: CommittedOffset(offset: 1)),
        ]))
      try await probe.log.deleteTopic("gone")
      for _ in 0..<2 {
        try await probe.reopen()
        try expect(
          try await probe.log.topics(),
          equals: [
            TopicDescription(name: "a", configuration: TopicConfiguration(partitions: 2)),
            TopicDescription(name: "b", configuration: kept),
          ], "topics")
        try expect(
          try await probe.records(of: partition), equals: ["memory", "too", "os", "too", "disk", "too"], "records")
        try expect(
          try await probe.log.committedOffsets(group: "g"),
          equals: [partition: CommittedOffset(offset: 4, metadata: [9])], "offsets")
        try expect(try await probe.log.offset(of: partition, at: 70), equals: 0, "time lookup")
      }
      try expect(try await probe.append(["next"], to: partition), equals: 6, "next offset")
      try await probe.createTopic("gone", partitions: 5)
      try expect(try await probe.log.bounds(of: TopicPartition("gone", 0)).end, equals: 0, "a topic made anew")
    },
    Case("a log opened and closed many times goes on where it was", needsReopening: true) { probe in
      try await probe.createTopic("a")
      for number in 0..<10 {
        try expect(
          try await probe.append(["\(number)"], to: TopicPartition("a", 0), durability: .memory),
          equals: Int64(number), "offset")
        try await probe.reopen()
      }
      try expect(
        try await probe.records(of: TopicPartition("a", 0)), equals: (0..<10).map(String.init), "records")
    },
    Case("what was accepted before closing is finished", needsReopening: true) { probe in
      try await probe.createTopic("a")
      let answers = Answers()
      for number in 0..<100 {
        probe.log.commit(
          Transaction(
            durability: Durability.allCases[number % 3],
            appends: [SampleBatch.append(["\(number)"], to: TopicPartition("a", 0))])
        ) { answers.add($0, to: number) }
      }
      await probe.log.close()
      try expect(try answers.offsets().count, equals: 100, "answers when the log is closed")
      try await probe.reopen()
      try expect(
        try await probe.records(of: TopicPartition("a", 0)), equals: (0..<100).map(String.init), "records")
    },
  ]
}
