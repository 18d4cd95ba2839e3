import Testing

@testable import GrapeEngine

@Suite("The steps of a source's partition") struct SourceLaneStateMachineTests {
  /// At work from offset 5 on.
  private func reading() -> SourceLaneStateMachine {
    var machine = SourceLaneStateMachine()
    _ = machine.start()
    _ = machine.located(5, end: 9, isCommitted: true)
    return machine
  }

  private func committing() -> SourceLaneStateMachine {
    var machine = reading()
    _ = machine.read(isEmpty: false, next: 9, end: 9)
    _ = machine.translated(next: 9, isComplete: true)
    return machine
  }

  @Test("A first place is committed before anything is read")
  func claim() {
    var machine = SourceLaneStateMachine()
    #expect(machine.start() == .locate)
    #expect(machine.located(5, end: 9, isCommitted: false) == .claim(5))
    #expect(machine.committed() == .read(5))
  }

  @Test("Read, translate, commit, read on; at the end wait")
  func circle() {
    var machine = reading()
    #expect(machine.lag == 4 && !machine.isIdle)
    #expect(machine.read(isEmpty: false, next: 8, end: 9) == .translate(from: 5, care: .none))
    #expect(machine.translated(next: 7, isComplete: false) == .commit(next: 7))
    #expect(machine.position == 5)
    #expect(machine.committed() == .translate(from: 7, care: .none))
    #expect(machine.translated(next: 8, isComplete: true) == .commit(next: 8))
    #expect(machine.committed() == .read(8))
    #expect(machine.read(isEmpty: true, next: 9, end: 9) == .watch(9))
    #expect(machine.isIdle)
    #expect(machine.grown() == .read(9))
  }

  @Test("What is being committed is waited for when the partition is taken; all else is dropped")
  func finishing() {
    var machine = committing()
    #expect(machine.finish() == .none && !machine.hasEnded)
    #expect(machine.committed() == .end && machine.hasEnded && machine.position == 9)
    machine = committing()
    #expect(machine.finish() == .none)
    #expect(machine.failed(.passing) == .end && machine.position == 5)
    machine = reading()
    #expect(machine.finish() == .end)
    #expect(machine.read(isEmpty: false, next: 9, end: 9) == .none && machine.finish() == .none)
    machine = committing()
    machine.abandon()
    #expect(machine.committed() == .none && machine.hasEnded)
  }

  @Test("After a failure it rests, longer each time, and then does again what failed")
  func failures() {
    var machine = reading()
    #expect(machine.failed(.passing) == .rest(1_000_000_000))
    #expect(machine.rested() == .read(5))
    #expect(machine.failed(.passing) == .rest(2_000_000_000))
    for _ in 0..<20 {
      _ = machine.rested()
      _ = machine.failed(.passing)
    }
    _ = machine.rested()
    #expect(machine.failed(.passing) == .rest(30_000_000_000))
    machine = committing()
    #expect(machine.failed(.passing) == .rest(1_000_000_000))
    // The events are not in the log: they are made again.
    #expect(machine.rested() == .translate(from: 5, care: .none))
  }

  @Test("When somebody else may have moved on, the place is found out anew")
  func lost() {
    var machine = committing()
    #expect(machine.failed(.lost) == .rest(1_000_000_000))
    #expect(machine.rested() == .locate)
    machine = reading()
    #expect(machine.failed(.outOfRange) == .locate)
    // Not in a circle.
    _ = machine.located(5, end: 9, isCommitted: true)
    #expect(machine.failed(.outOfRange) == .rest(1_000_000_000))
  }

  @Test("What is too large for the log is tried alone, then set aside")
  func tooLarge() {
    var machine = committing()
    #expect(machine.failed(.tooLarge) == .translate(from: 5, care: .single))
    #expect(machine.translated(next: 6, isComplete: false) == .commit(next: 6))
    #expect(machine.failed(.tooLarge) == .translate(from: 5, care: .setAside))
    #expect(machine.translated(next: 6, isComplete: false) == .commit(next: 6))
    #expect(machine.committed() == .translate(from: 6, care: .none))
  }

  @Test("A batch that cannot be read is looked at again in half a minute")
  func stuck() {
    var machine = reading()
    _ = machine.read(isEmpty: false, next: 9, end: 9)
    #expect(machine.stuck() == .rest(30_000_000_000))
    #expect(machine.rested() == .read(5))
  }

  @Test("A log that is broken or closed is the end")
  func final() {
    var machine = committing()
    #expect(machine.failed(.final) == .end && machine.hasEnded)
    #expect(machine.failed(.final) == .none)
  }
}
