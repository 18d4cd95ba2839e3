internal import CGrapeLinux
internal import GrapeCore
internal import GrapeReactor
internal import Synchronization

/// How far a long operation on state is, and whether it is to go on: written by the thread that does it, read by others.
final class StateJobControl: Sendable {
  struct Progress: Sendable {
    /// What is being done: "copying", "hashing", "checking", "replaying", "comparing", "writing".
    var phase = "waiting"
    var partition: Int32?
    var partitions: Int32 = 0
    /// Entries, records or bytes done in this phase, and to do; 0: that is not known.
    var done: Int64 = 0
    var total: Int64 = 0
  }

  private let state = Mutex((progress: Progress(), isCancelled: false))

  var progress: Progress { state.withLock { $0.progress } }
  var isCancelled: Bool { state.withLock { $0.isCancelled } }

  func cancel() { state.withLock { $0.isCancelled = true } }

  /// Tells how far it is. False: it is to be broken off.
  @discardableResult
  func tell(_ phase: String, partition: Int32? = nil, of partitions: Int32 = 0, done: Int64 = 0, total: Int64 = 0)
    -> Bool
  {
    state.withLock {
      $0.progress = Progress(phase: phase, partition: partition, partitions: partitions, done: done, total: total)
      return !$0.isCancelled
    }
  }

  func check() throws(StatusError) {
    if isCancelled { throw Self.cancelled }
  }

  static let cancelled = StatusError(.unavailable, "it was cancelled")
}

/// A long operation on an application's state. Lives on the reactor's thread.
final class StateJob {
  let id: String
  let operation: String
  let app: String
  let control = StateJobControl()
  /// nil: it goes on.
  private(set) var result: Result<JSONValue, StatusError>?
  private var waiters: [() -> Void] = []

  init(id: String, operation: String, app: String) {
    self.id = id
    self.operation = operation
    self.app = app
  }

  func finish(_ result: Result<JSONValue, StatusError>) {
    self.result = result
    let waiters = waiters
    self.waiters.removeAll()
    for waiter in waiters { waiter() }
  }

  /// Calls `body` when it is over, or after `milliseconds`.
  func wait(_ milliseconds: Int64, on reactor: Reactor, _ body: @escaping () -> Void) {
    var isCalled = false
    let once = {
      guard !isCalled else { return }
      isCalled = true
      body()
    }
    guard result == nil, milliseconds > 0 else { return once() }
    waiters.append(once)
    reactor.schedule(after: milliseconds * 1_000_000, once)
  }

  var json: JSONValue {
    let progress = control.progress
    var members: [JSONValue.Member] = [
      .init("job", .string(id)), .init("op", .string(operation)), .init("app", .string(app)),
      .init("done", .bool(result != nil)),
      .init(
        "progress",
        [
          "phase": .string(progress.phase), "partition": progress.partition.map { JSONValue($0) } ?? .null,
          "partitions": JSONValue(progress.partitions), "done": .int(progress.done), "total": .int(progress.total),
        ]),
    ]
    if case .success(let answer) = result { members.append(.init("result", answer)) }
    return .object(members)
  }
}

/// The operations that go on, one per application, and the last that ended.
struct StateJobs {
  private var jobs: [StateJob] = []
  private var counter = 0

  /// Those that ended are remembered so that their results can be asked for.
  private static let remembered = 32

  /// `conflict` while another goes on with the same application.
  mutating func begin(_ operation: String, app: String) throws(StatusError) -> StateJob {
    if let other = jobs.first(where: { $0.app == app && $0.result == nil }) {
      throw StatusError(.conflict, "\(other.operation) of \(app) is under way: one at a time")
    }
    counter += 1
    let job = StateJob(
      id: "\(counter)-\(String(UInt32.random(in: .min ... .max), radix: 36))", operation: operation, app: app)
    jobs.append(job)
    while jobs.count > Self.remembered, let old = jobs.firstIndex(where: { $0.result != nil }) { jobs.remove(at: old) }
    return job
  }

  func job(_ id: String) -> StateJob? { jobs.first { $0.id == id } }
}
