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

  private func verified() throws(Wrong) -> VerificationReport {
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
    guard threads.runUntilIdle() else { throw Wrong(message: "the log's threads never rest") }
    if model.waiting > 0 { throw Wrong(message: "\(model.waiting) operations have no answer, with nothing left to do") }
    try check()
    try checkEverything()
    let end = try close()
    if end != .closed { throw Wrong(message: "closing failed without a fault") }
    try verifyBeside()
    if random.chance(1, in: 3), try damage() { return }
    try start(after: .closed)
    _ = try close()
  }

  /// Turns a bit over on a log at rest: it must be noticed, or not matter. Turned back, all is well again.
  /// True if something was lost for good, as a log at whose very end there is damage loses it.
  private func damage() throws(Wrong) -> Bool {
    let files = disk.files.filter { $0.size > 0 && $0.name.hasSuffix(".log") }
    guard let file = files.randomElement(using: &random) else { return false }
    let place = random.below(file.size)
    let bit = random.below(8)
    note("bit \(bit) of byte \(place) of \(file.name) turns over")
    damaged = true
    defer { damaged = false }
    disk.flip(bit: bit, at: place, of: file.name)
    let report = try verified()
    let noticed = report.problemCount > 0 || report.tail != nil
    note("verify: \(report.problems.map(\.description)) \(report.tail ?? "")")
    return try openDamaged(file.name, place, bit, noticed)
  }

  private func openDamaged(_ name: String, _ place: Int, _ bit: Int, _ noticed: Bool) throws(Wrong) -> Bool {
    directory = disk.mount()
    threads = SimulatedThreads()
    let opened: (CommitLog, RecoveryReport)
    do {
      opened = try CommitLog.open(
        storage: directory, options: options, clock: clock.logClock, threads: threads)
    } catch {
      note("open: \(error)")
      threads.discard()
      guard error.code == .corrupt || error.code == .unsupportedFormat else {
        throw Wrong(message: "a damaged log is refused with \(error)")
      }
      if !noticed { throw Wrong(message: "verify finds nothing wrong where opening says: \(error)") }
      // The file is restored from a backup.
      disk.flip(bit: bit, at: place, of: name)
      return false
    }
    log = opened.0
    let cuts = opened.1.cuts
    if !noticed, let cut = cuts.first { throw Wrong(message: "verify finds nothing wrong where opening cuts \(cut)") }
    let found = try readEverything()
    let difference = model.visible.difference(from: found)
    if let difference {
      // Damage to the last groups cannot be told from a torn write. What is cut is reported, and kept in a file.
      guard cuts.contains(where: { $0.file.hasSuffix(name) }), model.hasBegun(with: found) else {
        throw Wrong(message: "damage went unnoticed: \(difference)")
      }
    }
    _ = try close(quietly: true)
    return difference != nil
  }
}
