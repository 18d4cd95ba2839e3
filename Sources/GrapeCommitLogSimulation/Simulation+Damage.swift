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
    guard let log, let bit = anyBit() else { return }
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
    var noticed = false
    for topic in model.visible.topics {
      for (number, partition) in topic.partitions.enumerated() {
        let name = TopicPartition(topic.name, Int32(number))
        let end = partition.bounds.end
        var offset = partition.bounds.start
        while offset < end {
          let result = ask { log.read(name, from: offset, maxBytes: 4_096, completion: $0) }
          switch result {
          case .success(let result):
            let first = partition.batchNumber(of: offset)
            if let wrong = partition.difference(from: result.batches[...], at: first) {
              throw Wrong(message: "\(bit) turned over, and \(name) gives \(wrong)")
            }
            guard let last = result.batches.last else { throw Wrong(message: "read of \(name) from \(offset): nothing") }
            offset = last.lastOffset + 1
          case .failure(let error) where error.code == .corrupt:
            noticed = true
            offset = end
          case .failure(let error): throw Wrong(message: "read of \(name) from \(offset): \(error)")
          case nil: throw Wrong(message: "read of \(name) from \(offset): no answer")
          }
        }
      }
    }
    let report = try verified()
    if report.problemCount > 0 || report.tail != nil {
      summary.noticedFlips += 1
    } else if noticed {
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
    return try !isWhole(bit, cuts)
  }

  /// Compares a log that opened although a bit had turned over with the model, and closes it.
  private func isWhole(_ bit: Bit, _ cuts: [RecoveryReport.Cut]) throws(Wrong) -> Bool {
    let found = try readEverything()
    let difference = model.visible.difference(from: found)
    if let difference {
      // Damage to the last groups cannot be told from a torn write. What is cut is reported, and kept in a file.
      guard cuts.contains(where: { $0.file.hasSuffix(bit.file) }) else {
        throw Wrong(message: "damage went unnoticed: \(difference)")
      }
      if let wrong = model.damaged(found: found) { throw Wrong(message: "a damaged log lost more than its end: \(wrong)") }
    }
    _ = try close(quietly: true)
    return difference == nil
  }
}
