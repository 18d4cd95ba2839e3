import Foundation
import GrapeCommitLog
import GrapeLog
import GrapeTestKit
import Testing

@Suite("Repair of a damaged log") struct RepairTests {
  private let partition = TopicPartition("a", 0)
  private let other = TopicPartition("b", 1)

  private var options: CommitLogOptions {
    var options = CommitLogOptions()
    options.smallestSegment = 64 << 10
    options.segmentBytes = 64 << 10
    options.tailCacheBytes = 0
    options.lowSpaceBytes = 0
    return options
  }

  /// A log with two topics, records `0`, `1`, ... in each, over several segments.
  private func log(_ count: Int = 200) async throws -> LogFiles {
    let files = LogFiles()
    try await files.withLog(options) { log, _ in
      try await log.createTopic("a", configuration: TopicConfiguration(partitions: 1))
      try await log.createTopic("b", configuration: TopicConfiguration(partitions: 2))
      for number in 0..<count {
        for place in [partition, other] {
          try await append(log, ["\(number) " + String(repeating: "x", count: 1_000)], to: place)
        }
        if number % 10 == 0 {
          try await log.commit(
            Transaction(offsets: [
              .init(group: "g", partition: partition, committed: CommittedOffset(offset: Int64(number)))
            ]))
        }
      }
    }
    return files
  }

  private func numbers(_ log: CommitLog, _ partition: TopicPartition) async throws -> [Int64: String] {
    var found: [Int64: String] = [:]
    var next = try await log.bounds(of: partition).start
    while true {
      let result = try await log.read(partition, from: next, maxBytes: 10_000)
      for batch in result.batches {
        for record in try SampleBatch.records(in: batch) {
          found[record.offset] = String(record.value.prefix { $0 != " " })
        }
      }
      if result.nextOffset == result.bounds.end { return found }
      next = result.nextOffset
    }
  }

  @Test(
    "what is sound stays under its offsets, what is not is listed and kept aside, and the log goes on",
    arguments: 0..<30)
  func damaged(_ seed: UInt64) async throws {
    var random = SplitMix(state: seed)
    let files = try await log()
    let segments = try files.segments()
    // Not the last one, whose end may be torn.
    let victim = segments[Int(random.next() % UInt64(segments.count - 1))]
    var bytes = try files.read(victim)
    let whole = bytes
    for _ in 0...(random.next() % 3) {
      let place = Int(random.next() % UInt64(bytes.count))
      for offset in place..<min(place + Int(random.next() % 3_000 + 1), bytes.count) {
        bytes[offset] ^= UInt8(truncatingIfNeeded: random.next()) | 1
      }
    }
    if seed % 7 == 6 { bytes = Array(bytes.prefix(5_000)) }
    try files.write(bytes, to: victim)
    if seed % 3 == 0 { _ = try files.takeCheckpoints() }
    let before = try CommitLog.repair(directory: files.path, apply: false)
    #expect(try files.read(victim) == bytes, "without being told to, it changes nothing")
    let report = try CommitLog.repair(directory: files.path, apply: true)
    #expect(before.losses.map(\.offsets) == report.losses.map(\.offsets))
    if report.segments.isEmpty {
      // The damage hit nothing but padding.
      return
    }
    #expect(report.segments.allSatisfy { $0.file.hasSuffix(victim) })
    #expect(try files.read(victim + ".damaged") == bytes)
    let lost = Dictionary(grouping: report.losses, by: \.partition)
    #expect(try CommitLog.repair(directory: files.path, apply: true).segments.isEmpty)
    #expect(try CommitLog.verify(directory: files.path).problems.map(\.description) == [], "seed \(seed)")
    try await files.withLog(options) { log, _ in
      for place in [partition, other] {
        let found = try await numbers(log, place)
        let gone = Set((lost[place] ?? []).flatMap { Array($0.offsets) })
        #expect(Set(found.keys) == Set(0..<200).subtracting(gone), "seed \(seed)")
        #expect(found.allSatisfy { $0.value == "\($0.key)" })
        #expect(try await append(log, ["new"], to: place) == 200)
      }
      #expect(try await log.committedOffsets(group: "g")[partition] == CommittedOffset(offset: 190))
    }
    #expect(report.losses.reduce(0) { $0 + $1.offsets.count } < 200 && whole != bytes)
  }

  @Test("verify names partition and offsets of what it cannot read, also where nothing behind it shows them")
  func named() async throws {
    let files = try await log()
    let group = try files.groups().first { $0.file.hasSuffix(try! files.segments()[1]) && $0.entries.count == 1 }
    let damaged = try #require(group)
    guard case .append(let place, let batch, _) = damaged.entries[0] else { return }
    let name = try files.segments()[1]
    var bytes = try files.read(name)
    bytes[Int(damaged.fileOffset) + 200] ^= 1
    try files.write(bytes, to: name)
    let report = try CommitLog.verify(directory: files.path)
    #expect(
      report.problems.contains {
        $0.partition == place && $0.offsets == batch.baseOffset..<batch.lastOffset + 1
          && $0.message.contains("unreadable")
      }, "\(report.problems)")
  }

  @Test("a missing segment is replaced by an empty one, and offsets go on behind it")
  func missing() async throws {
    let files = try await log()
    let segments = try files.segments()
    try FileManager.default.removeItem(atPath: files.path + "/log/" + segments[1])
    #expect(await logError { _ = try files.open(options) }?.code == .corrupt)
    let report = try CommitLog.repair(directory: files.path, apply: true)
    #expect(report.segments.map(\.copy) == [nil])
    #expect(Set(report.losses.map(\.partition)) == [partition, other])
    try await files.withLog(options) { log, _ in
      let found = try await numbers(log, partition)
      let gone = report.losses.filter { $0.partition == partition }.flatMap { Array($0.offsets) }
      #expect(Set(found.keys) == Set(0..<200).subtracting(gone))
      #expect(try await append(log, ["new"], to: partition) == 200)
    }
  }

  @Test("nothing is repaired where nothing is damaged, under a node, or in a newer format")
  func refusals() async throws {
    let files = try await log(20)
    #expect(try CommitLog.repair(directory: files.path, apply: true).segments.isEmpty)
    try await files.withLog(options) { _, _ in
      #expect(await logError { _ = try CommitLog.repair(directory: files.path, apply: true) }?.code == .locked)
    }
    var bytes = try files.read(try files.segments()[0])
    bytes[11] = 9
    try files.write(bytes, to: try files.segments()[0])
    #expect(await logError { _ = try CommitLog.repair(directory: files.path, apply: true) }?.code == .unsupportedFormat)
  }
}
