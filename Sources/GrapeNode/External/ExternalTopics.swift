internal import GrapeCore
internal import GrapeEngine
internal import GrapeLog
internal import GrapeReactor
internal import Logging

/// The topics of the log that are not Grape's, as far as applications read them or write to them: which there are, and the
/// bridges that bring their records in. Lives on the reactor's thread.
final class ExternalTopics {
  private let reactor: Reactor
  private let gate: CommitGate
  private let eventLimit: Int
  private let batchLimit: Int
  private let logger: Logger
  /// Translates records; made when the first source is.
  private var thread: Reactor?
  /// By application.
  private var bridges: [String: SourceBridge] = [:]
  /// All topics of the log, as last seen; nil: they were not asked for yet.
  private(set) var names: Set<String>?
  /// Numbers of partitions of all topics of the log, as last seen.
  private(set) var partitions: [TopicName: Int32] = [:]
  private var isWatching = false
  private var isClosed = false

  /// How often topics are looked for while applications use some, nanoseconds.
  private static let interval: Int64 = 10_000_000_000

  init(reactor: Reactor, gate: CommitGate, eventLimit: Int, batchLimit: Int, logger: Logger) {
    self.reactor = reactor
    self.gate = gate
    self.eventLimit = eventLimit
    self.batchLimit = batchLimit
    self.logger = logger
  }

  // MARK: Which topics there are

  /// Asks the log.
  func refresh(completion: @escaping (Result<Void, LogError>) -> Void) {
    gate.log.topics(
      completion: reactor.completion { [self] result in
        completion(
          result.map { topics in
            names = Set(topics.map(\.name))
            partitions = [:]
            for topic in topics {
              if let name = try? TopicName(topic.name) { partitions[name] = topic.configuration.partitions }
            }
          })
      })
  }

  /// Looks again and again, while `isNeeded` says so; `seen` is called each time.
  func watch(while isNeeded: @escaping () -> Bool, seen: @escaping () -> Void) {
    guard !isWatching, !isClosed, isNeeded() else { return }
    isWatching = true
    reactor.schedule(after: Self.interval) { [weak self] in
      guard let self, !isClosed else { return }
      refresh { [weak self] result in
        guard let self else { return }
        isWatching = false
        switch result {
        case .success: seen()
        case .failure(let error):
          logger.warning("the log does not say which topics there are", metadata: ["error": "\(error)"])
        }
        watch(while: isNeeded, seen: seen)
      }
    }
  }

  // MARK: Bridges

  /// Begins to bring records to an application that has sources, unless that has begun already.
  func start(_ engine: ApplicationEngine) throws(SystemError) {
    let name = engine.name.text
    guard !isClosed, bridges[name] == nil, !engine.deployment.manifest.sources.isEmpty else { return }
    let environment = SourceEnvironment(
      reactor: reactor, gate: gate, thread: try translator(), eventLimit: eventLimit, batchLimit: batchLimit,
      note: { [weak engine] in engine?.noteSource($0, $1) },
      arriving: { [weak engine] in engine?.noteArriving($0, $1) ?? {} })
    let bridge = SourceBridge(engine.deployment, environment: environment)
    bridges[name] = bridge
    bridge.start()
  }

  private func translator() throws(SystemError) -> Reactor {
    if let thread { return thread }
    let made = try Reactor()
    try startThread(name: "sources") { made.run() }
    thread = made
    return made
  }

  /// Ends that; `completion` when nothing is under way.
  func stop(_ app: String, completion: @escaping () -> Void) {
    guard let bridge = bridges.removeValue(forKey: app) else { return completion() }
    bridge.stop(completion: completion)
  }

  /// Ends all of it.
  func close(completion: @escaping () -> Void) {
    isClosed = true
    var missing = bridges.count
    let finish = { [self] in
      thread?.stop()
      thread = nil
      completion()
    }
    if missing == 0 { return finish() }
    for app in bridges.keys.sorted() {
      stop(app) {
        missing -= 1
        if missing == 0 { finish() }
      }
    }
  }

  // MARK: Figures

  /// As in the answer to `stats`; empty for an application without sources, or one that is stopped.
  func statistics(of app: String) -> JSONValue { bridges[app]?.statisticsJSON(topics: names) ?? [] }

  /// Nothing is left to be copied for an application, as far as is known.
  func isIdle(_ app: String) -> Bool { bridges[app]?.isIdle ?? true }
}
