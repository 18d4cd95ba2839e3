public import GrapeCore
public import GrapeLog
internal import GrapeReactor
internal import GrapeWire
internal import GrapeWorkers
internal import Logging

/// Runs one application: takes its events from the log, gives them to its workers, and commits what they make of them.
///
/// Everything happens on the reactor's thread. The rules are in value types (`LaneStateMachine`, `WorkerPoolStateMachine`); this class
/// carries out what they ask for. Parts: Dispatch (log to workers), Results (workers to log), Workers (processes and handshakes), Statistics.
public final class ApplicationEngine {
  /// What the engine is doing.
  public enum State: String, Sendable { case loading, running, stopping, stopped }

  public let name: AppName
  /// Input topic.
  public let topic: String
  /// Changelog of the state, and writes of it from outside.
  let stateTopic: String
  let writesTopic: String
  public let partitions: Int32
  public private(set) var deployment: Deployment
  public internal(set) var state = State.loading
  public let applicationLog: ApplicationLog
  /// Why workers cannot be started, or events not be processed; nil: all is well.
  public internal(set) var problem: String?
  /// Checks what enters the input topic.
  public private(set) var scanner: EventScanner
  /// Slots in the manifest's order: other tables go by index into it.
  public private(set) var slotNames: [String]

  let environment: EngineEnvironment
  /// For tokens and for waits that are to differ.
  var random: any RandomNumberGenerator
  /// By partition: all of them; those that are not here stand still and empty.
  var lanes: [LaneStateMachine] = []
  /// By partition, as `lanes`.
  var tenures: [LaneTenure] = []
  /// Partitions that are this engine's and at work, ascending.
  var here: [Int] = []
  /// By partition, as `lanes`.
  var trails: [CommitTrail] = []
  var membership: GroupMembership?
  /// When the group was joined, monotonic, while it has not said yet what this engine gets; nil: it has.
  var awaitsGroupSince: Int64?
  /// Revocations whose partitions are coming to rest.
  var revocations: [(left: Set<Int>, change: GroupChange)] = []
  /// By partition: what the log refused there.
  var blames: [Int: Blame] = [:]
  /// By partition: why its last commit was refused, as told in `problem`.
  var refusedLanes: [Int: String] = [:]
  /// Told when the partitions that it began with are there.
  var whenStarted: ((Result<Void, LogError>) -> Void)?
  var whenLeft: [() -> Void] = []
  /// By partition, as `lanes`.
  var stateGates: [StateGate] = []
  /// By partition, as `lanes`; for applications that work at least once.
  var offsetPacing: [OffsetPacing] = []
  /// By partition, as `lanes`.
  var toldReplies: [ToldReplies] = []
  /// By partition, as `lanes`.
  var chores: [LaneChores] = []
  /// Those who wait until so many more changes are in a partition's store.
  var whenSettled: [Int: [(left: Int, body: () -> Void)]] = [:]
  /// It gives its partitions back, and takes no more.
  var isLeaving = false
  /// Its stores are closed.
  var isStateClosed = false
  /// The state is being brought to what a backup has: the application does not run meanwhile.
  package internal(set) var isRestoring = false
  /// Attempts to open a partition's state anew since it last worked.
  var stateAttempts: [Int: Int] = [:]
  /// What waits in each lane, by slot; empty until the lanes are there.
  var backlogs: [LaneBacklog] = []
  /// Events that wait in all lanes.
  var waiting: Int64 = 0
  /// Offsets at which lanes stand still, because a batch cannot be unpacked.
  var unreadable: [Int: Int64] = [:]
  /// Commits handed to the log and not confirmed; one that failed stays.
  var unfinishedCommits = 0
  var watches: [Int32: WatchToken] = [:]
  var pool: WorkerPoolStateMachine
  var sessions: [Int: WorkerSession] = [:]
  var readySessions: [WorkerSession] = []
  var statistics: [SlotStatistics]
  var deliveryCounter: UInt64 = 0
  var deadLetters = 0
  var retries = 0
  private var isPumpScheduled = false
  private var timerDue: Int64?
  private var whenStopped: [() -> Void] = []
  private var isGateAwaited = false

  var reactor: Reactor { environment.reactor }
  var profile: Profile { deployment.profile }
  var log: any EventLog { environment.gate.log }
  var logger: Logger { environment.logger }

  /// Creates the engine of a deployed application whose topics exist. `start` makes it run.
  ///
  /// - Parameter logPath: file of the application's log; nil: it is kept in memory alone.
  public init(_ deployment: Deployment, environment: EngineEnvironment, logPath: String?) {
    self.deployment = deployment
    self.environment = environment
    random = environment.random
    name = deployment.manifest.name
    topic = name.eventsTopic
    stateTopic = name.stateTopic
    writesTopic = name.writesTopic
    partitions = Int32(deployment.manifest.partitions)
    applicationLog = ApplicationLog(path: logPath, limit: deployment.profile.logBytes, reactor: environment.reactor)
    slotNames = deployment.manifest.slots.map(\.name.text)
    statistics = slotNames.map { _ in SlotStatistics() }
    scanner = Self.makeScanner(deployment, environment)
    pool = WorkerPoolStateMachine(policy: .init(deployment.profile))
  }

  private static func makeScanner(_ deployment: Deployment, _ environment: EngineEnvironment) -> EventScanner {
    EventScanner(
      app: deployment.manifest.name.text, slots: deployment.manifest.slots.map(\.name.text),
      eventLimit: environment.eventLimit, batchLimit: environment.batchLimit)
  }

  // MARK: Lifecycle

  /// Joins the application's consumer group and begins with the partitions that this gives it; `isStopped` leaves it at rest. `completion`
  /// once those that came at once are there.
  ///
  /// - Parameter awaitingGroup: if none come at once it is waited for the group's word, for ten seconds at most.
  public func start(
    stopped: Bool, awaitingGroup: Bool = false, completion: @escaping (Result<Void, LogError>) -> Void
  ) {
    makeLanes()
    whenStarted = { [self] result in
      if case .success = result {
        state = stopped ? .stopped : .running
        if stopped { perform(pool.stop(now: reactor.now)) }
        schedulePump()
      }
      completion(result)
    }
    join(awaitingGroup: awaitingGroup)
  }

  private func makeLanes() {
    let count = Int(partitions)
    lanes = (0..<partitions).map {
      LaneStateMachine(partition: $0, start: nil, bounds: PartitionBounds(start: 0, end: 0))
    }
    tenures = [LaneTenure](repeating: LaneTenure(), count: count)
    trails = [CommitTrail](repeating: CommitTrail(0), count: count)
    backlogs = lanes.map { _ in LaneBacklog(first: 0, end: 0, slots: slotNames.count) }
    stateGates = [StateGate](repeating: StateGate(), count: count)
    offsetPacing = [OffsetPacing](repeating: OffsetPacing(), count: count)
    toldReplies = [ToldReplies](repeating: ToldReplies(), count: count)
    chores = [LaneChores](repeating: LaneChores(position: 0), count: count)
  }

  /// Notes why it is not started: it is reported as failed. As while it is loading, what others emit to it is counted, and nothing else happens.
  public func withhold(_ problem: String) {
    precondition(state == .loading && membership == nil)
    if lanes.isEmpty { makeLanes() }
    if self.problem != problem { note("error", problem) }
    self.problem = problem
  }

  /// Lets workers finish what they hold, then starts no more. `completion` when the last is gone.
  public func stop(completion: @escaping () -> Void) {
    if state == .stopped { return completion() }
    whenStopped.append(completion)
    guard state != .stopping else { return }
    state = .stopping
    perform(pool.stop(now: reactor.now))
    settleStop()
  }

  /// Takes events again.
  public func resume() {
    guard state == .stopped, !isRestoring else { return }
    state = .running
    problem = nil
    perform(pool.resume(policy: .init(profile), now: reactor.now))
    schedulePump()
  }

  /// Puts another version (or other routes) in place of this one: old workers finish what they hold, then new ones start. Events wait
  /// meanwhile; none is lost, repeated or overtaken.
  public func replace(with deployment: Deployment, completion: @escaping () -> Void) {
    precondition(deployment.manifest.name == name && deployment.manifest.partitions == Int(partitions))
    let wasStopped = state == .stopped
    stop { [self] in
      let counts = Dictionary(zip(slotNames, statistics)) { first, _ in first }
      let names = deployment.manifest.slots.map(\.name.text)
      let places = slotNames.map { names.firstIndex(of: $0) }
      for lane in backlogs.indices { backlogs[lane].rearrange(places, count: names.count) }
      self.deployment = deployment
      slotNames = names
      statistics = slotNames.map { counts[$0] ?? SlotStatistics() }
      scanner = Self.makeScanner(deployment, environment)
      pool = pool.renewed(policy: .init(deployment.profile))
      perform(pool.stop(now: reactor.now))
      if !wasStopped { resume() }
      completion()
    }
  }

  func settleStop() {
    settleTenures()
    guard state == .stopping, pool.count == 0, lanes.allSatisfy({ $0.delivery == nil }),
      !chores.contains(where: \.isBusy)
    else { return }
    commitOffsets(upTo: .max)
    state = .stopped
    let completions = whenStopped
    whenStopped.removeAll()
    for completion in completions { completion() }
  }

  /// Forgets whoever waits for something, as the death of the process does: they may hold the engine.
  package func abandon() {
    whenStopped.removeAll()
    whenSettled.removeAll()
    whenStarted = nil
    whenLeft.removeAll()
    revocations.removeAll()
    sessions.removeAll()
    readySessions.removeAll()
  }

  // MARK: Turning the wheel

  /// Looks, later in this turn, for what can be fetched and delivered.
  func schedulePump() {
    guard !isPumpScheduled else { return }
    isPumpScheduled = true
    reactor.deferred { [self] in
      isPumpScheduled = false
      pump()
    }
  }

  private func pump() {
    guard state == .running || state == .stopping else { return }
    guard environment.gate.failure == nil else {
      problem = environment.gate.failure?.description
      return
    }
    for index in here {
      fetch(index)
      fetchWrites(index)
    }
    if state == .running {
      perform(pool.demand(workersWanted, now: reactor.now))
      if environment.gate.admitsDeliveries {
        deliverAll()
      } else if !isGateAwaited {
        isGateAwaited = true
        environment.gate.whenDrained { [self] in
          isGateAwaited = false
          schedulePump()
        }
      }
    }
    armTimer()
  }

  private func deliverAll() {
    for session in readySessions { session.turns.begin() }
    for index in here where lanes[index].isSuspect { deliver(index) }
    for index in here where !lanes[index].isSuspect { deliver(index) }
    for session in readySessions where session.turns.end() { schedulePump() }
  }

  /// Workers that would have something to do.
  private var workersWanted: Int {
    var busyLanes = 0
    var backlog: Int64 = 0
    for index in here where lanes[index].hasWork {
      busyLanes += 1
      backlog += lanes[index].lag
    }
    guard busyLanes > 0 else { return 0 }
    let byBacklog = 1 + backlog / Int64(max(1, profile.growThreshold))
    return min(busyLanes, Int(min(byBacklog, 10_000)))
  }

  /// Sees to it that time-outs are noticed, with one timer, and none while nothing can time out.
  func armTimer() {
    let now = reactor.clock.monotonic
    var due: Int64?
    func consider(_ time: Int64) { due = min(due ?? time, time) }
    if let time = pool.nextDeadline(now: now) { consider(time) }
    if !readySessions.isEmpty { consider(now + heartbeatInterval) }
    for index in here { if let time = offsetPacing[index].due { consider(time) } }
    if state == .running {
      for index in here where lanes[index].blockedUntil > now { consider(lanes[index].blockedUntil) }
      let time = reactor.clock.wall
      // While a lane is busy nothing can be removed in it; what it is busy with turns the wheel when it is done.
      for index in here
      where lanes[index].delivery == nil && stateGates[index].isSettled && environment.gate.admitsDeliveries {
        if let wait = chores[index].timeUntilExpiry(now: now, time: time) { consider(now + max(wait, 1_000_000)) }
      }
    }
    guard let due, timerDue == nil || due < timerDue! else { return }
    timerDue = due
    reactor.schedule(after: due - now) { [self] in
      guard timerDue == due else { return }
      timerDue = nil
      tick()
    }
  }

  private func tick() {
    checkHeartbeats()
    commitOffsets(upTo: reactor.now)
    perform(pool.advance(now: reactor.now))
    settleStop()
    schedulePump()
    armTimer()
  }

  /// How often workers must be heard: often enough to notice a stuck event in time.
  var heartbeatInterval: Int64 {
    max(50_000_000, min(profile.heartbeat.nanoseconds, profile.requestTimeout.nanoseconds / 2))
  }

  func note(_ level: String, _ message: String, worker: String = "") {
    applicationLog.append(worker: worker, stream: "node", level: level, message: message)
  }
}

extension WorkerPoolStateMachine.Policy {
  init(_ profile: Profile) {
    self.init(
      minimum: profile.workers.min, maximum: profile.workers.max, idleTimeout: profile.idleTimeout.nanoseconds,
      startupTimeout: profile.startupTimeout.nanoseconds, terminationTimeout: profile.terminationTimeout.nanoseconds)
  }
}
