internal import CGrapeLinux
internal import Glibc
internal import Synchronization

/// One thread that waits for descriptors, timers and work handed over by other threads, and runs what is due.
///
/// Everything that belongs to a node's hot path (client sessions, engines, worker connections) lives on this thread and is
/// reached by others through `post` alone, so that it needs no locks.
///
/// One turn: run what was posted, run the ends of turns (where batches gathered during the turn are sent on), and, once nothing is left
/// to do, sleep until a descriptor, a timer or a post.
public final class Reactor: @unchecked Sendable {
  // Sendable: `inbox` is locked, `thread` and `sleeping` are atomic; all else is touched by the reactor's thread only.
  private struct Inbox {
    var jobs: [@Sendable () -> Void] = []
    var stopped = false
  }

  private let inbox = Mutex(Inbox())
  private let sleeping = Atomic<Bool>(false)
  private let thread = Atomic<UInt>(0)
  private let epoll: Int32
  private let wakeup: Int32

  private var sources: [UInt64: Source] = [:]
  private var nextSource: UInt64 = 1
  private var timers = TimerQueue()
  private var local: [() -> Void] = []
  private var turnEnds: [() -> Void] = []
  private var isStopping = false

  /// What time it is for everything that lives on this reactor.
  public let clock: ReactorClock
  /// Time at the beginning of this turn, monotonic, in nanoseconds.
  public private(set) var now: Int64

  /// Which readiness a source is interested in.
  public struct Interest: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    public static let read = Interest(rawValue: UInt32(GRAPE_EPOLL_IN))
    public static let write = Interest(rawValue: UInt32(GRAPE_EPOLL_OUT))
    /// Reported whether asked for or not.
    public static let hangup = Interest(rawValue: UInt32(GRAPE_EPOLL_HUP | GRAPE_EPOLL_ERR))
  }

  /// A descriptor being watched.
  public struct SourceID: Hashable, Sendable { let raw: UInt64 }

  private struct Source {
    let descriptor: Int32
    let handler: (Interest) -> Void
  }

  /// Opens the epoll and event descriptors.
  public init(clock: ReactorClock = .system) throws(SystemError) {
    self.clock = clock
    now = clock.monotonic
    epoll = try system("epoll_create1") { grape_epoll_create() }
    do {
      wakeup = try system("eventfd") { grape_eventfd() }
    } catch {
      Glibc.close(epoll)
      throw error
    }
    let (epoll, wakeup) = (epoll, wakeup)
    try system("epoll_ctl eventfd") {
      grape_epoll_control(epoll, Int32(GRAPE_EPOLL_ADD), wakeup, UInt32(GRAPE_EPOLL_IN), 0)
    }
  }

  deinit {
    Glibc.close(wakeup)
    Glibc.close(epoll)
  }

  /// Whether the caller is on the reactor's thread.
  public var isCurrent: Bool { thread.load(ordering: .relaxed) == UInt(bitPattern: Int(pthread_self())) }

  /// Hands over work from any thread. Jobs of one thread run in their order. False once the reactor has stopped: the job will not run.
  @discardableResult
  public func post(_ job: @escaping @Sendable () -> Void) -> Bool {
    if isCurrent {
      local.append(job)
      return true
    }
    let accepted = inbox.withLock { inbox in
      if inbox.stopped { return false }
      inbox.jobs.append(job)
      return true
    }
    if accepted, sleeping.exchange(false, ordering: .acquiringAndReleasing) { wake() }
    return accepted
  }

  /// Runs `job` later in this turn. Reactor's thread only.
  public func deferred(_ job: @escaping () -> Void) { local.append(job) }

  /// A completion for use from any thread that runs `body` on the reactor's thread, never before the call that was given it returns.
  public func completion<Value: Sendable>(_ body: @escaping (Value) -> Void) -> @Sendable (Value) -> Void {
    let bound = ReactorBound(body, reactor: self)
    return { [self] value in post { bound.value(value) } }
  }

  private func wake() {
    var one: UInt64 = 1
    // Fails only when the counter is full, and then the reactor is awake anyway.
    _ = Glibc.write(wakeup, &one, 8)
  }

  /// Runs at the end of each turn, before sleeping, in order of addition. Reactor's thread, or before `run`.
  public func atTurnEnd(_ action: @escaping () -> Void) { turnEnds.append(action) }

  // MARK: Descriptors

  /// Watches a descriptor, which must stay open until `unwatch`. Reactor's thread, or before `run`.
  public func watch(
    _ descriptor: Int32, for interest: Interest, handler: @escaping (Interest) -> Void
  ) throws(SystemError) -> SourceID {
    let id = nextSource
    nextSource += 1
    try system("epoll_ctl add") {
      grape_epoll_control(epoll, Int32(GRAPE_EPOLL_ADD), descriptor, interest.rawValue, id)
    }
    sources[id] = Source(descriptor: descriptor, handler: handler)
    return SourceID(raw: id)
  }

  /// Changes what a source waits for.
  public func update(_ source: SourceID, for interest: Interest) throws(SystemError) {
    guard let descriptor = sources[source.raw]?.descriptor else { return }
    try system("epoll_ctl mod") {
      grape_epoll_control(epoll, Int32(GRAPE_EPOLL_MOD), descriptor, interest.rawValue, source.raw)
    }
  }

  /// Forgets a source; its handler is not called again. The descriptor stays the caller's.
  public func unwatch(_ source: SourceID) {
    guard let removed = sources.removeValue(forKey: source.raw) else { return }
    // The descriptor may have been closed by its owner's error handling: then epoll has forgotten it already.
    _ = grape_epoll_control(epoll, Int32(GRAPE_EPOLL_DEL), removed.descriptor, 0, 0)
  }

  // MARK: Timers

  /// Runs `action` once, `nanoseconds` from now. Reactor's thread, or before `run`.
  @discardableResult
  public func schedule(after nanoseconds: Int64, _ action: @escaping () -> Void) -> TimerID {
    timers.add(deadline: clock.monotonic + max(0, nanoseconds), action)
  }

  /// Forgets a timer. One that has fired is ignored.
  public func cancel(_ timer: TimerID) { timers.cancel(timer) }

  // MARK: Running

  /// Runs on the calling thread until `stop`.
  public func run() {
    thread.store(UInt(bitPattern: Int(pthread_self())), ordering: .relaxed)
    var events = [UInt32](repeating: 0, count: 256)
    var data = [UInt64](repeating: 0, count: 256)
    while !isStopping {
      now = clock.monotonic
      settle()
      if isStopping { break }
      let timeout = timers.timeUntilNext(now: clock.monotonic)
      // Announce the sleep, then look once more: a post either sees the announcement or is seen here.
      sleeping.store(true, ordering: .sequentiallyConsistent)
      let hasWork = inbox.withLock { !$0.jobs.isEmpty }
      let count = grape_epoll_wait(epoll, &events, &data, 256, hasWork ? 0 : timeout)
      sleeping.store(false, ordering: .sequentiallyConsistent)
      precondition(count >= 0 || errno == EINTR, "epoll_wait: \(String(cString: strerror(errno)))")
      now = clock.monotonic
      for index in 0..<max(0, Int(count)) {
        if data[index] == 0 {
          var counter: UInt64 = 0
          _ = Glibc.read(wakeup, &counter, 8)
        } else if let source = sources[data[index]] {
          source.handler(Interest(rawValue: events[index]))
        }
      }
      for action in timers.due(now: now) { action() }
    }
    inbox.withLock { $0.stopped = true }
    thread.store(0, ordering: .relaxed)
  }

  /// Does what is due, and returns where `run` would sleep: for who decides by himself when it is the reactor's turn. Descriptors
  /// are not looked at. Not to be used beside `run`.
  package func turn() {
    guard !isStopping else { return }
    thread.store(UInt(bitPattern: Int(pthread_self())), ordering: .relaxed)
    now = clock.monotonic
    for action in timers.due(now: now) { action() }
    settle()
    if isStopping { inbox.withLock { $0.stopped = true } }
    thread.store(0, ordering: .relaxed)
  }

  /// Whether a turn would find something to do now.
  package var isDue: Bool {
    !isStopping && (timers.timeUntilNext(now: clock.monotonic) == 0 || inbox.withLock { !$0.jobs.isEmpty })
  }

  /// Nanoseconds until the next timer; nil: there is none.
  package var timeUntilTimer: Int64? {
    let time = timers.timeUntilNext(now: clock.monotonic)
    return time < 0 ? nil : time
  }

  /// Forgets all work, as the death of its process does. Not from within a turn.
  package func abandon() {
    isStopping = true
    inbox.withLock { inbox in
      inbox.stopped = true
      inbox.jobs = []
    }
    local = []
    turnEnds = []
    timers = TimerQueue()
  }

  /// Runs posted work and ends of turns until neither makes more.
  private func settle() {
    repeat {
      takeInbox()
      while !local.isEmpty {
        let jobs = local
        local.removeAll(keepingCapacity: true)
        for job in jobs { job() }
        takeInbox()
      }
      for action in turnEnds { action() }
    } while !local.isEmpty && !isStopping
  }

  private func takeInbox() {
    let jobs = inbox.withLock { inbox in
      guard !inbox.jobs.isEmpty else { return [@Sendable () -> Void]() }
      defer { inbox.jobs.removeAll(keepingCapacity: false) }
      return inbox.jobs
    }
    for job in jobs { local.append(job) }
  }

  /// Ends `run` after the current turn. Any thread.
  public func stop() {
    post { [self] in isStopping = true }
  }
}

/// Something that lives on a reactor's thread, carried by others without their looking inside.
public struct ReactorBound<Value>: @unchecked Sendable {
  // Sendable: `value` traps off the reactor's thread, and nothing else reaches what is stored.
  private let stored: Value
  private unowned let reactor: Reactor

  public init(_ value: Value, reactor: Reactor) {
    stored = value
    self.reactor = reactor
  }

  /// The value. Precondition: on the reactor's thread.
  public var value: Value {
    precondition(reactor.isCurrent, "reached from outside its reactor")
    return stored
  }
}

extension Reactor {
  /// Runs `body` on the reactor's thread and waits for what it hands to `finish`, which it must call exactly once. Throws
  /// `CancellationError` if the reactor has stopped.
  public func perform<Value: Sendable>(
    _ body: @escaping @Sendable (_ finish: @escaping @Sendable (Result<Value, any Error>) -> Void) -> Void
  ) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
      let accepted = post { body { continuation.resume(with: $0) } }
      if !accepted { continuation.resume(throwing: CancellationError()) }
    }
  }
}
