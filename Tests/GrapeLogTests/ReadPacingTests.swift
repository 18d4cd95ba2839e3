@testable import GrapeCommitLog
import Glibc
import GrapeLog
import GrapeTestKit
import Testing

private let microsecond: Int64 = 1_000
private let millisecond: Int64 = 1_000_000

/// A writer and a reader who ask `ReadPacing`, and the time.
private struct Course {
  enum Reader {
    case waiting(asked: Int64, until: Int64)
    case reading(from: Int64, until: Int64)
  }

  var pacing = ReadPacing()
  var now: Int64 = 0
  var isWriting = false
  var writerAt: Int64 = 0
  var reader = Reader.waiting(asked: 0, until: 0)
  var pieces = 0
  var readTime: Int64 = 0
  var longestWait: Int64 = 0
  var idleAnswers = 0

  /// Lets time pass. A reader that is woken needs `waking` to get up.
  mutating func run(
    for duration: Int64, waking: Int64 = 50 * microsecond, group: () -> Int64, gap: () -> Int64, piece: () -> Int64
  ) {
    let end = now + duration
    while now < end, idleAnswers < 100 {
      let readerAt =
        switch reader {
        case .waiting(_, let until), .reading(_, let until): until
        }
      now = min(writerAt, readerAt)
      if writerAt <= readerAt { write(group, gap, waking) } else { read(piece) }
    }
  }

  private mutating func write(_ group: () -> Int64, _ gap: () -> Int64, _ waking: Int64) {
    if isWriting {
      pacing.groupEnded(at: now)
      writerAt = now + gap()
      if case .waiting(let asked, let until) = reader, pacing.isAwaited {
        reader = .waiting(asked: asked, until: min(until, now + waking))
      }
    } else {
      pacing.groupBegan(at: now)
      writerAt = now + group()
    }
    isWriting.toggle()
  }

  private mutating func read(_ piece: () -> Int64) {
    switch reader {
    case .reading(let began, _):
      pacing.pieceRead(from: began, to: now)
      readTime += now - began
      pieces += 1
      ask(since: now, piece)
    case .waiting(let asked, _): ask(since: asked, piece)
    }
  }

  private mutating func ask(since asked: Int64, _ piece: () -> Int64) {
    switch pacing.turn(at: now, asked: asked) {
    case .piece:
      longestWait = max(longestWait, now - asked)
      reader = .reading(from: now, until: now + piece())
    case .wait(let until):
      if until <= now { idleAnswers += 1 }
      reader = .waiting(asked: asked, until: max(until, now + 1))
    }
  }
}

@Suite struct ReadPacingTests {
  @Test func withoutCommitsReadsAreFree() {
    var pacing = ReadPacing()
    #expect(pacing.isFree(at: 0))
    pacing.groupBegan(at: 10)
    #expect(!pacing.isFree(at: 10 + ReadPacing.quiet))
    pacing.groupEnded(at: 20)
    #expect(!pacing.isFree(at: 20 + ReadPacing.quiet - 1))
    #expect(pacing.isFree(at: 20 + ReadPacing.quiet))
  }

  @Test func aReadWaitsForTheEndOfAGroupAndThenHasItsTurnThoughTheNextHasBegun() {
    var pacing = ReadPacing()
    pacing.groupBegan(at: 0)
    guard case .wait = pacing.turn(at: 1, asked: 1) else {
      Issue.record("a piece beside a group")
      return
    }
    #expect(pacing.isAwaited)
    pacing.groupEnded(at: 5 * millisecond)
    pacing.groupBegan(at: 5 * millisecond + 1)
    #expect(pacing.turn(at: 5 * millisecond + 2, asked: 1) == .piece)
    // Once.
    #expect(pacing.turn(at: 5 * millisecond + 3, asked: 5 * millisecond + 3) != .piece)
  }

  @Test func aGroupThatDoesNotEndHoldsUpAReadNoLongerThanPatienceLasts() {
    var pacing = ReadPacing()
    pacing.groupBegan(at: 0)
    #expect(pacing.turn(at: 7, asked: 7) == .wait(until: 7 + ReadPacing.patience))
    #expect(pacing.turn(at: 7 + ReadPacing.patience, asked: 7) == .piece)
  }

  @Test(arguments: [(2_000, 100, 500), (150, 60, 700), (20_000, 10, 400), (500, 0, 3_000)])
  func besideABusyWriterReadsTakeTheirShareAndNoMore(group: Int64, gap: Int64, piece: Int64) {
    var course = Course()
    course.run(
      for: 10_000 * millisecond, group: { group * microsecond }, gap: { gap * microsecond },
      piece: { piece * microsecond })
    let share = Double(course.readTime) / Double(course.now)
    #expect(share < Double(ReadPacing.sharePercent) / 100 + 0.01, "\(course.pieces) pieces")
    #expect(share > Double(ReadPacing.sharePercent) / 200 || group == 20_000, "\(course.pieces) pieces")
    #expect(course.longestWait <= ReadPacing.patience)
  }

  @Test func besideAWriterThatSeldomWritesReadsTakeMostOfTheTime() {
    var course = Course()
    course.run(
      for: 10_000 * millisecond, group: { 200 * microsecond }, gap: { 20 * millisecond }, piece: { 500 * microsecond })
    #expect(Double(course.readTime) / Double(course.now) > 0.8)
  }

  @Test func noReadIsStarvedWhateverTheWriterDoes() {
    for seed in UInt64(1)...200 {
      var random = SplitMix(state: seed)
      func draw(_ most: Int64) -> Int64 {
        // Short ones and long ones alike.
        let bits = Int64.random(in: 0..<22, using: &random)
        return min(most, Int64.random(in: 0...(1024 << bits), using: &random))
      }
      var course = Course()
      course.run(
        for: 20_000 * millisecond, waking: draw(millisecond), group: { draw(5_000 * millisecond) },
        gap: { draw(300 * millisecond) }, piece: { draw(80 * millisecond) })
      #expect(course.longestWait <= ReadPacing.patience, "seed \(seed)")
      #expect(course.idleAnswers == 0, "seed \(seed): told to ask again at once")
      #expect(course.pieces > 80, "seed \(seed)")
    }
  }

  @Test func timesInTheWrongOrderGiveNothingAndTakeNothing() {
    var (right, wrong) = (ReadPacing(), ReadPacing())
    right.groupBegan(at: 5 * millisecond)
    wrong.groupBegan(at: 5 * millisecond)
    wrong.pieceRead(from: 2 * millisecond, to: 2 * millisecond)
    #expect(wrong.turn(at: 4 * millisecond, asked: 4 * millisecond) != .piece)
    right.groupEnded(at: 6 * millisecond)
    wrong.groupEnded(at: 6 * millisecond)
    #expect(
      right.turn(at: 7 * millisecond, asked: 7 * millisecond) == wrong.turn(at: 7 * millisecond, asked: 4 * millisecond)
    )
  }

  @Test("a replay from the disk reaches its end beside a writer that never rests", .timeLimit(.minutes(2)))
  func replay() async throws {
    let files = LogFiles()
    var options = CommitLogOptions()
    options.segmentBytes = 1 << 20
    options.tailCacheBytes = 1 << 20
    let (old, new) = (TopicPartition("old", 0), TopicPartition("new", 0))
    let count: Int64 = 200
    try await files.withLog(options) { log, _ in
      for name in ["old", "new"] { try await log.createTopic(name, configuration: TopicConfiguration(partitions: 1)) }
      for number in 0..<count {
        let append = SampleBatch.append(["\(number) " + String(repeating: "x", count: 60_000)], to: old)
        _ = try await log.commit(Transaction(durability: .os, appends: [append]))
      }
    }
    try dropFromPageCache(files)
    try await files.withLog(options) { log, _ in
      let writer = Task {
        var commits = 0
        while !Task.isCancelled {
          _ = try await log.commit(Transaction(appends: [SampleBatch.append(["y"], to: new)]))
          commits += 1
        }
        return commits
      }
      var found: [Int64] = []
      var next: Int64 = 0
      while next < count {
        let result = try await log.read(old, from: next, maxBytes: 200_000)
        found += result.batches.map(\.baseOffset)
        next = result.nextOffset
      }
      writer.cancel()
      #expect(try await writer.value > 0)
      #expect(found == Array(0..<count))
    }
  }

  private func dropFromPageCache(_ files: LogFiles) throws {
    for name in try files.segments() {
      let file = Glibc.open(files.path + "/log/" + name, O_RDONLY)
      try #require(file >= 0)
      defer { close(file) }
      #expect(fdatasync(file) == 0)
      #expect(posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) == 0)
    }
  }
}
