import GrapeCommitLog
import GrapeLog
import GrapeTestKit
import GrapeWire
import Testing

@Suite("Reading a log's files beside the node") struct OfflineTests {
  @Test("dump, topics and verify agree with what was committed, while the log is open")
  func live() async throws {
    let files = LogFiles()
    var options = CommitLogOptions()
    options.segmentBytes = 1 << 20
    try await files.withLog(options) { log, _ in
      try await log.createTopic("a", configuration: TopicConfiguration(partitions: 2))
      try await log.createTopic("b", configuration: TopicConfiguration(partitions: 1))
      for number in 0..<50 {
        try await append(
          log, ["\(number)", String(repeating: "x", count: 50_000)], to: TopicPartition("a", Int32(number % 2)))
      }
      let committed = CommittedOffset(offset: 3, metadata: [1, 2])
      try await log.commit(
        Transaction(offsets: [.init(group: "g", partition: TopicPartition("a", 1), committed: committed)]))
      try await log.deleteTopic("b")

      let topics = try CommitLog.topics(directory: files.path)
      #expect(topics.map(\.description.name) == ["a"])
      #expect(topics[0].bounds == [PartitionBounds(start: 0, end: 50), PartitionBounds(start: 0, end: 50)])

      let groups = try files.groups()
      #expect(groups.map(\.sequence) == Array(1...54))
      var records: Int32 = 0
      for case .append(_, let batch, let count) in groups.flatMap(\.entries) {
        records += count
        _ = try SampleBatch.records(in: batch)
      }
      #expect(records == 100)
      guard case .offsetCommit("g", TopicPartition("a", 1), committed) = groups[52].entries[0] else {
        Issue.record("\(groups[52].entries[0])")
        return
      }
      guard case .topicDeleted("b") = groups[53].entries[0] else {
        Issue.record("\(groups[53].entries[0])")
        return
      }

      let report = try CommitLog.verify(directory: files.path)
      #expect(report.problems.map(\.description) == [])
      #expect(report.tail == nil)
      #expect(report.groups == 54)
      #expect(report.batches == 50)
      #expect(report.records == 100)
      #expect(report.segments >= 3)
    }
  }

  @Test("a scan beside a writer sees a prefix of the log, without errors")
  func besideWriter() async throws {
    let files = LogFiles()
    var options = CommitLogOptions()
    options.segmentBytes = 1 << 20
    try await files.withLog(options) { log, _ in
      try await log.createTopic("a", configuration: TopicConfiguration(partitions: 1))
      async let writing: Void = {
        for _ in 0..<300 { try await append(log, [String(repeating: "x", count: 20_000)], durability: .os) }
      }()
      for _ in 0..<10 {
        let groups = try files.groups()
        #expect(groups.map(\.sequence) == (0..<groups.count).map { UInt64($0 + 1) })
        #expect(try CommitLog.verify(directory: files.path).problems.map(\.description) == [])
      }
      try await writing
      #expect(try files.groups().count == 301)
    }
  }

  @Test("a directory without a log is told apart from an empty log")
  func noLog() async throws {
    let files = LogFiles()
    #expect(await logError { _ = try CommitLog.verify(directory: files.path) }?.code == .failed)
    #expect(await logError { _ = try CommitLog.topics(directory: files.path) }?.code == .failed)
    try await files.withLog { _, _ in }
    #expect(try CommitLog.topics(directory: files.path).isEmpty)
    #expect(try CommitLog.verify(directory: files.path).groups == 0)
  }
}
