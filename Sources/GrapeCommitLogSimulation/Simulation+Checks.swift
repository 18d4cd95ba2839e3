import GrapeCommitLog
import GrapeLog

extension Simulation {
  /// Compares everything that readers see with the model.
  func checkEverything() throws(Wrong) {
    if disk.failedSynchronizations > 0 || failing || directory.hasDied { return }
    disk.disarm()
    if let difference = model.visible.difference(from: try readEverything()) { throw Wrong(message: difference) }
  }

  /// Verifies the files while the log is open.
  func verifyBeside() throws(Wrong) {
    if failing || directory.hasDied { return }
    let report = try verified()
    if let problem = report.problems.first { throw Wrong(message: "verify: \(problem)") }
    if let tail = report.tail { throw Wrong(message: "verify: \(tail)") }
  }

  func verified() throws(Wrong) -> VerificationReport {
    do {
      return try CommitLog.verify(storage: disk.observe())
    } catch {
      throw Wrong(message: "verify: \(error)")
    }
  }

  /// After all steps: everything is done, closed, verified, maybe damaged, and opened once more.
  func finish() throws(Wrong) {
    undisturbed = true
    disk.disarm()
    note("end of the steps")
    if failing { try restart(after: .killed) }
    // It promised to.
    if deputy { log?.assist() }
    guard threads.runUntilIdle() else { throw Wrong(message: "the log's threads never rest") }
    if model.waiting > 0 { throw Wrong(message: "\(model.waiting) operations have no answer, with nothing left to do") }
    try check()
    try checkEverything()
    let end = try close()
    if end != .closed { throw Wrong(message: "closing failed without a fault") }
    try verifyBeside()
    if repairs {
      if try repairDamage() { return }
    } else if random.chance(1, in: 3), try damage() {
      return
    }
    try start(after: .closed)
    _ = try close()
  }
}
