internal import GrapeLog

/// One partition of a source: where its reading stands, and what is to be done next. Pure: no clock, no I/O.
///
/// One thing at a time: find the place, read, translate, commit, read on. A commit has the events and the place behind
/// them, and the next begins when it is in the log, so that nothing can be lost or come twice between two of them.
struct SourceLaneStateMachine {
  /// What the owner is to do; it answers with the event in brackets.
  enum Action: Equatable {
    case none
    /// Find out where to begin (`located`).
    case locate
    /// Commit the place, as the first (`committed`).
    case claim(Int64)
    /// Read from here (`read`).
    case read(Int64)
    /// Translate what was read, from here on (`translated`).
    case translate(from: Int64, care: SourceWork.Care)
    /// Commit what was translated, with the place behind it (`committed`).
    case commit(next: Int64)
    /// Wait until the partition is longer than this (`grown`).
    case watch(Int64)
    /// Wait so many nanoseconds (`rested`).
    case rest(Int64)
    /// It is over: nothing is under way. Told once.
    case end
  }

  /// What an error means for the partition.
  enum Failure: Equatable {
    /// The log is closed or broken: nothing more can be done.
    case final
    /// Somebody else may have moved on: where things stand is to be found out anew.
    case lost
    /// What was to be read is not there (any more).
    case outOfRange
    /// The transaction is larger than the log takes.
    case tooLarge
    /// It may pass.
    case passing
  }

  private enum State: Equatable {
    case locating
    case claiming(Int64)
    case reading(Int64)
    /// Batches are at hand; the one after the other is translated.
    case translating(Int64)
    case committing(from: Int64, next: Int64, isComplete: Bool)
    case waiting(Int64)
    /// After a failure; then `locating`, `reading` or `translating`.
    case resting(Next)
    case ended
  }

  private enum Next: Equatable {
    case locate
    case read(Int64)
    case translate(Int64)
  }

  private var state = State.locating
  /// It is to end as soon as nothing is under way.
  private var isEnding = false
  private var failures = 0
  /// The last read was of what is not there: once more, and it waits, lest it goes round in circles.
  private var isMisplaced = false
  private var care = SourceWork.Care.none
  /// Next offset that is to be dealt with, as the log has it; nil: not known yet.
  private(set) var position: Int64?
  /// End of the partition as last seen.
  private(set) var end: Int64?

  /// First and longest wait after failures, nanoseconds.
  private static let firstRest: Int64 = 1_000_000_000
  private static let longestRest: Int64 = 30_000_000_000

  /// Nothing is under way any more, and nothing will be.
  var hasEnded: Bool { state == .ended }

  /// Nothing is left to be read, as far as is known.
  var isIdle: Bool {
    switch state {
    case .waiting, .ended: true
    default: false
    }
  }

  /// Records behind the position, as far as is known.
  var lag: Int64 { max(0, (end ?? 0) - (position ?? end ?? 0)) }

  /// Begins.
  mutating func start() -> Action {
    state = .locating
    return .locate
  }

  /// - Parameter isCommitted: the group has this place in the log already.
  mutating func located(_ offset: Int64, end: Int64, isCommitted: Bool) -> Action {
    guard state == .locating else { return .none }
    position = offset
    self.end = end
    if isEnding { return finished() }
    if isCommitted {
      state = .reading(offset)
      return .read(offset)
    }
    state = .claiming(offset)
    return .claim(offset)
  }

  /// - Parameters:
  ///   - isEmpty: there is nothing up to `next`.
  mutating func read(isEmpty: Bool, next: Int64, end: Int64) -> Action {
    guard case .reading(let offset) = state else { return .none }
    self.end = end
    isMisplaced = false
    if isEnding { return finished() }
    if isEmpty {
      failures = 0
      // Where compaction has taken everything, or markers are all there is, the next read begins behind.
      state = .waiting(max(offset, next))
      return .watch(max(offset, next))
    }
    state = .translating(offset)
    return .translate(from: offset, care: care)
  }

  /// - Parameter next: everything below is dealt with by what was made.
  mutating func translated(next: Int64, isComplete: Bool) -> Action {
    guard case .translating(let from) = state else { return .none }
    if isEnding { return finished() }
    state = .committing(from: from, next: next, isComplete: isComplete)
    return .commit(next: next)
  }

  /// Nothing can be made of what comes next.
  mutating func stuck() -> Action {
    guard case .translating(let from) = state else { return .none }
    if isEnding { return finished() }
    failures += 1
    // Read anew: what is wrong may have been mended by then.
    state = .resting(.read(from))
    return .rest(Self.longestRest)
  }

  mutating func committed() -> Action {
    switch state {
    case .claiming(let offset):
      failures = 0
      if isEnding { return finished() }
      state = .reading(offset)
      return .read(offset)
    case .committing(_, let next, let isComplete):
      failures = 0
      care = .none
      position = next
      if isEnding { return finished() }
      if isComplete {
        state = .reading(next)
        return .read(next)
      }
      state = .translating(next)
      return .translate(from: next, care: .none)
    default: return .none
    }
  }

  /// The partition has grown, or somebody thinks so.
  mutating func grown() -> Action {
    guard case .waiting(let offset) = state else { return .none }
    if isEnding { return finished() }
    state = .reading(offset)
    return .read(offset)
  }

  mutating func rested() -> Action {
    guard case .resting(let next) = state else { return .none }
    switch next {
    case .locate:
      state = .locating
      return .locate
    case .read(let offset):
      state = .reading(offset)
      return .read(offset)
    case .translate(let offset):
      state = .translating(offset)
      return .translate(from: offset, care: care)
    }
  }

  /// What was under way has failed.
  mutating func failed(_ failure: Failure) -> Action {
    if state == .ended { return .none }
    if isEnding || failure == .final { return finished() }
    if failure == .tooLarge, case .committing(let from, _, _) = state {
      switch care {
      case .none: care = .single
      case .single: care = .setAside
      case .setAside: return rest(.translate(from))
      }
      state = .translating(from)
      return .translate(from: from, care: care)
    }
    if failure == .outOfRange, !isMisplaced {
      isMisplaced = true
      state = .locating
      return .locate
    }
    switch (failure, state) {
    case (.passing, .reading(let offset)): return rest(.read(offset))
    case (.passing, .committing(let from, _, _)): return rest(.translate(from))
    default: return rest(.locate)
    }
  }

  private mutating func rest(_ next: Next) -> Action {
    let wait = min(Self.firstRest << Int64(min(failures, 8)), Self.longestRest)
    failures += 1
    state = .resting(next)
    return .rest(wait)
  }

  /// Nothing new is begun. What is being committed is waited for.
  mutating func finish() -> Action {
    switch state {
    case .ended: return .none
    case .claiming, .committing:
      isEnding = true
      return .none
    default: return finished()
    }
  }

  /// It is over at once, whatever is under way.
  mutating func abandon() { state = .ended }

  private mutating func finished() -> Action {
    state = .ended
    return .end
  }
}
