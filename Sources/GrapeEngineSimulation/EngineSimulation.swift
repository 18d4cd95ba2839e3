import GrapeCommitLog
package import GrapeCommitLogSimulation
import GrapeCore
import GrapeEngine
import GrapeLog
import GrapeReactor
import GrapeState
import GrapeWire

/// One run of a node with its engines, log, state and workers: what happens is drawn from a seed, and a sequential model checks every commit, every
/// state that is shown to anybody, and every start.
///
/// The same seed gives the same run, as long as the code is the same.
package final class EngineSimulation: @unchecked Sendable {
  // A simulation lives on one thread.
  var random: SimulationRandom
  let seed: UInt64
  let disk: SimulatedDisk
  let clock = SimulatedClock()
  let stores = SimulatedStores()
  let library: ProgramLibrary
  let model: EngineModel
  let apps: [String]
  let partitions: Int
  let mapped: Set<String>
  var manifests: [Manifest]
  var options: CommitLogOptions
  let isDeputy: Bool
  /// Other nodes work on the log, too.
  let isShared: Bool
  var node: SimulatedNode?
  var setting: WorkerSetting!
  private let weights: [Int]
  private let stepCount: Int
  private var traced: [String]?
  private var trouble: String?
  var summary = Summary()
  /// Workers that ask about state wait while others go on: so deep.
  var depth = 0
  /// Calls made, by the lower half of their correlation id.
  var calls = 0
  var nextPid: Int32 = 1
  /// Of this life of the node: how far each partition's state was seen by readers.
  var seen: [ModelRun.Place: Int64] = [:]
  /// Of this life: deliveries that were lost with their workers.
  var lostDeliveries: [ModelRun.Place: Int] = [:]
  var isDeploying = false
  /// Nothing goes wrong any more.
  var isFinishing = false
  /// The node's process dies in one of its next calls to the disk, and then the power goes or not.
  var endsWithPowerLoss = false

  static let replyTopic = "_grape.replies.simulated"

  /// Runs the simulation of a seed. Throws what is wrong.
  package static func run(
    seed: UInt64, tracing: Bool = false
  ) throws(Simulation.Failure) -> (summary: Summary, trace: [String]) {
    let simulation = EngineSimulation(seed: seed, tracing: tracing)
    defer { simulation.end() }
    do throws(Wrong) {
      try simulation.run()
    } catch {
      throw Simulation.Failure(seed: seed, message: error.message, trace: simulation.traced ?? [])
    }
    return (simulation.summary, simulation.traced ?? [])
  }

  /// What is wrong.
  struct Wrong: Error { let message: String }

  private init(seed: UInt64, tracing: Bool) {
    self.seed = seed
    random = SimulationRandom(seed: seed)
    disk = SimulatedDisk(seed: random.next())
    apps = Array(["alpha", "beta", "gamma"].prefix(random.within(2...3)))
    partitions = random.within(1...3)
    var mapped: Set<String> = []
    for app in apps where random.chance(2, in: 3) { mapped.insert(app) }
    self.mapped = mapped
    library = ProgramLibrary(apps: apps.count, trouble: random.pick([0, 3, 10, 25]))
    options = Self.options(&random)
    isDeputy = random.chance(1, in: 2)
    isShared = random.chance(1, in: 2)
    weights = EngineStep.weights(&random)
    stepCount = random.pick([200, 500, 1_000, 2_000])
    let manifests = Self.makeManifests(apps, partitions, &random)
    self.manifests = manifests
    model = EngineModel(
      apps: apps, partitions: partitions, library: library, replyTopic: Self.replyTopic,
      profiles: manifests.map(\.profile))
    let clock = clock
    model.wallTime = { clock.wallMilliseconds }
    if tracing { traced = [] }
    makeSetting()
    stores.willShow = { [unowned self] name, image in check(name, image) }
    stores.trace = { [unowned self] name, what in note("    the store of \(name.app)/\(name.partition) \(what)") }
    model.willTake = { [unowned self] commit in note("  commit: \(commit)") }
    library.willAdd = { [unowned self] program in
      note("  program \(program.number): \(program.steps.map { "\($0)" }.joined(separator: ", "))")
    }
  }

  private func end() {
    node?.die()
    node = nil
    setting = nil
    stores.willShow = nil
    stores.trace = nil
    library.willAdd = nil
    model.willTake = nil
  }

  func note(_ text: @autoclosure () -> String) { if traced != nil { traced!.append(text()) } }

  func report(_ text: @autoclosure () -> String) { if trouble == nil { trouble = text() } }

  /// Throws what model, disk or workers have found.
  func check() throws(Wrong) {
    if let violation = disk.violation { throw Wrong(message: violation) }
    if let problem = model.takeProblem() { throw Wrong(message: problem) }
    if let trouble { throw Wrong(message: trouble) }
  }

  private func run() throws(Wrong) {
    try start(powerLost: false)
    let total = weights.reduce(0, +)
    while summary.steps < stepCount {
      summary.steps += 1
      var drawn = random.below(total)
      let step = EngineStep.allCases.first { step in
        drawn -= weights[step.rawValue]
        return drawn < 0
      }!
      try perform(step)
      try check()
      try reviveIfDead()
    }
    try finish()
    summary.commits = model.commits
    summary.events = model.latest.partitions.reduce(0) { $0 + $1.reduce(0) { $0 + $1.events.count } }
    summary.deadLetters = model.latest.deadLetters.reduce(0) { $0 + $1.count }
    summary.replies = model.latest.replies.count
    summary.storeFaults = stores.faults
    summary.partitionsTaken += node?.groups?.taken ?? 0
    summary.commitsRefused += node?.groups?.refused ?? 0
    summary.storesDiscarded = stores.discarded
  }

  // MARK: What is drawn

  private static func options(_ random: inout SimulationRandom) -> CommitLogOptions {
    var options = CommitLogOptions()
    options.segmentBytes = random.pick([16 << 10, 32 << 10, 256 << 10])
    options.tailCacheBytes = random.pick([0, 0, 32 << 20])
    options.assistBytes = random.pick([0, 1_536, 32 << 10])
    options.groupBytes = random.pick([4_096, 4 << 20])
    options.cleanableShare = random.pick([0.01, 0.2, 0.5])
    // Tombstones stay for longer than a run: a store that was left behind for that long must not be brought up to date.
    options.lowSpaceBytes = 0
    return options
  }

  private static func makeManifests(
    _ apps: [String], _ partitions: Int, _ random: inout SimulationRandom
  ) -> [Manifest] {
    var manifests: [Manifest] = []
    for app in apps { manifests.append(makeManifest(app, of: apps, partitions, &random)) }
    return manifests
  }

  /// An application as it might be deployed.
  static func makeManifest(
    _ app: String, of apps: [String], _ partitions: Int, _ random: inout SimulationRandom
  ) -> Manifest {
    var profile = Profile()
    profile.durability = random.pick([.memory, .os, .disk, .disk])
    profile.workers = .init(min: random.below(2), max: random.within(1...3))
    profile.growThreshold = random.pick([1, 3, 1_000])
    profile.credits = random.within(1...4)
    profile.batchBytes = random.pick([1, 300, 256 << 10])
    profile.retry = .init(
      attempts: random.within(1...4), backoff: .milliseconds(random.pick([1, 50, 400])), maxBackoff: .seconds(2))
    profile.idleTimeout = random.pick([.zero, .seconds(5), .seconds(60)])
    profile.requestTimeout = random.pick([.seconds(3), .seconds(30)])
    do {
      let slots = [ProgramHandler.slot, ProgramHandler.trigger]
      let targets = try apps.map { try Manifest.Target("\($0)@\(ProgramHandler.slot)") }
      return Manifest(
        name: try AppName(app), runtime: .executable(command: ["simulated"]), partitions: partitions,
        slots: try slots.map { Manifest.Slot(name: try EventName($0), emits: targets) }, profile: profile)
    } catch {
      preconditionFailure("the names are legal: \(error)")
    }
  }
}
