import GrapeLog
import GrapeWire
import Testing

@testable import GrapeEngine

@Suite struct LaneStateMachineTests {
  /// A lane of a partition with `end` events, all unread.
  private func lane(end: Int64, committed: Int64 = 0, metadata: [UInt8] = []) -> LaneStateMachine {
    LaneStateMachine(
      partition: 0, start: CommittedOffset(offset: committed, metadata: metadata),
      bounds: PartitionBounds(start: 0, end: end))
  }

  private func batch(_ first: Int64, _ last: Int64, bytes: Int = 100) -> LogBatch {
    LogBatch(
      bytes: ByteSlice([UInt8](repeating: 0, count: bytes)), baseOffset: first, lastOffset: last, maxTimestamp: 7)
  }

  private func fill(_ lane: inout LaneStateMachine, _ batches: [LogBatch], end: Int64) {
    guard case .read(let offset) = lane.planFetch(batchBytes: 1000) else {
      Issue.record("the lane asks for nothing")
      return
    }
    lane.read(ReadResult(batches: batches, bounds: PartitionBounds(start: 0, end: end)), from: offset)
  }

  private func deliver(_ lane: inout LaneStateMachine, id: UInt64 = 1, now: Int64 = 0) -> LaneStateMachine.Plan? {
    guard let plan = lane.planDelivery(now: now, batchBytes: 1000) else { return nil }
    lane.delivered(
      .init(id: id, worker: 1, first: plan.first, end: plan.end, bytes: plan.bytes, timestamp: 0, sentAt: now))
    return plan
  }

  @Test func emptyPartitionIsWatched() {
    var lane = lane(end: 0)
    #expect(lane.planFetch(batchBytes: 1000) == .watch(after: 0))
    #expect(lane.planFetch(batchBytes: 1000) == nil, "one request at a time")
    lane.grew(past: 0)
    #expect(lane.planFetch(batchBytes: 1000) == .read(from: 0))
    #expect(lane.hasWork)
  }

  @Test func oneDeliveryAtATimeInOrder() {
    var lane = lane(end: 20)
    fill(&lane, [batch(0, 9), batch(10, 19)], end: 20)
    let plan = deliver(&lane)
    #expect(plan?.first == 0)
    #expect(plan?.end == 20)
    #expect(plan?.attempt == 1)
    #expect(lane.planDelivery(now: 0, batchBytes: 1000) == nil)
    lane.completed(upTo: 20)
    #expect(lane.lag == 0)
    #expect(!lane.hasWork)
  }

  @Test func deliveriesKeepToTheSizeAskedForButHoldOneBatchAtLeast() {
    var lane = lane(end: 30)
    fill(&lane, [batch(0, 9, bytes: 800), batch(10, 19, bytes: 800), batch(20, 29, bytes: 5000)], end: 30)
    #expect(deliver(&lane)?.end == 10)
    lane.completed(upTo: 10)
    #expect(deliver(&lane)?.end == 20)
    lane.completed(upTo: 20)
    #expect(deliver(&lane)?.end == 30)
  }

  @Test func readingGoesOnWhileADeliveryIsOut() {
    var lane = lane(end: 20)
    fill(&lane, [batch(0, 9)], end: 20)
    _ = deliver(&lane)
    #expect(lane.planFetch(batchBytes: 1000) == .read(from: 10))
  }

  @Test func restartInTheMiddleOfABatchRunsTheRestOnly() {
    var lane = lane(end: 10, committed: 4)
    fill(&lane, [batch(0, 9)], end: 10)
    let plan = deliver(&lane)
    #expect(plan?.first == 4)
    #expect(plan?.end == 10)
  }

  @Test func deathOfAWorkerSetsEventsApartUntilTheOneAtFaultStandsAlone() {
    var lane = lane(end: 3)
    fill(&lane, [batch(0, 2)], end: 3)
    #expect(deliver(&lane)?.end == 3)
    let mustCommit = lane.workerDied(now: 0, delay: 5, isAlone: true)
    #expect(mustCommit)
    #expect(deliver(&lane) == nil, "the attempt is not on disk yet")
    lane.attemptCommitted()
    let first = deliver(&lane)
    #expect(first?.first == 0)
    #expect(first?.end == 1)
    #expect(first?.attempt == 2)
    lane.completed(upTo: 1)
    #expect(deliver(&lane)?.first == 1)
    let again = lane.workerDied(now: 100, delay: 5, isAlone: true)
    #expect(again)
    #expect(lane.failuresOfHead == 1)
    lane.attemptCommitted()
    #expect(deliver(&lane, now: 104) == nil, "the retry waits")
    #expect(deliver(&lane, now: 105)?.attempt == 3)
    lane.released()
    lane.skippedHead()
    #expect(lane.failuresOfHead == 0)
    #expect(deliver(&lane, now: 105)?.first == 2)
  }

  @Test func suspectsAndAttemptsSurviveTheNode() {
    var before = lane(end: 5)
    fill(&before, [batch(0, 4)], end: 5)
    _ = deliver(&before)
    _ = before.workerDied(now: 0, delay: 0, isAlone: true)
    before.attemptCommitted()
    _ = deliver(&before)
    _ = before.workerDied(now: 0, delay: 0, isAlone: true)
    #expect(before.failuresOfHead == 1)
    var after = lane(end: 5, committed: before.processed, metadata: before.metadata)
    #expect(after.failuresOfHead == 1)
    fill(&after, [batch(0, 4)], end: 5)
    #expect(deliver(&after)?.end == 1)
  }

  @Test func notesOfAnotherVersionAreIgnored() {
    let lane = lane(end: 5, metadata: [9, 9, 9])
    #expect(lane.failuresOfHead == 0)
    #expect(lane.metadata.isEmpty)
  }

  @Test func aFailedEventKeepsTheEventsBehindItBack() {
    var lane = lane(end: 10)
    fill(&lane, [batch(0, 9)], end: 10)
    _ = deliver(&lane)
    lane.completed(upTo: 3)
    lane.headFailed(now: 1000, delay: 50)
    #expect(deliver(&lane, now: 1049) == nil)
    let retry = deliver(&lane, now: 1050)
    #expect(retry?.first == 3)
    #expect(retry?.attempt == 2)
  }

  @Test func whatWasReadFromTheWrongPlaceIsDropped() {
    var lane = lane(end: 20)
    #expect(lane.planFetch(batchBytes: 1000) == .read(from: 0))
    lane.read(ReadResult(batches: [batch(5, 9)], bounds: PartitionBounds(start: 0, end: 20)), from: 5)
    #expect(lane.planDelivery(now: 0, batchBytes: 1000) == nil)
    #expect(lane.planFetch(batchBytes: 1000) == .read(from: 0))
  }

  @Test func offsetsThatNoBatchHoldsAreLeftBehind() {
    var lane = lane(end: 40)
    fill(&lane, [batch(10, 14), batch(30, 31)], end: 40)
    #expect(lane.processed == 10)
    let plan = deliver(&lane)
    #expect(plan?.first == 10)
    #expect(plan?.end == 32)
    fill(&lane, [], end: 40)
    #expect(lane.planFetch(batchBytes: 1000) == .watch(after: 40))
    lane.completed(upTo: 15)
    #expect(lane.processed == 30)
    #expect(deliver(&lane)?.first == 30)
    lane.completed(upTo: 32)
    #expect(lane.processed == 40)
    #expect(!lane.hasWork)
    lane.grew(past: 40)
    #expect(lane.planFetch(batchBytes: 1000) == .read(from: 40))
  }

  @Test func whatWasReadBeforeItWasDroppedIsStillDelivered() {
    var lane = lane(end: 40)
    fill(&lane, [batch(0, 9)], end: 40)
    #expect(lane.planFetch(batchBytes: 1000) == .read(from: 10))
    lane.skip(to: PartitionBounds(start: 20, end: 40))
    #expect(deliver(&lane)?.end == 10)
    lane.completed(upTo: 10)
    #expect(lane.processed == 20)
    #expect(lane.planFetch(batchBytes: 1000) == .read(from: 20))
  }

  /// A batch that covers `range` and holds records at `kept` only.
  private func batch(_ range: ClosedRange<Int64>, keeping kept: Set<Int64>) throws -> LogBatch? {
    var builder = RecordBatchBuilder()
    for offset in range {
      builder.append(key: nil, value: ByteSlice("\(offset)"), headerSection: HeaderSection.empty, timestamp: offset)
    }
    var bytes = try builder.take().bytes
    RecordBatch.setBaseOffset(range.lowerBound, in: UnsafeMutableRawBufferPointer(mutating: bytes.unsafeBytes))
    switch try RecordBatch.filtering(bytes, checkingCRC: true, limit: 1 << 20, keeping: { kept.contains($0.offset) }) {
    case .unchanged: break
    case .empty: return nil
    case .batch(let filtered): bytes = filtered
    }
    return LogBatch(bytes: bytes, baseOffset: range.lowerBound, lastOffset: range.upperBound, maxTimestamp: 7)
  }

  @Test func suspectsInABatchWithGapsStandAloneOneByOne() throws {
    var lane = lane(end: 100)
    let batch = try #require(try batch(0...99, keeping: [7, 50, 51]))
    fill(&lane, [batch], end: 100)
    #expect(deliver(&lane)?.end == 100)
    let died = lane.workerDied(now: 0, delay: 0, isAlone: true)
    #expect(died)
    lane.attemptCommitted()
    for offset in [Int64(7), 50, 51] {
      let plan = deliver(&lane)
      #expect(plan?.first == offset)
      #expect(plan?.end == offset + 1)
      let diedAgain = lane.workerDied(now: 0, delay: 0, isAlone: true)
      #expect(diedAgain)
      #expect(lane.failuresOfHead == 1)
      #expect(lane.processed == offset)
      lane.attemptCommitted()
      lane.skippedHead()
    }
    #expect(deliver(&lane) == nil)
    #expect(!lane.hasWork)
  }

  @Test func everyRecordOfALogWithGapsIsDealtWithOnceInOrderWhateverHappens() throws {
    for seed in UInt64(1)...300 {
      var random = SeededGenerator(seed: seed)
      let total = Int64.random(in: 1...80, using: &random)
      let rate = Int.random(in: 1...5, using: &random)
      let kept = Set((0..<total).filter { _ in Int.random(in: 0..<5, using: &random) < rate })
      var batches: [LogBatch] = []
      var next: Int64 = 0
      while next < total {
        let last = min(total - 1, next + Int64.random(in: 0...12, using: &random))
        if let batch = try batch(next...last, keeping: kept) { batches.append(batch) }
        next = last + 1
      }
      var lane = lane(end: total)
      var done: [Int64] = []
      var position: Int64 = 0
      var steps = 0
      while lane.hasWork, steps < 10_000 {
        steps += 1
        let now = Int64(steps) * 1000
        if case .read(let offset) = lane.planFetch(batchBytes: 500) {
          let found = batches.filter { $0.lastOffset >= offset }.prefix(Int.random(in: 1...3, using: &random))
          lane.read(ReadResult(batches: Array(found), bounds: PartitionBounds(start: 0, end: total)), from: offset)
        }
        guard let plan = deliver(&lane, now: now) else { continue }
        let events = kept.filter { $0 >= plan.first && $0 < plan.end }.sorted()
        switch Int.random(in: 0..<8, using: &random) {
        case 0...3: lane.completed(upTo: plan.end)
        case 4 where !events.isEmpty:
          lane.completed(upTo: events.randomElement(using: &random)!)
          lane.headFailed(now: now, delay: 10)
          #expect(kept.contains(lane.processed), "seed \(seed)")
        case 5: lane.released()
        default:
          if lane.workerDied(now: now, delay: 10, isAlone: true) { lane.attemptCommitted() }
          if lane.failuresOfHead > 0 { #expect(kept.contains(lane.processed), "seed \(seed)") }
        }
        done += kept.filter { $0 >= position && $0 < lane.processed }.sorted()
        position = lane.processed
      }
      #expect(!lane.hasWork, "seed \(seed)")
      done += kept.filter { $0 >= position }.sorted()
      #expect(done == kept.sorted(), "seed \(seed)")
    }
  }

  @Test func everyEventIsDeliveredAndDealtWithOnceInOrderWhateverHappens() {
    for seed in UInt64(1)...300 {
      var random = SeededGenerator(seed: seed)
      let total = Int64.random(in: 1...60, using: &random)
      var lane = lane(end: total)
      var committed: Int64 = 0
      var started: [Int64: Int] = [:]
      var steps = 0
      while committed < total, steps < 10_000 {
        steps += 1
        if case .read(let offset) = lane.planFetch(batchBytes: 300) {
          let last = min(total - 1, offset + Int64.random(in: 0...9, using: &random))
          lane.read(
            ReadResult(batches: [batch(offset, last)], bounds: PartitionBounds(start: 0, end: total)), from: offset)
        }
        guard let plan = deliver(&lane, now: Int64(steps) * 1000) else { continue }
        #expect(plan.first == committed, "seed \(seed)")
        switch Int.random(in: 0..<10, using: &random) {
        case 0...5: lane.completed(upTo: plan.end)
        case 6:
          lane.completed(upTo: Int64.random(in: plan.first..<plan.end, using: &random))
          lane.headFailed(now: Int64(steps) * 1000, delay: 10)
        case 7: lane.released()
        default:
          if lane.workerDied(now: Int64(steps) * 1000, delay: 10, isAlone: true) { lane.attemptCommitted() }
        }
        for offset in committed..<max(committed, lane.processed) { started[offset, default: 0] += 1 }
        committed = lane.processed
      }
      #expect(committed == total, "seed \(seed)")
      #expect(started.values.allSatisfy { $0 == 1 }, "seed \(seed)")
    }
  }
}

/// SplitMix64: repeatable from its seed.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var value = state
    value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
    return value ^ (value >> 31)
  }
}
