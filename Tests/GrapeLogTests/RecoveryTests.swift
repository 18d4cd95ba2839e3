import Foundation
import GrapeCommitLog
import GrapeLog
import GrapeTestKit
import Testing

@Suite("Recovery of the embedded log") struct RecoveryTests {
  private let partition = TopicPartition("a", 0)

  /// A log with three commits, closed in order; the last one is a group by itself.
  private func threeCommits() async throws -> LogFiles {
    let files = LogFiles()
    try await files.withLog { log, _ in
      try await log.createTopic("a", configuration: TopicConfiguration(partitions: 1))
      for value in ["one", "two", "three"] { try await append(log, [value]) }
    }
    return files
  }

  @Test("a torn last group is cut wherever it was torn, with a copy of what was cut, and the rest is intact")
  func tornAnywhere() async throws {
    let files = try await threeCommits()
    let name = try files.segments()[0]
    let whole = try files.read(name)
    let group = try files.groups().last!
    let last = Int(group.fileOffset)
    for length in last..<whole.count {
      try files.write(whole[..<length], to: name)
      try await files.withLog { log, report in
        let torn = whole[last..<length]
        // The zeros that pad a group are no part of it.
        let isWhole = length >= last + group.bytes
        #expect(report.cuts.count == (torn.isEmpty || isWhole ? 0 : 1), "at \(length)")
        if let cut = report.cuts.first {
          let copy = [UInt8](try Data(contentsOf: URL(filePath: cut.copy)))
          #expect(copy == Array(torn[...torn.lastIndex { $0 != 0 }!]))
          #expect(cut.position == Int64(last))
          #expect(cut.bytes == Int64(copy.count))
          try FileManager.default.removeItem(atPath: cut.copy)
        }
        let expected = isWhole ? ["one", "two", "three"] : ["one", "two"]
        try await expectValues(log, partition, expected, "at \(length)")
        let offset = try await append(log, ["new"])
        #expect(offset == Int64(expected.count))
      }
      try await files.withLog { log, report in
        #expect(report.cuts.isEmpty)
        let last = try await values(log, partition).last
        #expect(last == "new")
      }
    }
  }

  @Test("a flipped bit anywhere in the last group cuts that group, and nothing of it comes back later")
  func flippedAnywhere() async throws {
    let files = try await threeCommits()
    let name = try files.segments()[0]
    let whole = try files.read(name)
    let last = try files.groups().last!
    let start = Int(last.fileOffset)
    for place in start..<start + last.bytes {
      var damaged = whole
      damaged[place] ^= UInt8(1 << (place % 8))
      try files.write(damaged, to: name)
      try await files.withLog { log, report in
        #expect(report.cuts.count == 1, "byte \(place)")
        try await expectValues(log, partition, ["one", "two"])
        try await append(log, ["x"])
      }
      try await files.withLog { log, _ in try await expectValues(log, partition, ["one", "two", "x"]) }
      for cut in try FileManager.default.contentsOfDirectory(atPath: files.path + "/log") where cut.hasPrefix("cut-") {
        try FileManager.default.removeItem(atPath: files.path + "/log/" + cut)
      }
    }
  }

  @Test("damage in a group that later groups know to have been on the disk is an error, not a cut")
  func damagedDurable() async throws {
    let files = try await threeCommits()
    let name = try files.segments()[0]
    let whole = try files.read(name)
    let groups = try files.groups()
    for group in groups.dropLast() {
      for place in [0, 5, 9, 20, 45, group.bytes - 1] {
        var damaged = whole
        damaged[Int(group.fileOffset) + place] ^= 0x10
        try files.write(damaged, to: name)
        let error = await logError { _ = try files.open() }
        #expect(error?.code == .corrupt)
        #expect(error?.message.contains(name) == true)
        #expect(error?.message.contains("byte \(group.fileOffset)") == true)
        #expect(try files.read(name) == damaged, "a refused file is left alone")
      }
    }
    try files.write(whole, to: name)
    try await files.withLog { log, _ in try await expectValues(log, partition, ["one", "two", "three"]) }
  }

  @Test("a stale group with a higher sequence behind a torn one does not come back")
  func staleGroup() async throws {
    let files = LogFiles()
    var options = CommitLogOptions()
    options.segmentBytes = 1 << 20
    try await files.withLog(options) { log, _ in
      try await log.createTopic("a", configuration: TopicConfiguration(partitions: 1))
      // Not durable, so no later group vouches for the one that will be torn.
      for value in ["one", "two", "three"] { try await append(log, [value], durability: .os) }
    }
    let name = try files.segments()[0]
    var bytes = try files.read(name)
    let second = try files.groups()[2]
    bytes[Int(second.fileOffset) + 70] ^= 1
    try files.write(bytes, to: name)
    try await files.withLog(options) { log, report in
      #expect(report.cuts.count == 1)
      try await expectValues(log, partition, ["one"])
      // Of the same size as the torn one, so that the stale one would stand right behind it.
      try await append(log, ["TWO"], durability: .os)
      // As a crash would leave it: closing cuts the file to what is used.
      bytes = try files.read(name)
    }
    try files.write(bytes, to: name)
    try await files.withLog(options) { log, report in
      #expect(report.cuts.isEmpty)
      try await expectValues(log, partition, ["one", "TWO"])
    }
  }

  @Test("damage in a sealed segment shows when it is read or verified; a missing or foreign segment when the log opens")
  func sealedSegments() async throws {
    let files = LogFiles()
    var options = CommitLogOptions()
    options.segmentBytes = 1 << 20
    try await files.withLog(options) { log, _ in
      try await log.createTopic("a", configuration: TopicConfiguration(partitions: 1))
      for _ in 0..<40 { try await append(log, [String(repeating: "x", count: 100_000)]) }
    }
    let segments = try files.segments()
    try #require(segments.count >= 4)
    let whole = try files.read(segments[1])
    for place in [5_000, 500_000, whole.count - 20] {
      var damaged = whole
      damaged[place] ^= 1
      try files.write(damaged, to: segments[1])
      try await files.withLog(options) { log, _ in
        let error = await logError { _ = try await values(log, partition) }
        #expect(error?.code == .corrupt)
        #expect(error?.message.contains(segments[1]) == true)
        try await append(log, ["appends go on"])
      }
      // Without checkpoints the whole log is read, and damage is not passed over.
      let checkpoints = try files.takeCheckpoints()
      let error = await logError { _ = try files.open(options) }
      #expect(error?.code == .corrupt)
      #expect(error?.message.contains(segments[1]) == true)
      try files.putBack(checkpoints)
      let report = try CommitLog.verify(directory: files.path)
      #expect(report.problemCount > 0)
      #expect(report.problems.allSatisfy { $0.file.hasSuffix(segments[1]) || $0.file.hasSuffix(segments[2]) })
      #expect(report.problems.contains { $0.partition == partition && $0.offsets != nil })
    }
    // A group zeroed as a whole: the segment ends early, which only the next segment's sequence shows.
    try files.write(whole[..<200_000].map { $0 }, to: segments[1])
    let checkpoints = try files.takeCheckpoints()
    #expect(await logError { _ = try files.open(options) }?.code == .corrupt)
    try FileManager.default.removeItem(atPath: files.path + "/log/" + segments[1])
    let missing = await logError { _ = try files.open(options) }
    #expect(missing?.code == .corrupt)
    #expect(missing?.message.contains(segments[1]) == true)
    let other = LogFiles()
    try await other.withLog(options) { log, _ in
      try await log.createTopic("a", configuration: TopicConfiguration(partitions: 1))
      for _ in 0..<40 { try await append(log, [String(repeating: "x", count: 100_000)]) }
    }
    try files.write(try other.read(segments[1]), to: segments[1])
    #expect(await logError { _ = try files.open(options) }?.message.contains("another log") == true)
    try files.write(whole, to: segments[1])
    try files.putBack(checkpoints)
    try await files.withLog(options) { log, _ in
      let count = try await values(log, partition).count
      #expect(count == 43)
    }
    #expect(try CommitLog.verify(directory: files.path).problemCount == 0)
  }

  @Test("a format newer than this program is refused as such, in the header and in an entry")
  func newerFormat() async throws {
    let files = try await threeCommits()
    let name = try files.segments()[0]
    let whole = try files.read(name)
    var newer = whole
    newer[11] = 3
    try files.write(newer, to: name)
    #expect(await logError { _ = try files.open() }?.code == .unsupportedFormat)
    var damaged = whole
    damaged[33] ^= 1
    try files.write(damaged, to: name)
    #expect(await logError { _ = try files.open() }?.code == .corrupt)
    var foreign = whole
    foreign[0] = 0
    try files.write(foreign, to: name)
    #expect(await logError { _ = try files.open() }?.code == .corrupt)
  }

  @Test("a directory has one owner, and the refusal names its process")
  func lock() async throws {
    let files = LogFiles()
    try await files.withLog { _, _ in
      let error = await logError { _ = try files.open() }
      #expect(error?.code == .locked)
      #expect(error?.message.contains("process \(ProcessInfo.processInfo.processIdentifier)") == true)
    }
    try await files.withLog { _, _ in }
  }

  @Test("a half-made segment file left by a crash is cleared away")
  func draft() async throws {
    let files = try await threeCommits()
    try files.write([1, 2, 3], to: "next.tmp")
    try await files.withLog { log, report in
      #expect(report.cuts.isEmpty)
      try await expectValues(log, partition, ["one", "two", "three"])
    }
  }
}
