import GrapeCommitLog
import GrapeLog

extension Simulation {
  /// The process ends without having been asked to, and starts again.
  func restart(after end: LogModel.End) throws(Wrong) {
    note("  \(end)")
    // Some time passes until it does: nothing that was acknowledged may be lost by what follows.
    threads.discard()
    countCleaned()
    log = nil
    try start(after: endProcess(end))
  }

  /// Lets the process end; returns what that means for what it had written.
  private func endProcess(_ end: LogModel.End) -> LogModel.End {
    var end = end
    // What a synchronisation failed to bring to the disk may be gone, whoever lives on.
    if disk.failedSynchronizations > 0 { end = .powerLost }
    if end == .powerLost {
      disk.losePower()
      summary.powerLosses += 1
    } else {
      disk.kill()
      summary.kills += 1
    }
    summary.faults += disk.faults
    return end
  }

  /// Opens the log, as often as it takes, and compares what it shows with what it must show.
  /// `powerLost`: after the orderly end that `end` says. What an earlier start had cut off but not yet made durable may be
  /// back then.
  func start(after end: LogModel.End, powerLost: Bool = false) throws(Wrong) {
    var worst = end
    undisturbed = true
    disk.disarm()
    var attempt = 0
    while true {
      attempt += 1
      if attempt < 5 {
        if random.chance(1, in: 4) { armDeath(within: 40) }
        if random.chance(1, in: 6) { armFault(within: 40) }
      }
      directory = disk.mount()
      threads = SimulatedThreads()
      if random.chance(1, in: 4) { options = Self.options(&random) }
      note("  \(options)")
      deputy = false
      pendingReads = 0
      let cuts: [RecoveryReport.Cut]
      do throws(LogError) {
        let (opened, report) = try CommitLog.open(
          storage: directory, options: options, clock: clock.logClock, threads: threads)
        log = opened
        cuts = report.cuts
      } catch {
        note("  open: \(error)")
        threads.discard()
        worst = try startFailed(error, worst)
        continue
      }
      if directory.hasDied { throw Wrong(message: "the log opened although its process had died") }
      disk.disarm()
      disk.forgetFaults()
      if worst == .closed, !powerLost, let cut = cuts.first { throw Wrong(message: "after an orderly stop: \(cut)") }
      summary.cuts += cuts.count
      break
    }
    summary.starts += 1
    note("  opened")
    let before = model.uncertain.count
    if let wrong = model.restarted(after: worst, found: try readEverything()) { throw Wrong(message: wrong) }
    summary.lost += before - model.survived
    try check()
  }

  private func startFailed(_ error: LogError, _ worst: LogModel.End) throws(Wrong) -> LogModel.End {
    defer { disk.disarm() }
    summary.failedStarts += 1
    if directory.hasDied { return max(worst, endProcess(endOfDeath)) }
    guard failing && (error.code == .failed || error.code == .noSpace) else {
      throw Wrong(message: "the log does not open after \(worst): \(error)")
    }
    return max(worst, endProcess(.killed))
  }

  func closeAndOpen() throws(Wrong) {
    let end = try close()
    if directory.hasDied { return try restart(after: endOfDeath) }
    if random.chance(1, in: 4) {
      disk.losePower()
      summary.powerLosses += 1
      return try start(after: end == .closed ? .closed : .powerLost, powerLost: true)
    }
    try start(after: end)
  }

  /// Closes the log; everything that was accepted is answered then.
  func close(quietly: Bool = false) throws(Wrong) -> LogModel.End {
    guard let log else { throw Wrong(message: "there is no log to close") }
    closing = true
    defer { closing = false }
    let finished = Unshared(Flag())
    log.close { finished.value.count += 1 }
    // Whatever comes after is refused, and nothing hangs.
    if !quietly && random.chance(1, in: 3) { commit(partitions: 1, records: 1, size: 10) }
    if !quietly && random.chance(1, in: 3) { read() }
    guard threads.runUntilIdle() else { throw Wrong(message: "the log's threads never rest") }
    if directory.hasDied { return endOfDeath }
    if finished.value.count != 1 {
      throw Wrong(message: "closing was answered \(finished.value.count) times, with nothing left to do")
    }
    if !directory.isClosed { throw Wrong(message: "the log was closed, its directory not") }
    if model.waiting > 0 { throw Wrong(message: "\(model.waiting) operations have no answer, but the log is closed") }
    if pendingReads > 0 { throw Wrong(message: "\(pendingReads) reads have no answer, but the log is closed") }
    model.closed()
    try check()
    threads.discard()
    countCleaned()
    self.log = nil
    if !failing { return .closed }
    return disk.failedSynchronizations > 0 ? .powerLost : .killed
  }

  private func countCleaned() { summary.cleaned += Int(log?.statistics.cleanedSegments ?? 0) }

  private final class Flag {
    var count = 0
  }
}
