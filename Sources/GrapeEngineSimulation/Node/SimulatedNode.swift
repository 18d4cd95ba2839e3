import GrapeCommitLog
import GrapeCommitLogSimulation
import GrapeCore
import GrapeEngine
import GrapeLog
import GrapeReactor
import GrapeStore
import GrapeWire
import GrapeWorkers
import Logging

/// One life of a node: the log on the simulated disk, the keeper of state, and the engines, put together as a node does it, with two reactors that
/// take their turns when the simulation says so.
final class SimulatedNode: @unchecked Sendable {
  // A simulation lives on one thread.
  enum Phase { case starting, running, stopping, stopped }

  let threads: SimulatedThreads
  let directory: SimulatedDirectory
  let log: CommitLog
  let observed: ObservedLog
  /// nil: the node has the log for itself.
  let groups: SimulatedGroups?
  let reactor: Reactor
  let stateReactor: Reactor
  let keeper: StateKeeper
  let gate: CommitGate
  private(set) var engines: [ApplicationEngine] = []
  var workers: [SimulatedWorker] = []
  private(set) var phase = Phase.starting
  private(set) var startFailure: LogError?
  private let manifests: [Manifest]
  private var nextVersion = 1

  init(
    log: CommitLog, threads: SimulatedThreads, directory: SimulatedDirectory, model: EngineModel, clock: SimulatedClock,
    provider: any StateStoreProvider, manifests: [Manifest], groups: SimulatedGroups?
  ) throws(SystemError) {
    self.log = log
    self.threads = threads
    self.directory = directory
    self.manifests = manifests
    self.groups = groups
    observed = ObservedLog(log, model: model, groups: groups)
    let time = ReactorClock(monotonic: { clock.monotonicNanoseconds }, wall: { clock.wallMilliseconds })
    reactor = try Reactor(clock: time)
    stateReactor = try Reactor(clock: time)
    keeper = StateKeeper(provider: provider, log: observed, thread: stateReactor, batchLimit: FrameHeader.defaultLimit)
    gate = CommitGate(log: observed, reactor: reactor)
  }

  // MARK: Starting

  /// Makes the engines and lets them find out where they stand.
  func start(
    replyTopic: String, seed: UInt64, isDeputy: Bool,
    spawn: @escaping (_ app: String, _ token: String, _ onExit: @escaping (ExitStatus) -> Void) -> any RunningWorker
  ) {
    if isDeputy {
      log.becomeDeputy()
      reactor.atTurnEnd { [log] in log.assist() }
    }
    var environment = EngineEnvironment(
      reactor: reactor, gate: gate, flusher: ConnectionFlusher(), state: keeper, node: "simulated",
      replies: { $0 == replyTopic ? .open(partitions: 1) : .none }, eventLimit: 1 << 20,
      frameLimit: FrameHeader.defaultLimit,
      batchLimit: FrameHeader.defaultLimit, hopLimit: 64,
      logger: Logger(label: "simulation", factory: { _ in SwiftLogNoOpLogHandler() }),
      engine: { [unowned self] topic in engines.first { $0.topic == topic } },
      launch: { (deployment, _, token) throws(StatusError) in
        WorkerLaunch(
          program: deployment.manifest.name.text, arguments: [token], environment: [:], directory: deployment.version)
      },
      start: { (launch, _, _, onExit) throws(SystemError) in spawn(launch.program, launch.arguments[0], onExit) },
      random: SimulationRandom(seed: seed))
    environment.sharesLog = groups != nil
    let topology = Topology(manifests)
    engines = manifests.map { manifest in
      ApplicationEngine(
        Deployment(manifest: manifest, version: "1", directory: "", routes: topology.routes(of: manifest.name)),
        environment: environment, logPath: nil)
    }
    reactor.post { [self] in
      var missing = engines.count
      for engine in engines {
        engine.start(stopped: false) { [self] result in
          if case .failure(let error) = result { startFailure = error }
          missing -= 1
          if missing == 0, startFailure == nil { phase = .running }
        }
      }
    }
  }

  /// Puts another version of an application in place.
  func deploy(_ app: Int, _ manifest: Manifest, done: @escaping () -> Void) {
    nextVersion += 1
    let version = "\(nextVersion)"
    let box = Box(done)
    reactor.post { [self] in
      let engine = engines[app]
      let deployment = Deployment(
        manifest: manifest, version: version, directory: "", routes: engine.deployment.routes)
      engine.replace(with: deployment) { box.body() }
    }
  }

  private struct Box: @unchecked Sendable {
    // A simulation lives on one thread.
    let body: () -> Void
    init(_ body: @escaping () -> Void) { self.body = body }
  }

  // MARK: Ending

  /// Begins to stop in order.
  func stop() {
    phase = .stopping
    reactor.post { [self] in
      var missing = engines.count
      for engine in engines {
        engine.stop { [self] in
          missing -= 1
          if missing == 0 { phase = .stopped }
        }
      }
    }
  }

  /// The process ends, whatever it is doing.
  func die() {
    for worker in workers { worker.vanish() }
    workers = []
    threads.discard()
    reactor.abandon()
    stateReactor.abandon()
    keeper.abandon()
    observed.discard()
    for engine in engines { engine.abandon() }
    engines = []
  }

  /// Everything that was to be done is done.
  var isIdle: Bool {
    phase == .running && engines.allSatisfy(\.isIdle) && !workers.contains(where: \.hasWork) && !reactor.isDue
      && !stateReactor.isDue
  }
}
