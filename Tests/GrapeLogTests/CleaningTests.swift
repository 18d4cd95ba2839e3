import Foundation
import GrapeCommitLog
import GrapeLog
import GrapeTestKit
import GrapeWire
import Synchronization
import Testing

/// A clock that a test sets.
final class ManualClock: Sendable {
  let milliseconds = Mutex<Int64>(1_000_000)

  var clock: LogClock {
    LogClock(
      wallMilliseconds: { self.milliseconds.withLock { $0 } },
      monotonicNanoseconds: { Int64(DispatchTime.now().uptimeNanoseconds) })
  }

  var now: Int64 { milliseconds.withLock { $0 } }
  func advance(_ by: Int64) { milliseconds.withLock { $0 += by } }
}

@Suite("Retention, compaction and the cleaning of segments") struct CleaningTests {
  /// GRAPE_CLEANING_SEEDS=N tries N seeds instead of a few.
  static func seeds() -> Range<Int> {
    0..<(ProcessInfo.processInfo.environment["GRAPE_CLEANING_SEEDS"].flatMap { Int($0) } ?? 12)
  }

  private func small() -> CommitLogOptions {
    var options = CommitLogOptions()
    options.smallestSegment = 64 << 10
    options.segmentBytes = 64 << 10
    options.tailCacheBytes = 0
    options.indexCacheBytes = 8 << 10
    options.lowSpaceBytes = 0
    options.maintenanceMilliseconds = 86_400_000
    return options
  }

  private func open(
    _ files: LogFiles, _ clock: ManualClock, _ options: CommitLogOptions
  ) throws -> (CommitLog, RecoveryReport) {
    try CommitLog.open(
      storage: DirectoryStorage(owning: files.path + "/log"), options: options, clock: clock.clock)
  }

  private func maintain(_ log: CommitLog, rounds: Int = 3) async {
    for _ in 0..<rounds {
      await withCheckedContinuation { continuation in log.maintain { continuation.resume() } }
      // Trims are committed like everything else: the next commit is behind them.
      try? await log.deleteGroup("nobody")
    }
  }

  private func bytes(_ files: LogFiles) throws -> Int {
    try files.segments().reduce(0) { try $0 + files.read($1).count }
  }

  /// All records of a partition from its start on.
  private func records(
    _ log: CommitLog, _ partition: TopicPartition
  ) async throws -> [(offset: Int64, key: String?, value: String?)] {
    var found: [(offset: Int64, key: String?, value: String?)] = []
    var next = try await log.bounds(of: partition).start
    let start = next
    while true {
      let result = try await log.read(partition, from: next, maxBytes: 3_000)
      if result.batches.isEmpty {
        #expect(result.nextOffset == result.bounds.end)
        return found
      }
      for batch in result.batches {
        found += try SampleBatch.pairs(in: batch).filter { $0.offset >= start }
      }
      #expect(result.nextOffset > next)
      next = result.nextOffset
    }
  }

  @Test("records older than their topic allows are given up, and their space becomes free")
  func age() async throws {
    let files = LogFiles()
    let clock = ManualClock()
    let (log, _) = try open(files, clock, small())
    let partition = TopicPartition("a", 0)
    try await log.createTopic("a", configuration: TopicConfiguration(partitions: 1, retentionMilliseconds: 1_000))
    for number in 0..<400 {
      clock.advance(10)
      try await log.commit(
        Transaction(
          durability: .os,
          appends: [
            SampleBatch.append(
              pairs: [("\(number)", String(repeating: "x", count: 1_000))], to: partition, timestamp: clock.now)
          ]))
    }
    let before = try bytes(files)
    await maintain(log)
    let bounds = try await log.bounds(of: partition)
    #expect(bounds == PartitionBounds(start: 299, end: 400))
    let kept = try await records(log, partition)
    #expect(kept.map(\.offset) == Array(299..<400))
    let after = try bytes(files)
    #expect(after < before * 3 / 5, "\(before) before, \(after) now")
    await log.close()
    #expect(try CommitLog.verify(directory: files.path).problems.map(\.description) == [])
  }

  @Test("a partition larger than its topic allows loses its oldest records, but for those still to be consumed")
  func size() async throws {
    let files = LogFiles()
    let (log, _) = try open(files, ManualClock(), small())
    let spared = TopicPartition("spared", 0)
    let dropped = TopicPartition("dropped", 0)
    try await log.createTopic("spared", configuration: TopicConfiguration(partitions: 1, retentionBytes: 20_000))
    try await log.createTopic(
      "dropped", configuration: TopicConfiguration(partitions: 1, retentionBytes: 20_000, dropsUnconsumed: true))
    for partition in [spared, dropped] {
      try await log.commit(
        Transaction(offsets: [.init(group: "g", partition: partition, committed: CommittedOffset(offset: 0))]))
    }
    for number in 0..<300 {
      for partition in [spared, dropped] {
        try await append(log, ["\(number)", String(repeating: "x", count: 1_000)], to: partition, durability: .os)
      }
    }
    await maintain(log)
    #expect(try await log.bounds(of: spared) == PartitionBounds(start: 0, end: 600))
    let bounds = try await log.bounds(of: dropped)
    #expect(bounds.end == 600 && (556...564).contains(bounds.start), "\(bounds)")
    try await log.commit(
      Transaction(offsets: [.init(group: "g", partition: spared, committed: CommittedOffset(offset: 500))]))
    await maintain(log)
    #expect(try await log.bounds(of: spared) == PartitionBounds(start: 500, end: 600))
    try await log.deleteGroup("g")
    await maintain(log)
    #expect(try await log.bounds(of: spared).start > 550)
    await log.close()
  }

  @Test("a topic with little traffic that is kept for ever does not pin the segments of a busy one")
  func pinned() async throws {
    let files = LogFiles()
    let (log, _) = try open(files, ManualClock(), small())
    let quiet = TopicPartition("quiet", 0)
    let busy = TopicPartition("busy", 0)
    try await log.createTopic("quiet", configuration: TopicConfiguration(partitions: 1))
    try await log.createTopic("busy", configuration: TopicConfiguration(partitions: 1, retentionBytes: 100_000))
    for number in 0..<2_000 {
      if number % 50 == 0 { try await append(log, ["kept \(number)"], to: quiet, durability: .os) }
      try await append(log, [String(repeating: "x", count: 2_000)], to: busy, durability: .os)
    }
    let before = try bytes(files)
    await maintain(log)
    #expect(before > 4_000_000)
    let after = try bytes(files)
    #expect(after < 500_000, "\(after) bytes left")
    #expect(try files.segments().count < 10)
    #expect(try await records(log, quiet).map(\.value) == stride(from: 0, to: 2_000, by: 50).map { "kept \($0)" })
    await log.close()
    #expect(try CommitLog.verify(directory: files.path).problems.map(\.description) == [])
  }

  @Test("compaction keeps the last value of every key, in place, and forgets old tombstones")
  func compaction() async throws {
    let files = LogFiles()
    let clock = ManualClock()
    var options = small()
    options.tombstoneMilliseconds = 1_000
    let (log, _) = try open(files, clock, options)
    let partition = TopicPartition("a", 0)
    try await log.createTopic("a", configuration: TopicConfiguration(partitions: 1, cleanup: .compact))
    var last: [String: (offset: Int64, value: String?)] = [:]
    for number in 0..<1_500 {
      let key = "key \(number % 7)"
      let value = number % 7 == 3 && number > 700 ? nil : String(repeating: "v", count: 200) + "\(number)"
      try await log.commit(
        Transaction(durability: .os, appends: [SampleBatch.append(pairs: [(key, value)], to: partition)]))
      last[key] = (Int64(number), value)
    }
    clock.advance(2_000)
    // Fills the segment up, so that what counts is in sealed ones.
    let filler = TopicPartition("filler", 0)
    try await log.createTopic("filler", configuration: TopicConfiguration(partitions: 1))
    for _ in 0..<70 { try await append(log, [String(repeating: "x", count: 2_000)], to: filler, durability: .os) }
    await maintain(log)
    let found = try await records(log, partition)
    let expected = last.filter { $0.value.value != nil }.sorted { $0.value.offset < $1.value.offset }
    #expect(found.map(\.offset) == expected.map(\.value.offset))
    #expect(found.map(\.value) == expected.map(\.value.value))
    #expect(try await log.bounds(of: partition) == PartitionBounds(start: 0, end: 1_500))
    await log.close()
    #expect(try CommitLog.verify(directory: files.path).problems.map(\.description) == [])
  }

  @Test(
    "whatever is trimmed, compacted, deleted and merged, readers and every kind of start see what a plain model sees",
    arguments: seeds())
  func againstModel(_ seed: Int) async throws {
    let files = LogFiles()
    let clock = ManualClock()
    var random = SplitMix(state: UInt64(seed))
    var options = small()
    options.cleanableShare = [0.05, 0.5, 1][seed % 3]
    options.tailCacheBytes = [0, 200_000][seed % 2]
    options.tombstoneMilliseconds = 500
    options.compactionBytes = 1 << 16
    var (log, _) = try open(files, clock, options)
    var model = CleaningModel()
    for round in 0..<6 {
      for _ in 0..<120 {
        try await model.step(log, clock, &random)
        if random.next() % 25 == 0 { await maintain(log, rounds: 1) }
      }
      await maintain(log, rounds: 2)
      try await model.check(log, "seed \(seed), round \(round), running")
      await log.close()
      #expect(try CommitLog.verify(directory: files.path).problems.map(\.description) == [], "seed \(seed)")
      // Accelerators may be missing, damaged or there.
      for name in try FileManager.default.contentsOfDirectory(atPath: files.path + "/log") {
        guard name.hasSuffix(".checkpoint") || name.hasSuffix(".index") else { continue }
        switch random.next() % 4 {
        case 0: try FileManager.default.removeItem(atPath: files.path + "/log/" + name)
        case 1:
          var bytes = try files.read(name)
          bytes[Int(random.next() % UInt64(bytes.count))] ^= 1
          try files.write(bytes, to: name)
        default: break
        }
      }
      (log, _) = try open(files, clock, options)
      try await model.check(log, "seed \(seed), round \(round), opened")
    }
    await log.close()
    _ = try files.takeCheckpoints()
    (log, _) = try open(files, clock, options)
    try await model.check(log, "seed \(seed), read from the beginning")
    await log.close()
  }
}

/// What a log should hold, kept in the plainest way.
struct CleaningModel {
  struct Record {
    var offset: Int64
    var key: String?
    var value: String?
  }

  struct Topic {
    var configuration: TopicConfiguration
    var partitions: [[Record]]
    var starts: [Int64]
  }

  var topics: [String: Topic] = [:]
  var groups: [String: [TopicPartition: CommittedOffset]] = [:]
  private var made = 0

  mutating func step(_ log: CommitLog, _ clock: ManualClock, _ random: inout SplitMix) async throws {
    clock.advance(Int64(random.next() % 20))
    let names = topics.keys.sorted()
    let choice = random.next() % 100
    if names.isEmpty || (choice < 2 && names.count < 5) {
      made += 1
      let name = names.contains("t0") ? "t\(made)" : "t0"
      let configuration = TopicConfiguration(
        partitions: Int32(random.next() % 3 + 1), cleanup: random.next() % 2 == 0 ? .delete : .compact)
      try await log.createTopic(name, configuration: configuration)
      let count = Int(configuration.partitions)
      topics[name] = Topic(
        configuration: configuration, partitions: [[Record]](repeating: [], count: count),
        starts: [Int64](repeating: 0, count: count))
      return
    }
    let name = names[Int(random.next() % UInt64(names.count))]
    let number = Int(random.next() % UInt64(topics[name]!.partitions.count))
    let partition = TopicPartition(name, Int32(number))
    let end = Int64(topics[name]!.partitions[number].count)
    switch choice {
    case ..<3:
      try await log.deleteTopic(name)
      topics[name] = nil
      groups = groups.mapValues { $0.filter { $0.key.topic != name } }.filter { !$0.value.isEmpty }
    case ..<8:
      let start = Int64(random.next() % UInt64(end + 1))
      try await log.deleteRecords(of: partition, before: start)
      topics[name]!.starts[number] = max(topics[name]!.starts[number], start)
    case ..<10:
      let group = "g\(random.next() % 3)"
      try await log.deleteGroup(group)
      groups[group] = nil
    case ..<20:
      let group = "g\(random.next() % 3)"
      let committed = CommittedOffset(offset: Int64(random.next() % UInt64(end + 1)), metadata: [UInt8(choice)])
      try await log.commit(
        Transaction(durability: .os, offsets: [.init(group: group, partition: partition, committed: committed)]))
      groups[group, default: [:]][partition] = committed
    default:
      var pairs: [(key: String?, value: String?)] = []
      for _ in 0..<(random.next() % 8 + 1) {
        let key = random.next() % 10 == 0 ? nil : "k\(random.next() % 20)"
        let value = random.next() % 6 == 0 ? nil : String(repeating: "v", count: Int(random.next() % 1_500))
        pairs.append((key, value))
      }
      try await log.commit(
        Transaction(durability: .os, appends: [SampleBatch.append(pairs: pairs, to: partition, timestamp: clock.now)]))
      for (key, value) in pairs {
        let offset = Int64(topics[name]!.partitions[number].count)
        topics[name]!.partitions[number].append(Record(offset: offset, key: key, value: value))
      }
    }
  }

  func check(_ log: CommitLog, _ comment: Comment) async throws {
    #expect(try await log.topics().map(\.name) == topics.keys.sorted(), comment)
    for group in ["g0", "g1", "g2"] {
      #expect(try await log.committedOffsets(group: group) == groups[group] ?? [:], comment)
    }
    for (name, topic) in topics {
      for number in topic.partitions.indices {
        try await check(log, TopicPartition(name, Int32(number)), topic, number, comment)
      }
    }
  }

  private func check(
    _ log: CommitLog, _ partition: TopicPartition, _ topic: Topic, _ number: Int, _ comment: Comment
  ) async throws {
    let all = topic.partitions[number]
    let start = topic.starts[number]
    let bounds = try await log.bounds(of: partition)
    try #require(bounds == PartitionBounds(start: start, end: Int64(all.count)), comment)
    var last: [String: Int64] = [:]
    for record in all { if let key = record.key { last[key] = record.offset } }
    var found: [Int64: (key: String?, value: String?)] = [:]
    var next = start
    while next < bounds.end {
      let result = try await log.read(partition, from: next, maxBytes: 5_000)
      for batch in result.batches {
        for record in try SampleBatch.pairs(in: batch) where record.offset >= next {
          #expect(found.updateValue((record.key, record.value), forKey: record.offset) == nil, comment)
        }
      }
      guard result.nextOffset > next else {
        Issue.record("no progress at \(next) of \(partition): \(comment)")
        return
      }
      next = result.nextOffset
    }
    for record in all where record.offset >= start {
      if let there = found.removeValue(forKey: record.offset) {
        #expect(there.key == record.key && there.value == record.value, comment)
        continue
      }
      // Gone: only a compacted topic may lose it, if it was superseded or is a tombstone. That consumers are waited for is
      // the simulation's to check: here groups go back as they like.
      #expect(topic.configuration.cleanup == .compact, "\(partition) \(record.offset): \(comment)")
      let superseded = record.key.map { last[$0]! > record.offset } ?? false
      #expect(superseded || (record.key != nil && record.value == nil), "\(partition) \(record.offset): \(comment)")
    }
    #expect(found.isEmpty, comment)
  }
}
