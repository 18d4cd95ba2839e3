/// When a lane's next events may go to which worker, as far as state is concerned. Pure.
///
/// A worker sees what its own results wrote before the store has it; any other must wait for the store.
struct StateGate {
  /// The store is there and has come to the end of its changelog.
  private(set) var isReady = false
  /// Results whose writes are committed, or about to be, and not in the store yet.
  private(set) var unapplied = 0
  /// The worker that made them.
  private var writer: Int?
  /// The node itself has changed something: no worker knows of it before the store has it.
  private var isClosed = false

  /// The store was opened and restored.
  mutating func opened() {
    isReady = true
    unapplied = 0
    writer = nil
    isClosed = false
  }

  /// The store failed, and is to be opened again.
  mutating func failed() { isReady = false }

  /// A result with writes came from `worker`.
  mutating func wrote(_ worker: Int) {
    unapplied += 1
    writer = worker
  }

  /// The node makes a change of its own.
  mutating func nodeWrote() {
    unapplied += 1
    isClosed = true
  }

  /// The store has what came first.
  mutating func applied() {
    unapplied = max(0, unapplied - 1)
    if unapplied == 0 {
      writer = nil
      isClosed = false
    }
  }

  /// Whether events may be delivered to `worker`.
  func admits(_ worker: Int) -> Bool { isReady && !isClosed && (unapplied == 0 || writer == worker) }

  /// Everything that was written is in the store.
  var isSettled: Bool { isReady && unapplied == 0 }
}
