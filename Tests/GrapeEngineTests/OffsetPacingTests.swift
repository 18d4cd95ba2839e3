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
