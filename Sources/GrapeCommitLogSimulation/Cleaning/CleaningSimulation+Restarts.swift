import GrapeCommitLog
import GrapeLog

extension CleaningSimulation {
  /// The process ends without having been asked to, and starts again.
  func restart(after end: LogModel.End) throws(Simulation.Wrong) {
    note("  \(end)")
    letGo()
    try start(after: endProcess(end))
  }

  private func letGo() {
    summary.cleaned += Int(log?.statistics.cleanedSegments ?? 0)
    threads.discard()
    log = nil
  }

  private func endProcess(_ end: LogModel.End) -> LogModel.End {
    var end = end
    // What a synchronisation failed to bring to the disk may be gone, whoever lives on.
    if disk.failedSynchronizations > 0 { end = .powerLost }
    summary.faults += disk.faults
    if end == .powerLost {
      disk.losePower()
      summary.powerLosses += 1
    } else {
      disk.kill()
      summary.kills += 1
    }
    return end
  }

  /// Opens the log, as often as it takes, and compares what it shows with what it must show.
  func start(after end: LogModel.End) throws(Simulation.Wrong) {
    var worst = end
    undisturbed = true
    disk.disarm()
    removeAccelerators()
    var attempt = 0
    while true {
      attempt += 1
      if attempt < 4, random.chance(1, in: 5) {
        endOfDeath = random.pick([.killed, .powerLost])
        disk.armDeath(in: 1 + random.below(40))
      }
      directory = disk.mount()
      threads = makeThreads()
      do throws(LogError) {
        log = try CommitLog.open(
          storage: directory, options: options, clock: clock.logClock, threads: threads
        ).0
      } catch {
        summary.failedStarts += 1
        note("  open: \(error)")
        threads.discard()
        guard directory.hasDied else { throw Simulation.Wrong(message: "does not open after \(worst): \(error)") }
        worst = max(worst, endProcess(endOfDeath))
        disk.disarm()
        continue
      }
      break
    }
    disk.disarm()
    disk.forgetFaults()
    summary.starts += 1
    note("  opened")
    let wrong = model.restarted(after: worst, found: try readEverything(), now: clock.wallMilliseconds)
    if let wrong { throw Simulation.Wrong(message: wrong) }
    summary.lost += model.lost
    try checkProblems()
  }

  /// Whoever removes index files and checkpoints while no process runs makes a start read more, and nothing else.
  private func removeAccelerators(always: Bool = false) {
    let share = random.pick([0, 0, 1, 4])
    for file in disk.files where file.name.hasSuffix(".index") || file.name.hasSuffix(".checkpoint") {
      if always || random.chance(share, in: 4) { disk.remove(file.name) }
    }
  }

  func closeAndOpen() throws(Simulation.Wrong) {
    guard let log else { return }
    note("  close")
    closing = true
    defer { closing = false }
    let finished = Unshared(Closing())
    log.close { finished.value.isDone = true }
    guard threads.runUntilIdle() else { throw Simulation.Wrong(message: "closing never ends") }
    if directory.hasDied { return }
    if !finished.value.isDone { throw Simulation.Wrong(message: "closing was not answered") }
    let end = failing ? endProcess(.killed) : LogModel.End.closed
    if end == .closed, model.waiting > 0 {
      throw Simulation.Wrong(message: "\(model.waiting) operations have no answer, but the log is closed")
    }
    letGo()
    if end == .closed, random.chance(1, in: 3) {
      disk.losePower()
      summary.powerLosses += 1
    }
    try start(after: end)
  }

  private final class Closing {
    var isDone = false
  }

  /// After all steps: everything is done and cleaned, closed, verified, and read from the beginning.
  func finish() throws(Simulation.Wrong) {
    undisturbed = true
    disk.disarm()
    note("end of the steps")
    guard threads.runUntilIdle() else { throw Simulation.Wrong(message: "the log's threads never rest") }
    for _ in 0..<3 { try maintainWhole() }
    if model.waiting > 0 {
      throw Simulation.Wrong(message: "\(model.waiting) operations have no answer, with nothing left to do")
    }
    try checkProblems()
    try check("at the end")
    try closeAndOpen()
    letGo()
    disk.kill()
    let report: VerificationReport
    do throws(LogError) {
      report = try CommitLog.verify(storage: disk.observe())
    } catch {
      throw Simulation.Wrong(message: "verify: \(error)")
    }
    if let problem = report.problems.first { throw Simulation.Wrong(message: "verify: \(problem)") }
    removeAccelerators(always: true)
    try start(after: .closed)
    letGo()
  }
}
