import GrapeLog
import GrapeTestKit
import Testing

@testable import GrapeEngine

@Suite struct OffsetPacingTests {
  @Test func theFirstProgressIsToldAndThenOncePerInterval() {
    var pacing = OffsetPacing()
    var told: [Int64] = []
    for now in stride(from: Int64(0), to: 1000, by: 7) where pacing.progressed(now: now, interval: 100) {
      told.append(now)
    }
    #expect(told.first == 0)
    #expect(told.count == 10)
    #expect(zip(told, told.dropFirst()).allSatisfy { $1 - $0 >= 100 })
  }

  @Test func whatWasNotToldIsDueAfterTheInterval() {
    var pacing = OffsetPacing()
    let told = [1000, 1010, 1090].map { pacing.progressed(now: $0, interval: 100) }
    #expect(told == [true, false, false])
    #expect(pacing.due == 1100)
    pacing.told(now: 1100)
    #expect(pacing.due == nil)
  }

  @Test func withoutIntervalEveryProgressIsTold() {
    var pacing = OffsetPacing()
    let told = [5, 5, 6].map { pacing.progressed(now: $0, interval: 0) }
    #expect(told == [true, true, true])
    #expect(pacing.due == nil)
  }
}

@Suite struct ToldRepliesTests {
  private func transaction(_ values: [String]) -> Transaction {
    Transaction(appends: [SampleBatch.append(values, to: TopicPartition("replies", 0))])
  }

  private func records(_ transaction: Transaction) -> Int32 { transaction.appends.reduce(0) { $0 + $1.recordCount } }

  @Test func whatWasToldGoesWithWhatGoesNextInItsOrder() {
    var kept = ToldReplies()
    for count in 1...3 {
      var told = transaction([String](repeating: "x", count: count))
      kept.gather(&told, isTold: true)
      #expect(told.appends.isEmpty)
    }
    var next = transaction(["a", "b", "c", "d"])
    kept.gather(&next, isTold: false)
    #expect(next.appends.map(\.recordCount) == [1, 2, 3, 4])
    var last = transaction(["z"])
    kept.gather(&last, isTold: false)
    #expect(last.appends.map(\.recordCount) == [1])
  }

  @Test func noMoreIsKeptBackThanThereIsRoomFor() {
    var kept = ToldReplies()
    var most: Int32 = 0
    for _ in 0..<10_000 {
      var told = transaction(["x"])
      kept.gather(&told, isTold: true)
      most = max(most, records(told))
    }
    #expect(most > 1 && most <= 257)
    var large = transaction([String(repeating: "x", count: 100_000)])
    kept.gather(&large, isTold: true)
    #expect(records(large) >= 1)
  }
}
