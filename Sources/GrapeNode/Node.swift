internal import CGrapeLinux
internal import GrapeCore
internal import GrapeEngine
internal import GrapeLog
internal import GrapeReactor
internal import GrapeStore
internal import GrapeWire
internal import Glibc
internal import Logging
internal import ServiceLifecycle
internal import UnixSignals

/// A node: its log, the engines of the deployed applications and the socket that leads to them, put together.
public enum Node {
  /// Runs a node until SIGINT, SIGTERM or the operation `node.stop`.
  ///
  /// Throws `NodeError` if it cannot be started, or could not be stopped in order.
  public static func run(
    _ configuration: NodeConfiguration, environment: [String: String]
  ) async throws {
    // A peer that goes away is an error of the write, not the end of the node.
    signal(SIGPIPE, SIG_IGN)
    let logger = configuration.logger
    let (stopRequests, stopContinuation) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    let service = NodeService(
      configuration: configuration.absolute(), environment: environment, logger: logger,
      requestStop: { stopContinuation.yield() })
    let group = ServiceGroup(
      configuration: .init(
        services: [.init(service: service, successTerminationBehavior: .gracefullyShutdownGroup)],
        gracefulShutdownSignals: [.sigint, .sigterm], logger: logger))
    let stopper = Task {
      for await _ in stopRequests { await group.triggerGracefulShutdown() }
    }
    defer { stopper.cancel() }
    try await group.run()
  }
}

extension NodeConfiguration {
  /// With absolute paths: workers have other working directories.
  func absolute() -> NodeConfiguration {
    var copy = self
    copy.dataDirectory = Files.absolute(dataDirectory)
    copy.socketPath = socketPath.map { Files.absolute($0) }
    return copy
  }
}

/// The node as a service: starts in order, waits, stops in the reverse order.
struct NodeService: Service {
  let configuration: NodeConfiguration
  let environment: [String: String]
  let logger: Logger
  let requestStop: @Sendable () -> Void

  func run() async throws {
    let started = grape_monotonic_ns()
    try Files.makeDirectory(configuration.dataDirectory)
    for folder in ["logs", "sdk", "cache"] { try Files.makeDirectory("\(configuration.dataDirectory)/\(folder)") }
    let opened = try NodeLog.open(configuration, logger: logger)
    let log = opened.log
    do {
      try claimSocket()
      try LaunchPlanner.installSDKs(in: configuration.dataDirectory + "/sdk")
      let topics = TopicKeeper(log: log, cluster: opened.cluster, details: opened.topicDetails, logger: logger)
      try await ensureOwnTopics(topics, isShared: opened.isShared)
      let thread = try WorkThread(name: "deployer")
      let deployer = Deployer(
        dataDirectory: configuration.dataDirectory, log: log, topics: topics, thread: thread)
      let apps = try await deployer.load()
      let reactor = try startReactor(opened)
      let state = try startState(log)
      let archive = try StateArchive(
        scratch: configuration.dataDirectory + "/scratch", log: log, thread: try WorkThread(name: "state-archive"))
      let core = try await startCore(
        reactor, log: opened, state: state, deployer: deployer, archive: archive, apps: apps)
      logger.info(
        "node ready",
        metadata: [
          "node": "\(configuration.name)", "socket": "\(configuration.socket)", "apps": "\(apps.count)",
          "start.ms": "\((grape_monotonic_ns() - started) / 1_000_000)",
        ])
      try? await gracefulShutdown()
      logger.info("node stopping", metadata: ["node": "\(configuration.name)"])
      let failure = await stop(core, reactor: reactor)
      await stop(state)
      // For whoever starts it again.
      if opened.isShared, let failure { throw NodeError("the log takes no more from this node: \(failure.message)") }
    } catch {
      await log.close()
      throw error
    }
    await log.close()
    logger.info("node stopped", metadata: ["node": "\(configuration.name)"])
  }

  /// The data directory is ours (the log is locked), so a socket in it is a leftover; one elsewhere may be somebody's.
  private func claimSocket() throws(NodeError) {
    let path = configuration.socket
    guard path.utf8.count <= 107 else {
      throw NodeError(
        "the socket's path has \(path.utf8.count) bytes, 107 are possible; name a shorter one with --socket: \(path)")
    }
    guard Files.exists(path) else { return }
    let probe = grape_unix_connect(path)
    if probe >= 0 {
      close(probe)
      throw NodeError("another node listens on \(path)")
    }
    var information = stat()
    guard lstat(path, &information) == 0, information.st_mode & S_IFMT == S_IFSOCK else {
      throw NodeError("\(path) is there and is no socket; it is left alone, name another path with --socket")
    }
    guard unlink(path) == 0 else { throw NodeError("unlink \(path): \(String(cString: strerror(errno)))") }
  }

  private func ensureOwnTopics(_ topics: TopicKeeper, isShared: Bool) async throws {
    do throws(LogError) {
      try await topics.ensure(TopicPlan.shared(byNodes: isShared) + TopicPlan.node(configuration.name))
    } catch {
      throw NodeError("the node's topics are not as they must be: \(error.message)")
    }
  }

  private func startReactor(_ log: NodeLog) throws -> Reactor {
    let reactor = try Reactor()
    try startThread(name: "reactor") { log.run { reactor.run() } }
    return reactor
  }

  private func startState(_ log: any EventLog) throws -> StateKeeper {
    let provider: LMDBStateStoreProvider
    do throws(StateError) {
      provider = try LMDBStateStoreProvider(root: configuration.dataDirectory + "/state")
    } catch {
      throw NodeError("state cannot be kept: \(error.message)")
    }
    let thread = try Reactor()
    try startThread(name: "state") { thread.run() }
    let copies = try Reactor()
    try startThread(name: "state-copies") { copies.run() }
    let logger = logger
    return StateKeeper(
      provider: provider, log: log, thread: thread, batchLimit: FrameHeader.defaultLimit, copies: copies
    ) { changelog, error in
      if let error {
        logger.warning("no checkpoint of state was made", metadata: ["changelog": "\(changelog)", "error": "\(error)"])
      } else {
        logger.debug("a checkpoint of state was made", metadata: ["changelog": "\(changelog)"])
      }
    }
  }

  /// Closes the stores, so that the next start can trust them whatever happens to the machine.
  private func stop(_ state: StateKeeper) async {
    let failures = await withCheckedContinuation { continuation in
      state.close { continuation.resume(returning: $0) }
    }
    for failure in failures {
      logger.warning(
        "state was not closed in order; it is checked at the next start", metadata: ["error": "\(failure)"])
    }
    state.stop()
  }

  private func startCore(
    _ reactor: Reactor, log: NodeLog, state: StateKeeper, deployer: Deployer, archive: StateArchive,
    apps: [InstalledApp]
  ) async throws -> ReactorBound<NodeCore> {
    let launcher = LaunchPlanner(
      socket: configuration.socket, sdkDirectory: configuration.dataDirectory + "/sdk",
      cacheDirectory: configuration.dataDirectory + "/cache", environment: environment)
    let (configuration, logger, requestStop) = (configuration, logger, requestStop)
    let registry = await deployer.position
    return try await reactor.perform { finish in
      let core = NodeCore(
        configuration: configuration, log: log.log, sharesLog: log.isShared, onFailure: requestStop, state: state,
        reactor: reactor,
        launcher: launcher, logger: logger)
      let bound = ReactorBound(core, reactor: reactor)
      // The ends of a turn, in this order: gathered events become commits, commits are written, what came of it is sent.
      reactor.atTurnEnd { core.intake.flush() }
      reactor.atTurnEnd { log.endTurn() }
      reactor.atTurnEnd { core.flusher.flush() }
      core.calls.start { error in
        if let error { return finish(.failure(NodeError("the reply topic cannot be read: \(error.message)"))) }
        core.restore(apps) { result in
          if case .failure(let error) = result { return finish(.failure(NodeError(error.message))) }
          do throws(SystemError) {
            let admin = AdminService(
              core: core, deployer: deployer, archive: archive, log: log, requestStop: requestStop)
            core.watchWithheld(deployer)
            core.join(deployer: deployer, registry: registry) { [unowned admin] in admin.selfDescription }
            try core.listen(admin: admin)
            finish(.success(bound))
          } catch {
            finish(.failure(NodeError(error.description)))
          }
        }
      }
    }
  }

  /// Stops what lives on the reactor, within the time allowed, then the reactor.
  ///
  /// - Returns: why the log takes no more, if it does not.
  private func stop(_ core: ReactorBound<NodeCore>, reactor: Reactor) async -> LogError? {
    let limit = configuration.shutdownTimeout.nanoseconds
    let logger = logger
    var failure: LogError?
    do {
      failure = try await reactor.perform { finish in
        var isDone = false
        let end: (Bool) -> Void = { inTime in
          guard !isDone else { return }
          isDone = true
          if !inTime { logger.warning("workers did not finish in time; their events stay queued") }
          finish(.success(core.value.gate.failure))
        }
        core.value.stop { end(true) }
        reactor.schedule(after: limit) { end(false) }
      }
    } catch {
      logger.warning("reactor stopped early", metadata: ["error": "\(error)"])
    }
    reactor.stop()
    return failure
  }
}
