internal import GrapeCore
internal import GrapeEngine
internal import GrapeLog
internal import GrapeReactor
internal import GrapeWire
internal import Logging

/// Does here what was deployed, stopped, started and removed at other nodes: follows the registry, and brings this node to what it says,
/// one change after the other. Lives on the reactor's thread.
final class RegistryFollower {
  private let core: NodeCore
  private let deployer: Deployer
  private let logger: Logger
  private var follower: TopicFollower?
  private var waiting: [Deployer.Change] = []
  private var isBusy = false
  private var isClosed = false

  /// Changes that may wait; a registry is changed by people.
  private static let limit = 100_000

  init(core: NodeCore, deployer: Deployer, logger: Logger) {
    self.core = core
    self.deployer = deployer
    self.logger = logger
  }

  /// Begins at `offset` of the registry: what lies before it is installed.
  func start(at offset: Int64) {
    let follower = TopicFollower(
      TopicPartition(SystemTopic.registry, 0), log: core.gate.log, reactor: core.reactor, logger: logger
    ) { [unowned self] in take($0) }
    self.follower = follower
    follower.start(at: offset)
  }

  func close() {
    isClosed = true
    follower?.close()
    waiting.removeAll()
  }

  private func take(_ placed: PlacedRecord) {
    guard let change = Deployer.Change(placed), waiting.count < Self.limit else { return }
    waiting.append(change)
    next()
  }

  private func next() {
    guard !isBusy, !isClosed, !waiting.isEmpty else { return }
    isBusy = true
    let change = waiting.removeFirst()
    let bound = ReactorBound(core, reactor: core.reactor)
    let reactor = core.reactor
    let done = reactor.completion { [self] (failure: StatusError?) in
      if let failure {
        logger.error(
          "what was changed at another node cannot be done here",
          metadata: ["grape.app": "\(change.app)", "error": "\(failure.message)"])
      }
      isBusy = false
      next()
    }
    RegistryChanges.follow(change, deployer, bound, reactor, done)
  }

}

/// Carries out changes that were made at other nodes.
private enum RegistryChanges {
  /// Tells `done` why a change cannot be made here; nil: it was, or need not be.
  static func follow(
    _ change: Deployer.Change, _ deployer: Deployer, _ core: ReactorBound<NodeCore>, _ reactor: Reactor,
    _ done: @escaping @Sendable (StatusError?) -> Void
  ) {
    Task { done(await follow(change, deployer, core, reactor)) }
  }

  private static func follow(
    _ change: Deployer.Change, _ deployer: Deployer, _ core: ReactorBound<NodeCore>, _ reactor: Reactor
  ) async -> StatusError? {
    await deployer.beginChange()
    var failure: StatusError?
    do throws(StatusError) {
      if let step = try await deployer.adopt(change) { try await carryOut(step, change.app, core, reactor) }
    } catch {
      failure = error
    }
    await deployer.endChange()
    return failure
  }

  private static func carryOut(
    _ step: Deployer.Step, _ app: String, _ core: ReactorBound<NodeCore>, _ reactor: Reactor
  ) async throws(StatusError) {
    try await AdminService.finishing(reactor) { finish in
      switch step {
      case .install(let installed):
        core.value.refreshTopics { result in
          if case .failure = result { return finish(result) }
          core.value.install(
            installed.manifest, version: installed.version, directory: installed.directory,
            stopped: installed.isStopped,
            completion: finish)
        }
      case .start:
        finish(core.value.engines[app].map { core.value.resume($0) } ?? .success(()))
      case .stop:
        guard let engine = core.value.engines[app] else { return finish(.success(())) }
        core.value.stop(engine) { finish(.success(())) }
      case .remove:
        guard let name = core.value.engines[app]?.name else { return finish(.success(())) }
        // Whether it may go was decided where it was removed.
        core.value.remove(name, force: true, completion: finish)
      }
    }
  }
}
