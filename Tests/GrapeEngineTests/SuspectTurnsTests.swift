import Testing

@testable import GrapeEngine

@Suite struct SuspectTurnsTests {
  @Test func aSuspectWaitsForAnIdleWorkerAndIsAloneAtIt() {
    var turns = SuspectTurns()
    turns.begin()
    let beside = turns.admits(suspect: true, isIdle: false)
    let others = turns.admits(suspect: false, isIdle: false)
    #expect(!beside && !others)
    turns.begin()
    let alone = turns.admits(suspect: true, isIdle: true)
    turns.gave(suspect: true)
    let second = turns.admits(suspect: true, isIdle: false)
    let others2 = turns.admits(suspect: false, isIdle: false)
    #expect(alone && !second && !others2)
  }

  @Test func theOthersHaveATurnBetweenTwoSuspects() {
    var turns = SuspectTurns()
    turns.begin()
    let first = turns.admits(suspect: true, isIdle: true)
    #expect(first)
    turns.gave(suspect: true)
    _ = turns.end()
    turns.answered()
    turns.begin()
    let suspect = turns.admits(suspect: true, isIdle: true)
    let other = turns.admits(suspect: false, isIdle: true)
    turns.gave(suspect: false)
    let isDueAgain = turns.end()
    #expect(!suspect && other && isDueAgain)
    turns.begin()
    let waits = turns.admits(suspect: true, isIdle: false)
    let another = turns.admits(suspect: false, isIdle: false)
    #expect(!waits && !another)
    turns.answered()
    turns.begin()
    let goes = turns.admits(suspect: true, isIdle: true)
    #expect(goes)
  }

  @Test func withoutSuspectsNothingIsHeldBack() {
    var turns = SuspectTurns()
    for isIdle in [true, false, false] {
      turns.begin()
      let admitted = turns.admits(suspect: false, isIdle: isIdle)
      turns.gave(suspect: false)
      let isDue = turns.end()
      #expect(admitted && !isDue)
    }
  }
}
