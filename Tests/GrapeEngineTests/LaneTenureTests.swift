import Testing

@testable import GrapeEngine

@Suite("Whether a partition is the engine's")
struct LaneTenureTests {
  @Test("a partition that is given is opened once, and is at work then")
  func comes() {
    var tenure = LaneTenure()
    #expect(!tenure.isHere)
    let first = tenure.granted()
    let again = tenure.granted()
    #expect(first && !again)
    let isHere = tenure.opened()
    #expect(isHere && tenure.isHere && tenure.term == 1)
  }

  @Test("one that is taken rests when nothing of it is under way, not before")
  func rests() {
    var tenure = opened()
    tenure.handedOver()
    tenure.beganToApply()
    tenure.withdrawn()
    #expect(!tenure.isHere && !tenure.isSettled)
    tenure.answered()
    #expect(!tenure.isSettled)
    tenure.applied()
    #expect(tenure.isSettled)
    let isWanted = tenure.rested()
    #expect(!isWanted && tenure.phase == .away && !tenure.isSettled)
  }

  @Test("one that is taken while it is opened never gets to work")
  func takenWhileOpening() {
    var tenure = LaneTenure()
    _ = tenure.granted()
    tenure.withdrawn()
    #expect(!tenure.isSettled, "the opening is still under way")
    let isHere = tenure.opened()
    #expect(!isHere && tenure.isSettled)
  }

  @Test("one that comes back while it comes to rest is opened again, in another term")
  func comesBack() {
    var tenure = opened()
    tenure.handedOver()
    tenure.withdrawn()
    let isOpened = tenure.granted()
    #expect(!isOpened && tenure.phase == .closing)
    tenure.answered()
    let isWanted = tenure.rested()
    #expect(isWanted)
    let isReopened = tenure.reopened()
    #expect(isReopened && tenure.term == 2)
  }

  @Test("one whose commit failed begins again, more slowly each time until something of it succeeds")
  func fails() {
    var tenure = opened()
    for attempt in 1...3 {
      #expect(tenure.attempts == attempt)
      tenure.failed()
      let isWanted = tenure.rested()
      let isReopened = tenure.reopened()
      let isHere = tenure.opened()
      #expect(isWanted && isReopened && isHere)
    }
    tenure.proved()
    #expect(tenure.attempts == 0)
  }

  @Test("one that was lost for good after it failed is not opened again")
  func lostAfterFailure() {
    var tenure = opened()
    tenure.failed()
    tenure.withdrawn()
    let isWanted = tenure.rested()
    let isReopened = tenure.reopened()
    #expect(!isWanted && !isReopened)
  }

  private func opened() -> LaneTenure {
    var tenure = LaneTenure()
    _ = tenure.granted()
    _ = tenure.opened()
    return tenure
  }
}

@Suite("What the log may be told of a lane's progress")
struct CommitTrailTests {
  @Test("progress is certain once all effects before it are in the log")
  func certain() {
    var trail = CommitTrail(5)
    #expect(trail.isConfirmed && trail.confirmed == 5)
    let first = trail.handedOver(upTo: 8, telling: nil)
    let second = trail.handedOver(upTo: 10, telling: nil)
    #expect(first && second)
    trail.moved(to: 12)
    #expect(!trail.isConfirmed && trail.confirmed == 5)
    trail.confirmedFirst()
    #expect(trail.confirmed == 8)
    trail.confirmedFirst()
    #expect(trail.isConfirmed && trail.confirmed == 12, "what followed without effects is certain with them")
    trail.moved(to: 20)
    #expect(trail.confirmed == 20)
  }

  @Test("a commit that says all of the progress needs no answer, one behind others that are not answered does")
  func telling() {
    var trail = CommitTrail(5)
    let alone = trail.handedOver(upTo: 7, telling: 7)
    #expect(!alone && trail.confirmed == 7)
    let quiet = trail.handedOver(upTo: 8, telling: nil)
    let behind = trail.handedOver(upTo: 9, telling: 7)
    #expect(quiet && behind)
    trail.confirmedFirst()
    #expect(trail.confirmed == 8, "what the second led to is not certain yet")
    trail.confirmedFirst()
    #expect(trail.confirmed == 9 && trail.isConfirmed)
  }
}
