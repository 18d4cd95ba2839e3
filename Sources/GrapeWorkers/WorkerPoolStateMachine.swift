/// How many workers there are, and what happens to each of them. Pure: time comes in as an argument, what is to be done goes out as
/// actions, in order.
///
/// A worker is `starting` (may become ready, exited), `ready` (draining, exited), `draining` (exited) or `ending` (killed; only its exit is
/// awaited).
public struct WorkerPoolStateMachine: Sendable {
  /// Names a worker for the pool's life.
  public typealias ID = Int

  /// Bounds and times, nanoseconds.
  public struct Policy: Hashable, Sendable {
    public var minimum: Int
    public var maximum: Int
    /// Without work for so long, workers beyond the minimum are drained; 0: never.
    public var idleTimeout: Int64
    /// From the spawn to the handshake.
    public var startupTimeout: Int64
    /// From the request to drain to the exit.
    public var terminationTimeout: Int64
    /// Wait after a first failure; doubled with each further one.
    public var backoff: Int64
    public var maximumBackoff: Int64

    public init(
      minimum: Int, maximum: Int, idleTimeout: Int64, startupTimeout: Int64, terminationTimeout: Int64,
      backoff: Int64 = 100_000_000, maximumBackoff: Int64 = 30_000_000_000
    ) {
      self.minimum = minimum
      self.maximum = maximum
      self.idleTimeout = idleTimeout
      self.startupTimeout = startupTimeout
      self.terminationTimeout = terminationTimeout
      self.backoff = backoff
      self.maximumBackoff = maximumBackoff
    }
  }

  /// What the owner must do.
  public enum Action: Hashable, Sendable {
    case spawn(ID)
    /// Ask the worker to finish what it holds and leave.
    case drain(ID)
    /// SIGKILL; the text says why.
    case kill(ID, String)
  }

  private enum State: Hashable, Sendable {
    case starting(deadline: Int64)
    case ready
    case draining(deadline: Int64)
    case ending(hadStarted: Bool)
  }

  public private(set) var policy: Policy
  private var workers: [ID: State] = [:]
  private var nextID = 1
  private var wanted = 0
  private var isStopped = false
  private var idleSince: Int64?
  private var failuresInARow = 0
  private var notBefore: Int64 = 0

  /// Workers spawned so far.
  public private(set) var spawned = 0
  /// Workers that ended without having been asked to.
  public private(set) var failures = 0

  public init(policy: Policy) {
    self.policy = policy
    wanted = policy.minimum
  }

  /// Workers that have said hello and were not asked to leave.
  public var ready: [ID] { workers.filter { $0.value == .ready }.map(\.key).sorted() }
  /// Processes that are there in any state.
  public var count: Int { workers.count }
  public var startingCount: Int {
    workers.values.reduce(0) { if case .starting = $1 { $0 + 1 } else { $0 } }
  }
  /// Failures since the last worker that proved itself.
  public var consecutiveFailures: Int { failuresInARow }
  /// Workers that ended before their handshake, since the last one that got so far.
  public private(set) var failedStarts = 0
  /// No worker is wanted and none is there.
  public var isAtRest: Bool { isStopped && workers.isEmpty }

  /// There is work for `workers` of them; 0: none is waiting or under way.
  public mutating func demand(_ count: Int, now: Int64) -> [Action] {
    if count > 0 {
      idleSince = nil
      wanted = min(policy.maximum, max(count, policy.minimum, wanted))
    } else if idleSince == nil {
      idleSince = now
    }
    return advance(now: now)
  }

  /// The worker's handshake succeeded. False: it is not expected any more and must go.
  public mutating func connected(_ id: ID) -> Bool {
    guard case .starting = workers[id] else { return false }
    workers[id] = .ready
    failedStarts = 0
    return true
  }

  /// A worker did work to the end: what made others fail is over.
  public mutating func proved() { failuresInARow = 0 }

  /// The process is gone, or could not be started.
  public mutating func exited(_ id: ID, now: Int64) -> [Action] {
    guard let state = workers.removeValue(forKey: id) else { return [] }
    if case .draining = state {
    } else {
      failures += 1
      failuresInARow += 1
      switch state {
      case .starting, .ending(hadStarted: false): failedStarts += 1
      case .ready, .draining, .ending: break
      }
      let doublings = min(failuresInARow - 1, 20)
      notBefore = now + min(policy.maximumBackoff, policy.backoff << Int64(doublings))
    }
    return advance(now: now)
  }

  /// The worker must go at once: it broke the protocol, fell silent, or sits on an event for too long.
  public mutating func condemn(_ id: ID, why: String) -> [Action] {
    switch workers[id] {
    case .starting: workers[id] = .ending(hadStarted: false)
    case .ready, .draining: workers[id] = .ending(hadStarted: true)
    case .ending, nil: return []
    }
    return [.kill(id, why)]
  }

  /// Drains all workers and starts none until `resume`.
  public mutating func stop(now: Int64) -> [Action] {
    isStopped = true
    return advance(now: now)
  }

  /// Starts workers again as they are needed, with a new policy if given.
  public mutating func resume(policy: Policy? = nil, now: Int64) -> [Action] {
    if let policy { self.policy = policy }
    isStopped = false
    failuresInARow = 0
    failedStarts = 0
    notBefore = 0
    wanted = min(self.policy.maximum, max(self.policy.minimum, idleSince == nil ? 1 : 0))
    return advance(now: now)
  }

  /// A pool for another policy that goes on numbering and counting where this one stands. Precondition: no worker is left.
  public func renewed(policy: Policy) -> WorkerPoolStateMachine {
    precondition(workers.isEmpty)
    var pool = WorkerPoolStateMachine(policy: policy)
    pool.nextID = nextID
    pool.spawned = spawned
    pool.failures = failures
    return pool
  }

  /// When `advance` should be called next though nothing else happens; nil: not needed.
  public func nextDeadline(now: Int64) -> Int64? {
    var deadlines = workers.values.compactMap { state -> Int64? in
      switch state {
      case .starting(let deadline), .draining(let deadline): deadline
      case .ready, .ending: nil
      }
    }
    if !isStopped {
      if let idleSince, policy.idleTimeout > 0, liveCount > policy.minimum {
        deadlines.append(idleSince + policy.idleTimeout)
      }
      if liveCount < wanted, notBefore > now { deadlines.append(notBefore) }
    }
    return deadlines.min()
  }

  private var liveCount: Int {
    workers.values.reduce(0) { count, state in
      switch state {
      case .starting, .ready: count + 1
      case .draining, .ending: count
      }
    }
  }

  /// Does what time has made due.
  public mutating func advance(now: Int64) -> [Action] {
    var actions: [Action] = []
    for (id, state) in workers.sorted(by: { $0.key < $1.key }) {
      switch state {
      case .starting(let deadline) where deadline <= now:
        actions += condemn(id, why: "it did not say hello within the startup timeout")
      case .draining(let deadline) where deadline <= now:
        actions += condemn(id, why: "it did not end within the termination timeout")
      default: break
      }
    }
    if isStopped {
      wanted = 0
    } else if let idleSince, policy.idleTimeout > 0, now >= idleSince + policy.idleTimeout {
      wanted = policy.minimum
    } else {
      wanted = min(policy.maximum, max(wanted, policy.minimum))
    }
    var surplus = liveCount - wanted
    // The youngest leave first: the oldest have the warmest memory.
    for (id, state) in workers.sorted(by: { $0.key > $1.key }) where surplus > 0 {
      switch state {
      case .ready:
        workers[id] = .draining(deadline: now + policy.terminationTimeout)
        actions.append(.drain(id))
        surplus -= 1
      case .starting where isStopped:
        actions += condemn(id, why: "stopped before it had started")
        surplus -= 1
      default: break
      }
    }
    if !isStopped, now >= notBefore {
      // One that was killed keeps its place until its exit is known, and with it the wait before the next.
      var missing = wanted - liveCount - workers.values.count { if case .ending = $0 { true } else { false } }
      // After a failure one worker tries first.
      if failuresInARow > 0 { missing = min(missing, 1 - startingCount) }
      while missing > 0 {
        let id = nextID
        nextID += 1
        spawned += 1
        workers[id] = .starting(deadline: now + policy.startupTimeout)
        actions.append(.spawn(id))
        missing -= 1
      }
    }
    return actions
  }
}
