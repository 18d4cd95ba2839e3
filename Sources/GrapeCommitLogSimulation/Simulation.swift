import GrapeCommitLog
import GrapeLog

/// One run of a log on a simulated disk: what happens is drawn from a seed, and a model checks everything that the log says.
///
/// The same seed gives the same run, as long as the code is the same.
package final class Simulation: @unchecked Sendable {
  // A simulation lives on one thread.
  var random: SimulationRandom
  let disk: SimulatedDisk
  let clock = SimulatedClock()
  let model = LogModel()
  /// Of the present process.
  var options: CommitLogOptions
  var payload = SimulatedPayload()
  var threads = SimulatedThreads()
  var directory: SimulatedDirectory
  var log: CommitLog?
  /// The simulation's thread is the log's deputy.
  var deputy = false
  /// How the process ends if a call kills it.
  var endOfDeath = LogModel.End.killed
  /// Reads that were not answered yet.
  var pendingReads = 0
  /// No step of another thread comes between now.
  var undisturbed = true
  /// Another thread is in the middle of a step.
  private(set) var meanwhile = false
  /// The log was asked to close.
  var closing = false
  /// A bit was turned over.
  var damaged = false
  private let weights: [Int]
  private let stepCount: Int
  private let seed: UInt64
  /// In the end the log is damaged and repaired.
  let repairs: Bool
  private var traced: [String]?
  var summary = Summary()

  /// Something was not as it must be.
  package struct Failure: Error, CustomStringConvertible {
    package var seed: UInt64
    package var message: String
    /// What happened before it, the last thing last; empty unless it was asked for.
    package var trace: [String]

    package init(seed: UInt64, message: String, trace: [String]) {
      self.seed = seed
      self.message = message
      self.trace = trace
    }

    package var description: String {
      (trace + ["seed \(seed): \(message)"]).joined(separator: "\n")
    }
  }

  /// Runs the simulation of a seed. Throws what is wrong with the log.
  /// - Parameter repairs: in the end the log is damaged and repaired.
  static func run(seed: UInt64, tracing: Bool, repairs: Bool) throws(Failure) -> (Summary, trace: [String]) {
    let simulation = Simulation(seed: seed, tracing: tracing, repairs: repairs)
    try simulation.runToTheEnd()
    return (simulation.summary, simulation.traced ?? [])
  }

  private func runToTheEnd() throws(Failure) {
    defer {
      summary.calls = disk.calls
      summary.operations = model.operations
      end()
    }
    do throws(Wrong) {
      try run()
    } catch {
      throw Failure(seed: seed, message: error.message, trace: traced ?? [])
    }
  }

  /// What is wrong.
  struct Wrong: Error {
    let message: String
  }

  private init(seed: UInt64, tracing: Bool, repairs: Bool) {
    self.seed = seed
    self.repairs = repairs
    random = SimulationRandom(seed: seed)
    disk = SimulatedDisk(seed: random.next())
    directory = disk.mount()
    directory.close()
    options = Self.options(&random)
    weights = SimulationStep.weights(&random)
    stepCount = random.within(50...300)
    if tracing {
      traced = []
      disk.trace = { [unowned self] text in self.note("    \(text)") }
    }
    disk.interlude = { [unowned self] subject in self.interlude(subject) }
  }

  /// Breaks the circles of references between the log and its threads.
  private func end() {
    threads.discard()
    log = nil
    disk.interlude = nil
    disk.trace = nil
  }

  func note(_ text: @autoclosure () -> String) {
    if traced != nil { traced!.append(text()) }
  }

  /// Small segments, so that they change often; queues and caches from none to plenty.
  static func options(_ random: inout SimulationRandom) -> CommitLogOptions {
    var options = CommitLogOptions()
    options.segmentBytes = random.pick([16 << 10, 16 << 10, 32 << 10, 64 << 10, 256 << 10])
    options.queueBytes = random.pick([2_000, 20_000, 64 << 20, 64 << 20])
    options.groupBytes = random.pick([4_096, 16 << 10, 4 << 20])
    options.transactionBytes = random.pick([4_096, 128 << 20, 128 << 20])
    options.tailCacheBytes = random.pick([0, 0, 32 << 20])
    options.assistBytes = random.pick([0, 1_536, 32 << 10])
    options.readQueue = random.pick([1, 3, 1_024])
    options.openSegments = random.pick([1, 2, 128])
    options.indexCacheBytes = random.pick([0, 4_096, 16 << 20])
    options.compactionBytes = random.pick([1 << 16, 32 << 20])
    options.cleanableShare = random.pick([0.01, 0.2, 0.5, 0.9])
    options.tombstoneMilliseconds = random.pick([0, 5_000, 24 * 3_600_000])
    options.lowSpaceBytes = random.pick([0, nil, nil])
    return options
  }

  private func run() throws(Wrong) {
    try start(after: .closed)
    // Most logs have topics before anything else is asked of them.
    if random.chance(3, in: 4) {
      for _ in 0..<random.within(1...3) { createTopic() }
      _ = threads.stepWriter()
    }
    let total = weights.reduce(0, +)
    while summary.steps < stepCount {
      summary.steps += 1
      var drawn = random.below(total)
      let step = SimulationStep.allCases.first { step in
        drawn -= weights[step.rawValue]
        return drawn < 0
      }!
      note("\(summary.steps) \(step)")
      undisturbed = false
      try perform(step)
      undisturbed = true
      try check()
      if directory.hasDied { try restart(after: endOfDeath) }
    }
    try finish()
  }

  /// Throws what model or disk have found.
  func check() throws(Wrong) {
    if let violation = disk.violation { throw Wrong(message: violation) }
    if !directory.hasDied {
      model.checkWatches()
      // The deputy sees to what it hands over itself.
      if model.waiting > 0 && !deputy && threads.isWriterAsleep {
        throw Wrong(message: "\(model.waiting) operations wait, and nobody wakes the writer")
      }
    }
    if let problem = model.takeProblem() { throw Wrong(message: problem) }
  }

  /// The log may fail: a call to the disk did.
  var failing: Bool { disk.faults > 0 }

  private func perform(_ step: SimulationStep) throws(Wrong) {
    switch step {
    case .commitSmall: commit(partitions: 1, records: 3, size: 100)
    case .commitLarge: commit(partitions: 1, records: 4, size: 3_000)
    case .commitHuge: commit(partitions: 1, records: 1, size: random.pick([20_000, 60_000, 200_000]))
    case .commitMany: commit(partitions: 4, records: 2, size: 200)
    case .commitOffsets: commit(partitions: 0, records: 0, size: 0)
    case .commitBadly: commitBadly()
    case .createTopic: createTopic()
    case .alterTopic: alterTopic()
    case .deleteTopic: deleteTopic()
    case .deleteRecords: deleteRecords()
    case .deleteGroup: deleteGroup()
    case .read: read()
    case .readByTime: readByTime()
    case .lookAround: lookAround()
    case .checkEverything: try checkEverything()
    case .verify: try verifyBeside()
    case .watch: watch()
    case .cancelWatch: cancelWatch()
    case .stepWriter: _ = threads.stepWriter()
    case .stepReader: stepQueue("log-reader")
    case .stepHousekeeper: stepQueue("log-segments")
    case .stepCleaner: stepQueue("log-cleaner")
    case .tick: threads.tick()
    case .changeDeputy: changeDeputy()
    case .assist: log?.assist()
    case .advanceClock:
      clock.advance(milliseconds: random.below(10_000))
      // A clock that is set may go back.
      if random.chance(1, in: 8) { clock.wallMilliseconds -= Int64(random.below(60_000)) }
    case .decay: try decay()
    case .closeAndOpen: try closeAndOpen()
    case .killAndOpen: try restart(after: .killed)
    case .losePowerAndOpen: try restart(after: .powerLost)
    case .armDeath: armDeath(within: 25)
    case .armFault: armFault(within: 15)
    case .fillDisk: disk.capacity = disk.files.reduce(random.below(8_000)) { $0 + $1.size }
    case .freeDisk: disk.capacity = .max
    }
  }

  func stepQueue(_ name: String) {
    for queue in threads.queues where queue.name == name { _ = threads.step(queue) }
  }

  func armDeath(within calls: Int) {
    endOfDeath = random.pick([.killed, .powerLost])
    disk.armDeath(in: 1 + random.below(calls))
  }

  func armFault(within calls: Int) {
    disk.armFault(
      in: 1 + random.below(calls), noSpace: random.chance(1, in: 2), stays: random.chance(1, in: 2),
      changesOnly: random.chance(2, in: 3))
  }

  private func changeDeputy() {
    if deputy { log?.resignDeputy() } else { log?.becomeDeputy() }
    deputy.toggle()
  }

  /// While one thread waits for the disk, others go on.
  private func interlude(_ subject: String) {
    guard !undisturbed, random.chance(1, in: 10) else { return }
    undisturbed = true
    summary.interludes += 1
    meanwhile = true
    defer {
      undisturbed = false
      meanwhile = false
    }
    note("  meanwhile")
    switch random.below(8) {
    case 0, 1: commit(partitions: 1, records: 2, size: 50)
    case 2: read()
    case 3: lookAround()
    case 4: watch()
    case 5, 6: stepMeanwhile(subject)
    default: readByTime()
    }
  }

  /// A step of a thread that does not need a lock which the one in the middle of a step may hold: on real threads it would wait.
  private func stepMeanwhile(_ subject: String) {
    switch threads.running.last {
    case nil, .writer: stepQueue(random.pick(["log-reader", "log-cleaner"]))
    case .queue("log-reader"): _ = threads.stepWriter()
    case .queue("log-cleaner"):
      // The file gets its name under a lock that readers need.
      if subject.contains(".clean.tmp"), !subject.contains(" with "), random.chance(1, in: 2) {
        stepQueue("log-reader")
      } else {
        _ = threads.stepWriter()
      }
    // Whoever prepares a segment holds the lock that the writer may need.
    case .queue: break
    }
  }
}
