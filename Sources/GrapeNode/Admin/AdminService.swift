internal import CGrapeLinux
internal import GrapeCore
internal import GrapeEngine
internal import GrapeLog
internal import GrapeReactor
internal import GrapeWire
internal import Glibc

/// The operations of docs/admin.md. Lives on the reactor's thread; what takes long runs elsewhere and comes back.
final class AdminService {
  typealias Answer = Result<JSONValue, StatusError>

  let core: NodeCore
  let deployer: Deployer
  let archive: StateArchive
  var stateJobs = StateJobs()
  let log: NodeLog
  /// Begins the node's orderly stop.
  private let requestStop: () -> Void
  private let started = grape_monotonic_ns()

  init(
    core: NodeCore, deployer: Deployer, archive: StateArchive, log: NodeLog, requestStop: @escaping () -> Void
  ) {
    self.core = core
    self.deployer = deployer
    self.archive = archive
    self.log = log
    self.requestStop = requestStop
  }

  /// Carries out a request; `answer` is called once, on the reactor's thread.
  func handle(_ request: JSONValue, blob: ByteSlice, answer: @escaping (BlobAnswer) -> Void) {
    let respond: (Answer) -> Void = { result in answer(result.map { ($0, ByteSlice([])) }) }
    guard let operation = request["op"]?.string else {
      return respond(.failure(StatusError(.badRequest, "the request has no \"op\"")))
    }
    do throws(StatusError) {
      switch operation {
      case "node.info": respond(.success(nodeInfo))
      case "node.stop":
        requestStop()
        respond(.success([:]))
      case "app.list": respond(.success(["apps": .array(sortedEngines.map(summary))]))
      case "app.info": try info(try engine(request), respond)
      case "app.metadata": respond(.success(metadata(try engine(request))))
      case "app.start", "app.stop", "app.restart": try setState(try engine(request), operation, respond)
      case "app.remove": remove(try engine(request), force: request["force"]?.bool ?? false, respond)
      case "app.logs": logs(try engine(request), request, respond)
      case "deploy.begin": try beginUpload(request, respond)
      case "deploy.chunk": try takeChunk(request, blob, respond)
      case "deploy.finish": try finishUpload(request, respond)
      case "cluster": respond(.success(cluster))
      case "topology": respond(.success(topology))
      case "stats": respond(.success(statistics))
      case "log.topics":
        inBackground(respond) { [log] () async throws(StatusError) in try await Self.topics(log) }
      case "log.plan": respond(.success(topicPlan))
      case "state.read": try readState(request, respond: answer)
      case "state.write": try writeState(request, blob: blob, respond: answer)
      case "state.backup", "state.verify", "state.restore": try beginStateJob(operation, request, respond)
      case "state.job": try tellStateJob(request, respond)
      case "state.cancel": try cancelStateJob(request, respond)
      case "log.offsets": try offsets(request, respond)
      case "log.create": try createTopic(request, respond)
      case "log.append": try appendRecords(request, blob, respond)
      default: throw StatusError(.badRequest, "there is no operation \"\(operation)\"; docs/admin.md lists them")
      }
    } catch {
      respond(.failure(error))
    }
  }

  /// Runs asynchronous work and answers with what it gives, back on the reactor's thread.
  func inBackground(
    _ respond: @escaping (Answer) -> Void, _ work: @escaping @Sendable () async throws(StatusError) -> JSONValue
  ) {
    let finish = core.reactor.completion(respond)
    Task {
      do throws(StatusError) { finish(.success(try await work())) } catch { finish(.failure(error)) }
    }
  }

  func engine(_ request: JSONValue) throws(StatusError) -> ApplicationEngine {
    guard let name = request["app"]?.string else { throw StatusError(.badRequest, "the request has no \"app\"") }
    guard let engine = core.engines[name] else {
      throw StatusError(.noSuchApp, "no application \"\(name)\" is deployed here")
    }
    return engine
  }

  private var sortedEngines: [ApplicationEngine] { core.engines.values.sorted { $0.name < $1.name } }

  // MARK: The node

  private var nodeInfo: JSONValue {
    [
      "node": .string(core.configuration.name.text), "version": .string(GrapeVersion.current),
      "pid": JSONValue(getpid()),
      "dataDirectory": .string(core.configuration.dataDirectory), "uptimeMs": .int(uptime),
      "log": .string(log.kind), "brokers": JSONValue(log.cluster?.brokers),
      "namespace": JSONValue(log.cluster?.namespace), "protocol": 1, "socket": .string(core.configuration.socket),
      "problem": JSONValue(core.gate.failure?.description),
    ]
  }

  private var uptime: Int64 { (grape_monotonic_ns() - started) / 1_000_000 }

  /// The nodes that share the log. This one as it is now.
  private var cluster: JSONValue {
    var table = core.cluster?.table ?? NodeTable(now: core.reactor.now)
    table.heard(
      core.configuration.name.text, selfDescription, now: core.reactor.now, time: core.reactor.clock.wall, isOld: false)
    return ["node": .string(core.configuration.name.text), "nodes": table.json(now: core.reactor.now)]
  }

  /// What this node tells the others of itself.
  var selfDescription: JSONValue {
    let apps: [JSONValue] = sortedEngines.map { engine in
      let figures = engine.statisticsJSON()
      let partitions: [JSONValue] = (figures["partitions"]?.array ?? []).map {
        ["partition": $0["partition"] ?? 0, "lag": $0["lag"] ?? 0]
      }
      return [
        "name": .string(engine.name.text), "version": .string(engine.deployment.version),
        "state": .string(engine.reportedState), "problem": JSONValue(engine.problem),
        "workers": JSONValue(engine.liveWorkers), "lag": .int(engine.lag), "rate": figures["rate"] ?? 0,
        "partitions": .array(partitions), "of": JSONValue(engine.partitions),
      ]
    }
    return [
      "node": .string(core.configuration.name.text), "version": .string(GrapeVersion.current),
      "uptimeMs": .int(uptime), "timeMs": .int(grape_realtime_ms()),
      "problem": JSONValue(core.gate.failure?.description), "apps": .array(apps),
    ]
  }

  private var statistics: JSONValue {
    // What came in earlier in this turn waits in its topic, too.
    core.intake.flush()
    return [
      "timeMs": .int(grape_realtime_ms()), "node": .string(core.configuration.name.text), "uptimeMs": .int(uptime),
      "log": log.statistics(), "clocks": clocks, "apps": .array(sortedEngines.map { statistics($0) }),
    ]
  }

  /// By how much the other nodes' clocks are ahead.
  private var clocks: JSONValue {
    let found = core.cluster?.table.clocks(otherThan: core.configuration.name.text, now: core.reactor.now) ?? []
    return .array(found.map { ["node": .string($0.node), "aheadMs": .int($0.ahead)] })
  }

  private func statistics(_ engine: ApplicationEngine) -> JSONValue {
    guard case .object(let members) = engine.statisticsJSON(), let requests = core.requests[engine.name.text] else {
      return engine.statisticsJSON()
    }
    let idempotency: JSONValue = ["keys": JSONValue(requests.count), "repeats": JSONValue(requests.repeats)]
    let name = engine.name.text
    // Records that are still to be copied are events that are still to be dealt with.
    let rest = members.map {
      $0.name == "idle" ? .init("idle", .bool(engine.isIdle && core.external.isIdle(name))) : $0
    }
    return .object(
      rest + [.init("idempotency", idempotency), .init("sources", core.external.statistics(of: name))])
  }

  private var topology: JSONValue {
    let apps: [JSONValue] = sortedEngines.map { engine in
      let figures = engine.statisticsJSON()["slots"]?.array ?? []
      let slots: [JSONValue] = zip(engine.deployment.manifest.slots, figures).map { slot, figures in
        [
          "name": .string(slot.name.text), "emits": JSONValue(strings: slot.emits.map(\.description)),
          "rate": figures["rate"] ?? 0,
        ]
      }
      return [
        "name": .string(engine.name.text), "version": .string(engine.deployment.version),
        "state": .string(engine.reportedState), "slots": .array(slots),
      ]
    }
    let edges: [JSONValue] = core.topology.edges.map { edge in
      [
        "from": .string(edge.from.text), "to": .string(edge.to.text), "signal": JSONValue(edge.signal?.text),
        "optional": .bool(edge.isOptional), "missing": .bool(edge.isMissing),
      ]
    }
    return [
      "apps": .array(apps), "edges": .array(edges), "topics": topicEdges,
      "cycles": .array(core.topology.cycles.map { JSONValue(strings: $0.map(\.text)) }),
    ]
  }

  // MARK: Applications

  private func summary(_ engine: ApplicationEngine) -> JSONValue {
    [
      "name": .string(engine.name.text), "version": .string(engine.deployment.version),
      "runtime": .string(engine.deployment.manifest.runtime.name), "state": .string(engine.reportedState),
      "problem": JSONValue(engine.problem), "workers": JSONValue(engine.liveWorkers), "lag": .int(engine.lag),
      "slots": JSONValue(strings: engine.slotNames), "topic": .string(engine.topic),
      "partitions": JSONValue(engine.partitions), "description": .string(engine.deployment.manifest.description),
    ]
  }

  private func metadata(_ engine: ApplicationEngine) -> JSONValue {
    [
      "app": .string(engine.name.text), "topic": .string(engine.topic), "partitions": JSONValue(engine.partitions),
      "slots": JSONValue(strings: engine.slotNames),
      "durability": .string(engine.deployment.profile.durability.description),
    ]
  }

  private func info(_ engine: ApplicationEngine, _ respond: @escaping (Answer) -> Void) throws(StatusError) {
    let base = summary(engine)
    let manifest = engine.deployment.manifest
    let directory = engine.deployment.directory
    let name = engine.name.text
    inBackground(respond) { [deployer] () async throws(StatusError) in
      let entry = await deployer.entry(name)
      let files = try await deployer.files(in: directory)
      guard case .object(let members) = base else { return base }
      return .object(
        members + [
          .init("previous", JSONValue(entry?.previous)), .init("deployedMs", .int(entry?.deployedMs ?? 0)),
          .init("packageBytes", JSONValue(entry?.bytes ?? 0)), .init("files", JSONValue(strings: files)),
          .init("manifest", manifest.json), .init("profile", manifest.profile.json),
        ])
    }
  }

  private func setState(
    _ engine: ApplicationEngine, _ operation: String, _ respond: @escaping (Answer) -> Void
  ) throws(StatusError) {
    if engine.isRestoring, operation != "app.stop" {
      throw StatusError(.conflict, "the state of \(engine.name) is being restored: it can be started afterwards")
    }
    let name = engine.name.text
    if core.withheld[name] != nil, operation != "app.stop" {
      core.withheld[name]?.isStopped = false
      return core.tryAgain(name, deployer) { [self] result in
        if case .failure(let error) = result { return respond(.failure(error)) }
        guard let engine = core.engines[name] else {
          return respond(.failure(StatusError(.noSuchApp, "\(name) was removed meanwhile")))
        }
        recordState(of: engine, operation, respond)
      }
    }
    let answer: () -> Void = { [self] in recordState(of: engine, operation, respond) }
    switch operation {
    case "app.start":
      resume(engine, answer, respond)
    case "app.stop": core.stop(engine, completion: answer)
    default:
      engine.replace(with: engine.deployment) { [self] in resume(engine, answer, respond) }
    }
  }

  /// The wish outlives the node: it is a record of the registry.
  private func recordState(of engine: ApplicationEngine, _ operation: String, _ respond: @escaping (Answer) -> Void) {
    let (name, state) = (engine.name.text, engine.reportedState)
    inBackground(respond) { [deployer] () async throws(StatusError) in
      if operation != "app.restart" { try await deployer.setStopped(name, operation == "app.stop") }
      return ["app": .string(name), "state": .string(state)]
    }
  }

  private func resume(_ engine: ApplicationEngine, _ answer: () -> Void, _ respond: (Answer) -> Void) {
    switch core.resume(engine) {
    case .success: answer()
    case .failure(let error): respond(.failure(error))
    }
  }

  private func logs(_ engine: ApplicationEngine, _ request: JSONValue, _ respond: @escaping (Answer) -> Void) {
    let count = Int(min(max(request["lines"]?.int ?? 100, 1), 10_000))
    let after = request["after"]?.int
    let wait = min(request["waitMs"]?.int ?? 0, 60_000)
    let answer: () -> Void = {
      let (lines, next) = engine.applicationLog.tail(count, after: after)
      respond(.success(["lines": .array(lines.map(\.json)), "next": .int(next)]))
    }
    guard let after, wait > 0, engine.applicationLog.tail(1, after: after).lines.isEmpty else { return answer() }
    var isAnswered = false
    let once: () -> Void = {
      guard !isAnswered else { return }
      isAnswered = true
      answer()
    }
    engine.applicationLog.whenLonger(than: after, once)
    core.reactor.schedule(after: wait * 1_000_000, once)
  }
}
