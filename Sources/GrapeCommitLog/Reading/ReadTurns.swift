import Synchronization

/// Lets the thread that reads from the disk wait for its turn. The writer only tells what it does; it never waits.
final class ReadTurns: Sendable {
  private let pacing = Mutex(ReadPacing())
  private let changed = ThreadSignal()
  private let clock: LogClock

  init(clock: LogClock) { self.clock = clock }

  /// A group goes to the disk.
  func groupBegan() {
    let now = clock.monotonicNanoseconds()
    pacing.withLock { $0.groupBegan(at: now) }
  }

  /// The group is on the disk, or has failed.
  func groupEnded() {
    let now = clock.monotonicNanoseconds()
    let isAwaited = pacing.withLock { pacing in
      pacing.groupEnded(at: now)
      return pacing.isAwaited
    }
    if isAwaited { changed.signal() }
  }

  /// True if reads need not take turns now.
  var isFree: Bool {
    let now = clock.monotonicNanoseconds()
    return pacing.withLock { $0.isFree(at: now) }
  }

  /// Runs `body`, which reads one piece, when its turn has come: after `ReadPacing.patience` at the latest. For one
  /// thread at a time.
  func takeTurn<Value>(_ body: () -> Value) -> Value {
    let asked = clock.monotonicNanoseconds()
    var now = asked
    while case .wait(let deadline) = pacing.withLock({ $0.turn(at: now, asked: asked) }) {
      changed.wait(until: deadline)
      now = clock.monotonicNanoseconds()
    }
    let result = body()
    let end = clock.monotonicNanoseconds()
    pacing.withLock { $0.pieceRead(from: now, to: end) }
    return result
  }
}
