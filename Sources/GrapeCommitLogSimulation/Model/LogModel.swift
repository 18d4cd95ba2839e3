import GrapeLog

/// The sequential log that the real one must look like, whatever threads, faults and crashes do.
///
/// Operations are numbered in the order in which they were handed over. Three states stand on that sequence: what is on the disk
/// for sure, what readers see, and what there will be when everything is answered.
final class LogModel {
  /// Survives whatever happens.
  private(set) var durable = ModelState()
  /// What readers see: the effects of everything acknowledged.
  private(set) var visible = ModelState()
  /// The effects of everything handed over.
  private(set) var latest = ModelState()
  /// Operations behind the durable ones, in order.
  private(set) var uncertain: [LogOperation] = []
  /// Of `uncertain`: so many are answered.
  private var answeredCount = 0
  private var lastNumber = 0
  /// The log failed: it takes nothing any more.
  private var failed = false
  /// Of the operations that were uncertain at the last restart, so many were there.
  private(set) var survived = 0
  /// Everything that is on the disk for sure, in order.
  private var history: [LogOperation] = []
  private(set) var watches: [ModelWatch] = []
  private var problem: String?

  /// Operations handed over so far.
  var operations: Int { lastNumber }

  /// Operations that wait for an answer.
  var waiting: Int { uncertain.count - answeredCount }

  /// The first thing that was wrong; taking it forgets it.
  func takeProblem() -> String? {
    defer { problem = nil }
    return problem
  }

  func report(_ text: @autoclosure () -> String) { if problem == nil { problem = text() } }

  // MARK: Operations

  /// The log took the operation.
  func accepted(_ operation: LogOperation) {
    if failed { report("taken by a log that had failed: \(operation)") }
    lastNumber += 1
    operation.number = lastNumber
    operation.outcome = latest.apply(operation)
    uncertain.append(operation)
  }

  /// The log answered. `failing`: something went wrong that lets it fail; `tight`: there may be no space.
  func answered(_ operation: LogOperation, _ result: Result<CommitReceipt, LogError>, failing: Bool, tight: Bool) {
    if operation.answer != .none { return report("answered twice: \(operation)") }
    guard operation.number > 0 else {
      if case .failure(let error) = result { return turnedAway(operation, error, failing, tight) }
      return report("acknowledged before anything was done: \(operation)")
    }
    guard answeredCount < uncertain.count, uncertain[answeredCount] === operation else {
      return report("answered before its predecessor: \(operation)")
    }
    answeredCount += 1
    switch result {
    case .success(let receipt): acknowledged(operation, receipt)
    case .failure(let error):
      if case .refused(let code) = operation.outcome, error.code == code {
        operation.answer = .refused
      } else if tight && error.code == .noSpace {
        void(operation)
      } else if failing && error.code == .failed {
        operation.answer = .unknown
        failed = true
      } else {
        report("answered with \(error), expected \(operation.outcome): \(operation)")
      }
    }
  }

  /// There was no room for it: it is as if it had never been.
  private func void(_ operation: LogOperation) {
    operation.answer = .refused
    operation.isVoid = true
    latest = visible
    for waiting in uncertain[answeredCount...] { waiting.outcome = latest.apply(waiting) }
  }

  private func turnedAway(_ operation: LogOperation, _ error: LogError, _ failing: Bool, _ tight: Bool) {
    operation.answer = .turnedAway
    switch error.code {
    case .busy, .tooLarge, .closed: break
    case .failed where failing: break
    case .noSpace where tight: break
    default: report("turned away with \(error): \(operation)")
    }
  }

  private func acknowledged(_ operation: LogOperation, _ receipt: CommitReceipt) {
    operation.answer = .acknowledged(receipt.durability)
    if failed { report("acknowledged by a log that had failed: \(operation)") }
    switch operation.outcome {
    case .refused(let code): return report("acknowledged, expected \(code): \(operation)")
    case .committed(let offsets) where offsets != receipt.baseOffsets:
      return report("base offsets \(receipt.baseOffsets), expected \(offsets): \(operation)")
    case .committed, .done: break
    }
    if receipt.durability < operation.durability {
      report("acknowledged with \(receipt.durability) only: \(operation)")
    }
    visible.apply(operation)
    if receipt.durability == .disk { settle() }
    updateWatches()
  }

  /// Everything answered so far is on the disk.
  private func settle() {
    for operation in uncertain.prefix(answeredCount) {
      durable.apply(operation)
      operation.durableBefore = lastNumber
    }
    history += uncertain.prefix(answeredCount)
    uncertain.removeFirst(answeredCount)
    answeredCount = 0
  }

  // MARK: Restarts

  /// How the last process ended.
  enum End: Int, Comparable {
    case closed
    case killed
    case powerLost

    static func < (left: End, right: End) -> Bool { left.rawValue < right.rawValue }
  }

  /// Compares what a new start shows with what must and what may be there, and goes on from there.
  func restarted(after end: End, found: FoundLog) -> String? {
    let floor = survivors(of: end)
    var candidate = durable
    for operation in uncertain.prefix(floor) { candidate.apply(operation) }
    var next = floor
    var nearest: String?
    while true {
      let difference = candidate.difference(from: found)
      if difference == nil { break }
      if nearest == nil { nearest = difference }
      guard next < uncertain.count else {
        return
          "after \(end): no sequence of operations explains what is there; with those that must be there: \(nearest!)"
      }
      candidate.apply(uncertain[next])
      next += 1
    }
    candidate.forgetTheRest()
    for operation in uncertain.prefix(next) { operation.durableBefore = lastNumber }
    history += uncertain.prefix(next)
    survived = next
    failed = false
    durable = candidate
    visible = candidate
    latest = candidate
    uncertain = []
    answeredCount = 0
    watches = []
    return nil
  }

  /// Compares what a log shows whose end was damaged and cut off with what it must at least have: an operation was known to be on the
  /// disk when a later one was written, and that one says so. Nil if all is well.
  func damaged(found: FoundLog) -> String? {
    let all = history + uncertain
    let last = all.last { $0.hasEffect }?.number ?? 0
    let floor = (all.lastIndex { $0.hasEffect && ($0.durableBefore ?? .max) < last } ?? -1) + 1
    var found = found
    var candidate = ModelState()
    for operation in all.prefix(floor) { candidate.apply(operation) }
    var nearest: String?
    for next in floor...all.count {
      if next > floor { candidate.apply(all[next - 1]) }
      found.cut = CutOff(all[next...])
      guard let difference = candidate.difference(from: found) else { return nil }
      if nearest == nil { nearest = difference }
    }
    return nearest
  }

  /// How many of the uncertain operations must have survived.
  private func survivors(of end: End) -> Int {
    switch end {
    case .closed: uncertain.count
    case .killed:
      (uncertain.lastIndex {
        if case .acknowledged(let durability) = $0.answer { durability >= .os } else { false }
      } ?? -1) + 1
    case .powerLost: 0
    }
  }

  // MARK: Watches

  func watching(_ watch: ModelWatch) {
    watches.append(watch)
    updateWatches()
  }

  private func updateWatches() {
    for watch in watches where !watch.due { watch.due = visible.fires(watch) }
  }

  /// The log was closed: all watches fire.
  func closed() { for watch in watches { watch.due = true } }

  /// Checks that each watch fired if it had to, and only then; forgets those that did.
  func checkWatches() {
    guard !watches.isEmpty else { return }
    for watch in watches {
      if watch.fired > 1 { report("\(watch) fired \(watch.fired) times") }
      if watch.cancelled { continue }
      if watch.due && watch.fired == 0 { report("\(watch) did not fire") }
      if !watch.due && watch.fired > 0 { report("\(watch) fired too early") }
    }
    watches.removeAll { $0.due && $0.fired == 1 }
  }
}

/// A watch on the end of a partition.
final class ModelWatch: CustomStringConvertible {
  let partition: TopicPartition
  let offset: Int64
  /// Of the topic when the watch was made; nil if there was none.
  let incarnation: Int?
  var token: WatchToken?
  var due = false
  var fired = 0
  var cancelled = false

  init(_ partition: TopicPartition, after offset: Int64, incarnation: Int?) {
    self.partition = partition
    self.offset = offset
    self.incarnation = incarnation
  }

  var description: String { "the watch of \(partition) after \(offset)" }
}

extension ModelState {
  fileprivate func fires(_ watch: ModelWatch) -> Bool {
    guard let topic = topic(watch.partition.topic), topic.incarnation == watch.incarnation,
      let partition = partition(watch.partition)
    else { return true }
    return partition.bounds.end > watch.offset
  }
}
