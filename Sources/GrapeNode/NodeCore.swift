internal import CGrapeLinux
internal import GrapeCore
internal import GrapeEngine
internal import GrapeLog
internal import GrapeReactor
internal import GrapeWire
internal import Logging

/// What lives on the reactor's thread: the engines, the sessions, the topology that ties applications together.
final class NodeCore {
  let reactor: Reactor
  let gate: CommitGate
  let flusher = ConnectionFlusher()
  let intake: Intake
  let calls: CallTable
  let state: StateKeeper
  let configuration: NodeConfiguration
  let logger: Logger
  let launcher: LaunchPlanner
  private(set) var engines: [String: ApplicationEngine] = [:]
  /// By application, as `engines`.
  private(set) var requests: [String: RequestTable] = [:]
  private(set) var topology = Topology()
  /// Of the applications in `engines`, those whose engines are not started before people have mended something.
  var withheld: [String: InstalledApp] = [:]
  var withheldTimer: TimerID?
  /// Topics that are not Grape's.
  let external: ExternalTopics
  private var sessions: [ObjectIdentifier: ClientSession] = [:]
  private let sources = SourceTable()
  /// Connections that have not been welcomed.
  private var opening: [ObjectIdentifier: FrameConnection] = [:]
  /// Those of them that have said HELLO, and wait for what an earlier connection of their source left.
  private var awaitingTurn: Set<ObjectIdentifier> = []
  private var listener: SocketListener?
  private var admin: AdminService?
  private var isStopping = false
  let sharesLog: Bool
  /// Reply topics that were not there when they were looked for, and until when they are not looked for again.
  private var goneReplyTopics: [String: Int64] = [:]
  /// Tells this process apart from others of the same name.
  private let life = UInt64.random(in: .min ... .max)
  private static let goneTime: Int64 = 30_000_000_000
  private(set) var cluster: ClusterView?
  private var registry: RegistryFollower?

  /// Connections at a time, opening ones included.
  static let connectionLimit = 4096
  /// Time for HELLO.
  private static let openingTimeout: Int64 = 10_000_000_000

  /// - Parameters:
  ///   - sharesLog: other nodes may work on the log; its commits can fail one by one.
  ///   - onFailure: called when a log that others work on, too, takes no more from this node, which is of no use then.
  init(
    configuration: NodeConfiguration, log: any EventLog, sharesLog: Bool, onFailure: @escaping () -> Void,
    state: StateKeeper, reactor: Reactor,
    launcher: LaunchPlanner,
    logger: Logger
  ) {
    self.sharesLog = sharesLog
    self.state = state
    self.configuration = configuration
    self.reactor = reactor
    self.launcher = launcher
    self.logger = logger
    gate = CommitGate(log: log, reactor: reactor)
    intake = Intake(gate: gate)
    external = ExternalTopics(
      reactor: reactor, gate: gate, eventLimit: configuration.eventLimit, batchLimit: FrameHeader.defaultLimit,
      logger: logger)
    gate.onFailure = { [logger] error in
      logger.critical(
        sharesLog
          ? "the log takes no more from this node, which ends; started again it goes on where it stood"
          : "the log takes no more events; reads go on. Mend the cause, then start the node again",
        metadata: ["error": "\(error)"])
      if sharesLog { onFailure() }
    }
    calls = CallTable(topic: configuration.name.repliesTopic, log: log, reactor: reactor, logger: logger)
  }

  private var batchLimit: Int { FrameHeader.defaultLimit }

  private func environment() -> EngineEnvironment {
    var environment = EngineEnvironment(
      reactor: reactor, gate: gate, flusher: flusher, state: state, node: configuration.name.text,
      replies: { [unowned self] in replyTopic($0) }, eventLimit: configuration.eventLimit,
      frameLimit: FrameHeader.defaultLimit,
      batchLimit: batchLimit, hopLimit: configuration.hopLimit, logger: logger,
      engine: { [unowned self] topic in
        topic.hasSuffix(".events") ? engines[String(topic.dropLast(".events".count))] : nil
      },
      launch: { [launcher] (deployment, worker, token) throws(StatusError) in
        try launcher.launch(deployment, worker: worker, token: token)
      })
    environment.sharesLog = sharesLog
    environment.repliesAhead = { [unowned self] in calls.take(ahead: $0, of: $1) }
    environment.repliesRefused = { [unowned self] in lookFor(replyTopics: $0) }
    return environment
  }

  private func replyTopic(_ topic: String) -> ReplyTopic {
    if topic == calls.topic { return .open(partitions: 1) }
    if NodeName(repliesTopic: topic) != nil {
      // Another node's, or this one's when it had another name.
      guard sharesLog, (goneReplyTopics[topic] ?? .min) < reactor.now else { return .abandoned }
      return .open(partitions: 1)
    }
    guard topic.hasSuffix(AppName.requestsSuffix) else { return .none }
    return engines[String(topic.dropLast(AppName.requestsSuffix.count))] == nil ? .abandoned : .open(partitions: 1)
  }

  /// A commit was refused because a topic is not there: is it one of these?
  private func lookFor(replyTopics topics: [String]) {
    for topic in topics where topic != calls.topic && NodeName(repliesTopic: topic) != nil {
      gate.log.bounds(
        of: TopicPartition(topic, 0),
        completion: reactor.completion { [self] result in
          guard case .failure(let error) = result, error.code == .noSuchTopic else { return }
          goneReplyTopics[topic] = reactor.now + Self.goneTime
        })
    }
  }

  // MARK: The other nodes

  /// Begins to follow what others do, if there may be others. `position`: where the registry was read to.
  func join(deployer: Deployer, registry position: Int64, describe: @escaping () -> JSONValue) {
    guard sharesLog else { return }
    let cluster = ClusterView(
      name: configuration.name.text, log: gate.log, reactor: reactor, logger: logger, describe: describe)
    let registry = RegistryFollower(core: self, deployer: deployer, logger: logger)
    self.cluster = cluster
    self.registry = registry
    cluster.start()
    registry.start(at: position)
  }

  // MARK: Applications

  /// What would become of the topology; throws what speaks against it.
  ///
  /// - Parameter topics: all topics of the log; nil: whether sources and sinks are there does not matter.
  func check(_ manifest: Manifest, topics: Set<String>?) throws(StatusError) -> Topology {
    if let engine = engines[manifest.name.text], withheld[manifest.name.text] == nil,
      Int(engine.partitions) != manifest.partitions
    {
      throw StatusError(
        .conflict,
        "\(manifest.name) has \(engine.partitions) partitions, which are fixed once deployed; the manifest says \(manifest.partitions)"
      )
    }
    do throws(TopologyError) { return try topology.deploying([manifest], topics: topics) } catch {
      throw StatusError(.conflict, error.description)
    }
  }

  /// Puts a version in place: starts its engine, or replaces what runs; others whose routes it changes get them. `completion` when it takes events.
  func install(
    _ manifest: Manifest, version: String, directory: String, stopped: Bool,
    completion: @escaping (Result<Void, StatusError>) -> Void
  ) {
    // What is deployed has passed the check of its topics; one of them may have gone since.
    do throws(StatusError) { topology = try check(manifest, topics: nil) } catch { return completion(.failure(error)) }
    dropWithheld(manifest.name.text)
    let deployment = Deployment(
      manifest: manifest, version: version, directory: directory, routes: routes(of: manifest.name))
    let done: (Result<Void, StatusError>) -> Void = { [self] result in
      if case .success = result { reroute(except: manifest.name.text) }
      completion(result)
      watchTopics()
    }
    if let engine = engines[manifest.name.text] {
      replace(engine, with: deployment) { done($0) }
    } else {
      let engine = makeEngine(deployment)
      start(engine, stopped: stopped, awaitingGroup: true) { done($0.mapError { StatusError($0) }) }
    }
  }

  /// Lets an engine find out where it stands, and which requests it remembers.
  private func start(
    _ engine: ApplicationEngine, stopped: Bool, awaitingGroup: Bool = false,
    completion: @escaping (Result<Void, LogError>) -> Void
  ) {
    let name = engine.name.text
    let table = RequestTable(
      engine, gate: gate, reactor: reactor, calls: calls, logger: logger,
      policy: configuration.log.claimTime.map { .init(node: configuration.name.text, life: life, time: $0) })
    engines[name] = engine
    requests[name] = table
    engine.start(stopped: stopped, awaitingGroup: awaitingGroup) { result in
      guard case .success = result else { return completion(result) }
      table.start { [self] error in
        if let error { return completion(.failure(error)) }
        completion(stopped ? .success(()) : startSources(engine))
      }
    }
  }

  /// Installs what the registry names when the node starts: all at once, as they may emit to each other.
  func restore(_ apps: [InstalledApp], completion: @escaping (Result<Void, StatusError>) -> Void) {
    topology = Topology(apps.map(\.manifest))
    guard topology.usesExternalTopics else { return restoreKnown(apps, completion: completion) }
    refreshTopics { [self] result in
      if case .failure = result { return completion(result) }
      restoreKnown(apps, completion: completion)
      watchTopics()
    }
  }

  private func restoreKnown(_ apps: [InstalledApp], completion: @escaping (Result<Void, StatusError>) -> Void) {
    var missing = apps.count
    if missing == 0 { return completion(.success(())) }
    var failure: StatusError?
    for app in apps {
      let deployment = Deployment(
        manifest: app.manifest, version: app.version, directory: app.directory,
        routes: routes(of: app.manifest.name))
      let engine = makeEngine(deployment)
      let done: (Result<Void, LogError>) -> Void = { result in
        if case .failure(let error) = result { failure = failure ?? StatusError(error) }
        missing -= 1
        if missing == 0 { completion(failure.map { .failure($0) } ?? .success(())) }
      }
      if let problem = app.problem {
        engines[app.manifest.name.text] = engine
        withhold(app, engine, problem)
        done(.success(()))
      } else {
        start(engine, stopped: app.isStopped, completion: done)
      }
    }
  }

  private func makeEngine(_ deployment: Deployment) -> ApplicationEngine {
    ApplicationEngine(
      deployment, environment: environment(),
      logPath: "\(configuration.dataDirectory)/logs/\(deployment.manifest.name).log")
  }

  /// Takes out the engine of an application that is withheld: it has nothing to finish. False: it is not withheld.
  @discardableResult
  func dropWithheld(_ name: String) -> Bool {
    guard withheld.removeValue(forKey: name) != nil else { return false }
    engines[name] = nil
    return true
  }

  /// Takes an application out. Throws `conflict` while others emit to it, unless forced.
  func remove(_ app: AppName, force: Bool, completion: @escaping (Result<Void, StatusError>) -> Void) {
    guard let engine = engines[app.text] else {
      return completion(.failure(StatusError(.noSuchApp, "no application \"\(app)\" is deployed here")))
    }
    do throws(TopologyError) { topology = try topology.removing(app, force: force) } catch {
      return completion(.failure(StatusError(.conflict, error.description)))
    }
    if dropWithheld(app.text) {
      reroute(except: app.text)
      return completion(.success(()))
    }
    engines[app.text] = nil
    requests.removeValue(forKey: app.text)?.close()
    reroute(except: app.text)
    external.stop(app.text) { engine.stop { engine.leave { completion(.success(())) } } }
  }

  /// Gives new routes to the applications that the topology's change concerns.
  private func reroute(except name: String) {
    for (app, engine) in engines where app != name && withheld[app] == nil {
      let routes = routes(of: engine.name)
      guard routes != engine.deployment.routes else { continue }
      var deployment = engine.deployment
      deployment.routes = routes
      engine.replace(with: deployment) {}
    }
  }

  // MARK: Connections

  /// Opens the door.
  func listen(admin: AdminService) throws(SystemError) {
    self.admin = admin
    let listener = try SocketListener(path: configuration.socket, reactor: reactor)
    self.listener = listener
    try listener.start { [unowned self] in accept($0) }
  }

  private func accept(_ descriptor: Int32) {
    do throws(SystemError) {
      let connection = try FrameConnection(descriptor: descriptor, reactor: reactor, flusher: flusher)
      guard sessions.count + opening.count < Self.connectionLimit else {
        return connection.refuse(
          status: Status.unavailable.rawValue, name: Status.unavailable.name,
          message: "\(Self.connectionLimit) connections are open, no more are taken")
      }
      let key = ObjectIdentifier(connection)
      opening[key] = connection
      connection.onFrame = { [unowned self, unowned connection] in greet(connection, $0, $1) }
      connection.onEnd = { [unowned self] _ in opening[key] = nil }
      // Another connection may lie where this one was by then.
      reactor.schedule(after: Self.openingTimeout) { [weak self, weak connection] in
        guard let self, let connection, opening[key] === connection, !awaitingTurn.contains(key) else { return }
        connection.refuse(
          status: Status.deadlineExceeded.rawValue, name: Status.deadlineExceeded.name,
          message: "no HELLO within \(Self.openingTimeout / 1_000_000_000) s")
      }
    } catch {
      logger.warning("connection not taken", metadata: ["error": "\(error)"])
    }
  }

  private func greet(_ connection: FrameConnection, _ header: FrameHeader, _ body: ByteSlice) {
    do throws(StatusError) {
      guard header.type == .hello, header.id == 0 else {
        throw StatusError(.badRequest, "the first frame is HELLO with id 0, not \(header.type) with id \(header.id)")
      }
      let hello: JSONValue
      do throws(JSONError) { hello = try JSONValue(parsing: body.unsafeBytes) } catch {
        throw StatusError(.badRequest, "HELLO: \(error)")
      }
      let versions = hello["protocol"]?.array?.compactMap(\.int) ?? []
      guard versions.contains(1) else {
        throw StatusError(
          .unsupportedVersion, "protocol versions \(versions) are offered in HELLO's \"protocol\"; this node speaks [1]"
        )
      }
      guard !isStopping else { throw StatusError(.unavailable, "the node is stopping") }
      let key = ObjectIdentifier(connection)
      switch hello["role"]?.string {
      case "client":
        guard let source = try Self.source(hello) else {
          opening[key] = nil
          _ = openSession(connection, source: nil)
          break
        }
        try open(connection, source)
      case "worker":
        let token = hello["token"]?.string ?? ""
        guard !token.isEmpty, let engine = engines.values.first(where: { $0.expects(token: token) }) else {
          throw StatusError(.unauthorized, "the token is not (or no longer) good")
        }
        try engine.welcome(connection, token: token, hello: hello)
        opening[key] = nil
      default:
        throw StatusError(.badRequest, "HELLO's \"role\" is \"client\" or \"worker\"")
      }
    } catch {
      let name = error.status == .unauthorized ? "bad-token" : error.status.name
      connection.refuse(status: error.status.rawValue, name: name, message: error.message)
    }
  }

  /// What HELLO says in "source".
  private static func source(_ hello: JSONValue) throws(StatusError) -> SourceEpoch? {
    guard let source = hello["source"] else { return nil }
    guard let id = source["id"]?.string, (1...SourceEpoch.idLimit).contains(id.utf8.count),
      let epoch = source["epoch"]?.int, epoch > 0
    else {
      throw StatusError(
        .badRequest,
        "HELLO's \"source\" takes \"id\" (1 to \(SourceEpoch.idLimit) bytes) and \"epoch\" (a number from 1 on)")
    }
    return SourceEpoch(id: id, epoch: epoch)
  }

  /// Welcomes a client when its source's turn has come.
  private func open(_ connection: FrameConnection, _ source: SourceEpoch) throws(StatusError) {
    let key = ObjectIdentifier(connection)
    connection.pause()
    connection.onEnd = { [unowned self] _ in
      opening[key] = nil
      if awaitingTurn.remove(key) != nil { sources.abandon(source) }
    }
    var isAdmitted = false
    try sources.open(
      source,
      admit: { [unowned self] in
        isAdmitted = true
        opening[key] = nil
        awaitingTurn.remove(key)
        let session = openSession(connection, source: source)
        connection.resume()
        return session
      },
      refuse: { [unowned self] error in
        awaitingTurn.remove(key)
        connection.refuse(status: error.status.rawValue, name: error.status.name, message: error.message)
      })
    if !isAdmitted { awaitingTurn.insert(key) }
  }

  private func openSession(_ connection: FrameConnection, source: SourceEpoch?) -> ClientSession {
    guard let admin else { preconditionFailure("connections are taken once there is somebody to answer them") }
    let services = ClientServices(
      reactor: reactor, gate: gate, intake: intake, calls: calls,
      engine: { [unowned self] in engines[$0] },
      requests: { [unowned self] in requests[$0] }, admin: admin,
      eventLimit: configuration.eventLimit, batchLimit: batchLimit, frameLimit: FrameHeader.defaultLimit,
      endsLate: sharesLog)
    let session = ClientSession(connection, source: source, services: services) { [unowned self] session in
      sessions[ObjectIdentifier(session)] = nil
      if let source { sources.ended(session, of: source) }
    }
    sessions[ObjectIdentifier(session)] = session
    let welcome: JSONValue = [
      "protocol": 1, "node": .string(configuration.name.text), "version": .string(GrapeVersion.current),
      "maxFrame": JSONValue(FrameHeader.defaultLimit), "maxEvent": JSONValue(configuration.eventLimit),
      "epoch": source.map { .int($0.epoch) } ?? .null,
    ]
    connection.send(.welcome, id: 0) { $0.bytes(welcome.utf8) }
    return session
  }

  // MARK: Stopping

  /// Takes no more connections, lets workers finish what they hold, tells clients. `completion` when all of it is done.
  func stop(completion: @escaping () -> Void) {
    guard !isStopping else { return }
    isStopping = true
    listener?.close()
    listener = nil
    registry?.close()
    if let timer = withheldTimer { reactor.cancel(timer) }
    for name in withheld.keys { dropWithheld(name) }
    var missing = engines.count + 1
    let finish = { [self] in
      calls.close()
      for table in requests.values { table.close() }
      for session in sessions.values { session.close("the node is stopping") }
      for connection in opening.values { connection.close() }
      opening.removeAll()
      // What is left to be sent goes out at the end of this turn.
      guard let cluster else { return reactor.deferred { completion() } }
      cluster.close(completion: completion)
    }
    let part = {
      missing -= 1
      if missing == 0 { finish() }
    }
    external.close(completion: part)
    for engine in engines.values { engine.stop { engine.leave(completion: part) } }
  }
}

/// An application as the registry and its unpacked package give it.
struct InstalledApp: Sendable {
  var manifest: Manifest
  var version: String
  var directory: String
  var isStopped: Bool
  /// Why it cannot run here until people mend something; nil: it can.
  var problem: String?
}

/// The version of this program.
package enum GrapeVersion {
  package static let current = "0.1.0"
}
