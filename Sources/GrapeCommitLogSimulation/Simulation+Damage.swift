import GrapeCommitLog
import GrapeLog

extension Simulation {
  /// A bit of a file.
  private struct Bit: CustomStringConvertible {
    let file: String
    let place: Int
    let bit: Int

    var description: String { "bit \(bit) of byte \(place) of \(file)" }
  }

  private func anyBit() -> Bit? {
    let files = disk.files.filter { $0.size > 0 && $0.name.hasSuffix(".log") }
    guard let file = files.randomElement(using: &random) else { return nil }
    return Bit(file: file.name, place: random.below(file.size), bit: random.below(8))
  }

  private func flip(_ bit: Bit) { disk.flip(bit: bit.bit, at: bit.place, of: bit.file) }

  /// A bit turns over under an open log: readers get what was written, or are told. It turns back before anything else happens.
  func decay() throws(Wrong) {
    if failing || directory.hasDied { return }
    disk.disarm()
    guard let bit = anyBit() else { return }
    note("  \(bit)")
    summary.flips += 1
    flip(bit)
    defer { flip(bit) }
    damaged = true
    undisturbed = true
    defer {
      damaged = false
      undisturbed = false
    }
    let found = try readEverything(damaged: true)
    if let wrong = model.visible.difference(from: found) { throw Wrong(message: "\(bit) turned over: \(wrong)") }
    let report = try verified()
    if report.problemCount > 0 || report.tail != nil {
      summary.noticedFlips += 1
    } else if found.isDamaged {
      throw Wrong(message: "\(bit) turned over: a reader notices, verify does not")
    }
  }

  /// Turns a bit over on a log at rest: it must be noticed, or not matter. Turned back, all is well again.
  /// True if something was lost for good, as a log at whose very end there is damage loses it.
  func damage() throws(Wrong) -> Bool {
    guard let bit = anyBit() else { return false }
    note("\(bit) turns over")
    summary.flips += 1
    damaged = true
    defer { damaged = false }
    flip(bit)
    let report = try verified()
    let noticed = report.problemCount > 0 || report.tail != nil
    if noticed { summary.noticedFlips += 1 }
    note("verify: \(report.problems.map(\.description)) \(report.tail ?? "")")
    directory = disk.mount()
    threads = SimulatedThreads()
    let cuts: [RecoveryReport.Cut]
    do {
      let (opened, report) = try CommitLog.open(
        storage: directory, options: options, clock: clock.logClock, threads: threads)
      log = opened
      cuts = report.cuts
    } catch {
      note("open: \(error)")
      threads.discard()
      guard error.code == .corrupt || error.code == .unsupportedFormat else {
        throw Wrong(message: "a damaged log is refused with \(error)")
      }
      if !noticed { throw Wrong(message: "verify finds nothing wrong where opening says: \(error)") }
      // The file is restored from a backup.
      flip(bit)
      return false
    }
    if !noticed, let cut = cuts.first { throw Wrong(message: "verify finds nothing wrong where opening cuts \(cut)") }
    return try !isWhole(bit, cuts, noticed)
  }

  /// Compares a log that opened although a bit had turned over with the model, and closes it.
  private func isWhole(_ bit: Bit, _ cuts: [RecoveryReport.Cut], _ noticed: Bool) throws(Wrong) -> Bool {
    let found = try readEverything(damaged: true)
    if found.isDamaged && !noticed { throw Wrong(message: "\(bit) turned over: a reader notices, verify does not") }
    let difference = model.visible.difference(from: found)
    if let difference {
      // Damage to the last groups cannot be told from a torn write. What is cut is reported, and kept in a file.
      guard cuts.contains(where: { $0.file.hasSuffix(bit.file) }) else {
        throw Wrong(message: "damage went unnoticed: \(difference)")
      }
      if let wrong = model.damaged(found: found) {
        throw Wrong(message: "a damaged log lost more than its end: \(wrong)")
      }
    }
    // The file is restored from a backup, unless the damage was cut off.
    if cuts.isEmpty { flip(bit) }
    _ = try close(quietly: true)
    return difference == nil
  }
}
