public import GrapeCore
public import GrapeReactor
internal import GrapeWire
internal import GrapeWorkers
internal import Logging

/// Worker processes: started, greeted, watched, ended.
extension ApplicationEngine {
  // MARK: The pool's actions

  func perform(_ actions: [WorkerPoolStateMachine.Action]) {
    for action in actions {
      switch action {
      case .spawn(let id): spawn(id)
      case .drain(let id): drain(id)
      case .kill(let id, let why): kill(id, why)
      }
    }
    armTimer()
  }

  private func spawn(_ id: Int) {
    let token = makeToken()
    let session = WorkerSession(id: id, name: "\(name)-\(id)", token: token, now: reactor.now)
    sessions[id] = session
    do {
      let launch = try environment.launch(deployment, session.name, token)
      let worker = try environment.start(
        launch, reactor,
        { [self] stream, line in
          applicationLog.append(
            worker: session.name, stream: stream.rawValue, level: stream == .stderr ? "warning" : "info", message: line)
        },
        { [self] status in exited(session, status) })
      session.process = worker
      note("info", "started, process \(worker.pid)", worker: session.name)
    } catch {
      let message = "cannot be started: \(error)"
      problem = "worker \(session.name) \(message)"
      note("error", message, worker: session.name)
      sessions[id] = nil
      // Later in the turn: the pool is in the middle of handing out actions.
      reactor.deferred { [self] in perform(pool.exited(id, now: reactor.now)) }
    }
  }

  private func drain(_ id: Int) {
    guard let session = sessions[id] else { return }
    session.isDraining = true
    session.connection?.send(.drain, id: 0) { _ in }
    updateReady()
  }

  private func kill(_ id: Int, _ why: String) {
    guard let session = sessions[id] else { return }
    session.condemnation = session.condemnation ?? why
    if state == .stopping { session.wasReleased = true }
    session.process?.signal(9)
  }

  /// Ends a worker that broke the rules.
  func condemn(_ session: WorkerSession, _ why: String) {
    note("error", "ended: \(why)", worker: session.name)
    session.disconnect()
    updateReady()
    perform(pool.condemn(session.id, why: why))
  }

  private func exited(_ session: WorkerSession, _ status: ExitStatus) {
    session.disconnect()
    sessions[session.id] = nil
    updateReady()
    let expected = session.isDraining && status == .exited(0) && session.deliveries.isEmpty
    if !expected {
      let why = session.condemnation.map { " (\($0))" } ?? ""
      note("error", "\(status)\(why), \(session.deliveries.count) deliveries unanswered", worker: session.name)
      // Its own failure is counted below. What ends workers that had started does not keep others from starting.
      if session.token != nil, pool.failedStarts >= 2 {
        problem = "workers do not start: \(session.name) \(status)\(why); see `grape app logs \(name)`"
      }
    }
    let isAlone = session.deliveries.count == 1
    for (id, partition) in session.deliveries.sorted(by: { $0.value < $1.value }) {
      let index = Int(partition)
      // One that was given up is nobody's any more.
      guard lanes[index].delivery?.id == id else { continue }
      if session.wasReleased {
        lanes[index].released()
      } else if lanes[index].workerDied(
        now: reactor.now, delay: backoff(afterAttempt: Int(lanes[index].failuresOfHead) + 1), isAlone: isAlone)
      {
        commitAttempts(index)
      }
    }
    session.process = nil
    forgetReaders()
    perform(pool.exited(session.id, now: reactor.now))
    settleStop()
    schedulePump()
  }

  private func updateReady() {
    readySessions = sessions.values.filter(\.isReady).sorted { $0.id < $1.id }
  }

  private func makeToken() -> String { (0..<4).map { _ in String(random.next(), radix: 36) }.joined() }

  // MARK: Handshake

  /// Whether `token` was given to a worker of this application that has not said hello yet.
  public func expects(token: String) -> Bool { sessions.values.contains { $0.token == token } }

  /// Welcomes the worker that holds `token`. Throws what the worker is to be told before the connection is closed.
  public func welcome(_ connection: any FrameChannel, token: String, hello: JSONValue) throws(StatusError) {
    guard let session = sessions.values.first(where: { $0.token == token }) else {
      throw StatusError(.unauthorized, "the token is not (or no longer) good")
    }
    let offered = Set((hello["slots"]?.array ?? []).compactMap(\.string))
    let missing = slotNames.filter { !offered.contains($0) }
    guard missing.isEmpty else {
      let message = "no handler for \(missing.joined(separator: ", ")), which the manifest names as slots"
      problem = "\(session.name): \(message)"
      note("error", message, worker: session.name)
      throw StatusError(.missingSlot, message)
    }
    let codecs = (hello["compression"]?.array ?? []).compactMap(\.string)
    guard profile.compression == .none || codecs.contains("zstd") else {
      let message =
        "the profile wants compression \(profile.compression), which this worker's SDK cannot do (in Python zstd comes with 3.14); compression: none goes without"
      problem = "\(session.name): \(message)"
      note("error", message, worker: session.name)
      throw StatusError(.conflict, message)
    }
    session.token = nil
    guard pool.connected(session.id) else { throw StatusError(.unavailable, "the worker is not expected any more") }
    session.acceptsZstd = codecs.contains("zstd")
    session.connection = connection
    session.lastHeard = reactor.now
    session.unchangedSince = reactor.now
    problem = nil
    connection.frameLimit = environment.frameLimit
    // Credits bound what waits to be sent. A worker writes its result before it reads the next delivery.
    connection.outputLimit = .max
    connection.onFrame = { [self] in received($0, $1, from: session) }
    connection.onEnd = { [self] in connectionEnded(session, $0) }
    connection.send(.welcome, id: 0) { $0.bytes(welcomeBody(session).utf8) }
    note("info", "ready (\(hello["agent"]?.string ?? "unknown agent"))", worker: session.name)
    updateReady()
    schedulePump()
    armTimer()
  }

  private func welcomeBody(_ session: WorkerSession) -> JSONValue {
    let routes = deployment.routes.sorted { $0.key < $1.key }.map { target, destinations in
      JSONValue.Member(
        target.description,
        .array(
          destinations.map { destination in
            guard let address = destination.address else {
              return [
                "topic": .string(destination.topic), "partitions": JSONValue(destination.partitions), "external": true,
              ]
            }
            return [
              "topic": .string(destination.topic), "event": .string(address.event.text),
              "partitions": JSONValue(destination.partitions),
            ]
          }))
    }
    return [
      "protocol": 1, "node": .string(environment.node), "app": .string(name.text),
      "version": .string(deployment.version), "worker": .string(session.name),
      "heartbeatMs": .int(heartbeatInterval / 1_000_000), "maxFrame": JSONValue(environment.frameLimit),
      "maxEvent": JSONValue(environment.eventLimit), "maxHops": JSONValue(environment.hopLimit),
      "credits": JSONValue(profile.credits), "slots": JSONValue(strings: slotNames),
      "compression": .string(profile.compression.description), "config": deployment.manifest.config,
      "routes": .object(routes), "state": stateWelcome,
    ]
  }

  // MARK: Frames

  private func received(_ header: FrameHeader, _ body: ByteSlice, from session: WorkerSession) {
    session.lastHeard = reactor.now
    switch header.type {
    case .result: take(header, body, from: session)
    case .heartbeat: heartbeat(body, from: session)
    case .log: workerLog(body, from: session)
    case .state: question(header, body, from: session)
    case .goodbye:
      session.isDraining = true
      updateReady()
    default:
      session.connection?.violation("frame type \(header.type) is not for workers to send")
      condemn(session, "it sent a frame of type \(header.type)")
    }
  }

  private func heartbeat(_ body: ByteSlice, from session: WorkerSession) {
    var reader = ByteReader(body.unsafeBytes)
    do throws(WireError) {
      session.heard(delivery: try reader.u64(), done: try reader.u32(), now: reactor.now)
      session.connection?.send(.heartbeat, id: 0) { $0.bytes(body.unsafeBytes) }
    } catch {
      condemn(session, "its heartbeat is malformed: \(error.message)")
    }
  }

  private func workerLog(_ body: ByteSlice, from session: WorkerSession) {
    do throws(JSONError) {
      let entry = try JSONValue(parsing: body.unsafeBytes)
      applicationLog.append(
        worker: session.name, stream: "log", level: entry["level"]?.string ?? "info",
        message: entry["message"]?.string ?? "", fields: entry["fields"])
    } catch {
      condemn(session, "its log entry is not JSON: \(error)")
    }
  }

  private func connectionEnded(_ session: WorkerSession, _ reason: String) {
    session.connection = nil
    updateReady()
    // A worker without its connection can do nothing any more; one that was asked to leave is on its way.
    if !session.isDraining { perform(pool.condemn(session.id, why: "its connection ended: \(reason)")) }
  }

  // MARK: Watching

  /// Ends workers that have fallen silent, or sit on one event for too long.
  func checkHeartbeats() {
    let now = reactor.now
    for session in sessions.values.sorted(by: { $0.id < $1.id }) where session.connection != nil {
      if now - session.lastHeard > 3 * heartbeatInterval {
        condemn(session, "nothing was heard of it for \((now - session.lastHeard) / 1_000_000) ms")
      } else if !session.deliveries.isEmpty, now - session.unchangedSince > profile.requestTimeout.nanoseconds {
        condemn(session, "an event took longer than the request timeout of \(profile.requestTimeout)")
      }
    }
  }
}
