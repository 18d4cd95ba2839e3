import GrapeCommitLog
import GrapeLog

extension Simulation {
  /// Damages segments of a log at rest, not the last one, and repairs it: what is not listed as lost must be there, under its offsets.
  /// False if the log is too small for that.
  func repairDamage() throws(Wrong) -> Bool {
    let contents = try LogContents(disk.observe())
    guard let last = contents.files.last else { return false }
    let files = disk.files.map(\.name).filter { $0.hasSuffix(".log") && $0 < last }.sorted()
    guard !files.isEmpty else { return false }
    // At rest: what was written long ago is on the disk, checkpoints included, which alone may know how far a lost end went.
    disk.synchronize()
    for _ in 0..<random.within(1...2) { spoil(random.pick(files)) }
    let found = try repairReport(disk.observe(), apply: false)
    note("repair: \(found.segments.map { ($0.file, $0.reasons) }), lost \(found.losses), made \(found.recoveredTopics)")
    if found.segments.isEmpty { return try unharmed() }
    let missing = Set(contents.files.filter { disk.find($0) == nil })
    try repair()
    let left = try repairReport(disk.observe(), apply: false)
    if let segment = left.segments.first { throw Wrong(message: "repaired, and still damaged: \(segment)") }
    if let problem = try verified().problems.first { throw Wrong(message: "repaired, verify says: \(problem)") }
    try openQuietly("a repaired log")
    let repaired = RepairedLog(contents, found, missing: missing)
    if let wrong = repaired.difference(model.visible, from: try readEverything()) {
      throw Wrong(message: "repaired: \(wrong)")
    }
    try goOn(repaired)
    _ = try close(quietly: true)
    return true
  }

  /// Turns bits over, blanks a stretch, or removes the file.
  private func spoil(_ file: String) {
    guard let size = disk.files.first(where: { $0.name == file })?.size, size > 0 else { return }
    summary.flips += 1
    switch random.below(5) {
    case 0:
      note("\(file) is removed")
      disk.remove(file)
      disk.synchronizeNames()
    case 1:
      let start = random.below(size)
      let end = min(size, start + 1 + random.below(2_000))
      note("bytes \(start) ..< \(end) of \(file) are turned over")
      for place in start..<end { disk.flip(bit: random.below(8), at: place, of: file) }
    default:
      for _ in 0..<random.within(1...3) {
        let place = random.below(size)
        note("byte \(place) of \(file) is turned over")
        disk.flip(bit: random.below(8), at: place, of: file)
      }
    }
  }

  private func repairReport(_ storage: SimulatedDirectory, apply: Bool) throws(Wrong) -> RepairReport {
    do throws(LogError) {
      return try CommitLog.repair(storage: storage, apply: apply)
    } catch {
      throw Wrong(message: "repair: \(error)")
    }
  }

  /// Repairs, as often as it takes.
  private func repair() throws(Wrong) {
    disk.disarm()
    if random.chance(1, in: 3) { armDeath(within: 40) }
    while true {
      let directory = disk.mount()
      do throws(LogError) {
        _ = try CommitLog.repair(storage: directory, apply: true)
        disk.disarm()
        directory.close()
        return
      } catch {
        note("  repair: \(error)")
        guard directory.hasDied else { throw Wrong(message: "repair: \(error)") }
        if endOfDeath == .powerLost { disk.losePower() }
        disk.disarm()
      }
    }
  }

  /// What was turned over is of no importance.
  private func unharmed() throws(Wrong) -> Bool {
    try openQuietly("a log that needs no repair")
    if let wrong = model.visible.difference(from: try readEverything()) {
      throw Wrong(message: "repair finds nothing to do, but: \(wrong)")
    }
    _ = try close(quietly: true)
    return true
  }

  private func openQuietly(_ what: String) throws(Wrong) {
    directory = disk.mount()
    threads = SimulatedThreads()
    do throws(LogError) {
      log = try CommitLog.open(storage: directory, options: options, clock: clock.logClock, threads: threads).0
    } catch {
      threads.discard()
      throw Wrong(message: "\(what) does not open: \(error)")
    }
  }

  /// New records get offsets that nobody else ever had.
  private func goOn(_ repaired: RepairedLog) throws(Wrong) {
    guard let log else { return }
    for topic in model.visible.topics where !repaired.isRemade(topic.name) {
      for (number, partition) in topic.partitions.enumerated() {
        let place = TopicPartition(topic.name, Int32(number))
        let append = payload.append(to: place, count: 1, size: 20, timestamp: clock.wallMilliseconds, &random)
        let box = Unshared(Receipt())
        log.commit(Transaction(appends: [append])) { box.value.result = $0 }
        guard threads.runUntilIdle(), case .success(let receipt)? = box.value.result else {
          throw Wrong(message: "repaired: commit to \(place): \(box.value.result.map { "\($0)" } ?? "no answer")")
        }
        if receipt.baseOffsets != [partition.bounds.end] {
          throw Wrong(
            message: "repaired: \(place) goes on at \(receipt.baseOffsets[0]), expected \(partition.bounds.end)")
        }
      }
    }
  }

  private final class Receipt {
    var result: Result<CommitReceipt, LogError>?
  }
}
