internal import GrapeCore
internal import GrapeEngine
internal import GrapeReactor
internal import GrapeStore
internal import GrapeWire

/// Operations on the whole of an application's state: `state.backup`, `state.verify`, `state.restore` begin one, `state.job` tells how far it is.
extension AdminService {
  func beginStateJob(_ operation: String, _ request: JSONValue, _ respond: (Answer) -> Void) throws(StatusError) {
    let engine = try engine(request)
    guard engine.state != .loading else { throw StatusError(.unavailable, "\(engine.name) is starting") }
    let source = stateSource(engine)
    switch operation {
    case "state.backup":
      let directory = try directory(request)
      let job = try stateJobs.begin("backup", app: source.app)
      run(job, respond) { [archive] (control) async throws(StatusError) in
        try await archive.backUp(source, to: directory, control: control)
      }
    case "state.verify":
      run(try stateJobs.begin("verification", app: source.app), respond) {
        [archive] (control) async throws(StatusError) in
        try await archive.verify(source, control: control)
      }
    default:
      let directory = try directory(request)
      let force = request["force"]?.bool ?? false
      let job = try stateJobs.begin("restore", app: source.app)
      do throws(StatusError) { try engine.beginRestore() } catch {
        job.finish(.failure(error))
        throw error
      }
      run(job, then: { engine.endRestore() }, respond) { [archive] (control) async throws(StatusError) in
        try await archive.restore(source, from: directory, force: force, control: control)
      }
    }
  }

  private func directory(_ request: JSONValue) throws(StatusError) -> String {
    guard var path = request["directory"]?.string, path.hasPrefix("/") else {
      throw StatusError(.badRequest, "\"directory\" is an absolute path on the node's machine")
    }
    while path.count > 1, path.hasSuffix("/") { path.removeLast() }
    return path
  }

  /// Does the work in the background, and answers at once with the job's name.
  private func run(
    _ job: StateJob, then ended: @escaping () -> Void = {}, _ respond: (Answer) -> Void,
    _ work: @escaping @Sendable (StateJobControl) async throws(StatusError) -> JSONValue
  ) {
    let finish: @Sendable (Answer) -> Void = core.reactor.completion { (result: Answer) in
      ended()
      job.finish(result)
    }
    let control = job.control
    Task {
      do throws(StatusError) { finish(.success(try await work(control))) } catch { finish(.failure(error)) }
    }
    respond(.success(["job": .string(job.id)]))
  }

  /// `state.job`: how far it is, or, once it is over, its result.
  func tellStateJob(_ request: JSONValue, _ respond: @escaping (Answer) -> Void) throws(StatusError) {
    let job = try stateJob(request)
    job.wait(min(request["waitMs"]?.int ?? 0, 60_000), on: core.reactor) {
      if case .failure(let error) = job.result { return respond(.failure(error)) }
      respond(.success(job.json))
    }
  }

  /// `state.cancel`: it ends as soon as it can.
  func cancelStateJob(_ request: JSONValue, _ respond: (Answer) -> Void) throws(StatusError) {
    let job = try stateJob(request)
    job.control.cancel()
    respond(.success(job.json))
  }

  private func stateJob(_ request: JSONValue) throws(StatusError) -> StateJob {
    guard let job = stateJobs.job(request["job"]?.string ?? "") else {
      throw StatusError(
        .notFound, "no such operation goes on, or it ended long ago: \(request["job"]?.text ?? "no \"job\"")")
    }
    return job
  }

  /// Nanoseconds.
  private static let applyTimeout: Int64 = 30_000_000_000

  private func stateSource(_ engine: ApplicationEngine) -> StateSource {
    let reactor = core.reactor
    let bound = ReactorBound(engine, reactor: reactor)
    return StateSource(
      app: engine.name.text, version: engine.deployment.version, node: core.configuration.name.text,
      partitions: engine.partitions,
      snapshots: { (partitions) async throws(StatusError) in
        try await Self.onReactor(reactor) { finish in
          // What was acknowledged to anybody before is in it.
          let engine = bound.value
          var isOver = false
          engine.whenApplied(partitions) {
            guard !isOver else { return }
            isOver = true
            engine.snapshotState(partitions) { finish($0.mapError { StatusError($0) }) }
          }
          if isOver { return }
          reactor.schedule(after: Self.applyTimeout) {
            guard !isOver else { return }
            isOver = true
            finish(
              .failure(StatusError(.deadlineExceeded, "what is being committed was not applied in time; try later")))
          }
        }
      },
      write: { (partition, changes) async throws(StatusError) in
        let changes = changes
        try await Self.onReactor(reactor) { finish in
          bound.value.restore(changes, in: partition) { finish($0.mapError { StatusError($0) }) }
        }
      })
  }

  private static func onReactor<Value: Sendable>(
    _ reactor: Reactor,
    _ body: @escaping @Sendable (_ finish: @escaping @Sendable (Result<Value, StatusError>) -> Void) -> Void
  ) async throws(StatusError) -> Value {
    do {
      return try await reactor.perform { finish in body { finish($0.mapError { $0 as any Error }) } }
    } catch {
      throw (error as? StatusError) ?? StatusError(.unavailable, "the node is stopping")
    }
  }
}
