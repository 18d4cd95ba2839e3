internal import GrapeCore
internal import GrapeEngine
internal import GrapePackages
internal import GrapeReactor
internal import GrapeWire

/// Packages on their way in.
extension AdminService {
  func beginUpload(_ request: JSONValue, _ respond: @escaping (Answer) -> Void) throws(StatusError) {
    guard let bytes = request["bytes"]?.int, let sha256 = request["sha256"]?.string else {
      throw StatusError(.badRequest, "deploy.begin takes \"bytes\" and \"sha256\"")
    }
    inBackground(respond) { [deployer] () async throws(StatusError) in
      ["upload": .string(try await deployer.beginUpload(bytes: Int(bytes), sha256: sha256))]
    }
  }

  func takeChunk(_ request: JSONValue, _ blob: ByteSlice, _ respond: @escaping (Answer) -> Void) throws(StatusError) {
    guard let upload = request["upload"]?.string, let offset = request["offset"]?.int else {
      throw StatusError(.badRequest, "deploy.chunk takes \"upload\" and \"offset\"")
    }
    inBackground(respond) { [deployer] () async throws(StatusError) in
      ["received": JSONValue(try await deployer.takeChunk(upload, offset: Int(offset), blob))]
    }
  }

  func finishUpload(_ request: JSONValue, _ respond: @escaping (Answer) -> Void) throws(StatusError) {
    guard let upload = request["upload"]?.string else {
      throw StatusError(.badRequest, "deploy.finish takes \"upload\"")
    }
    let core = ReactorBound(core, reactor: core.reactor)
    let reactor = self.core.reactor
    inBackground(respond) { [deployer] () async throws(StatusError) in
      await deployer.beginChange()
      let result: Result<JSONValue, StatusError>
      do throws(StatusError) {
        result = .success(try await Self.deploy(upload, deployer: deployer, core: core, reactor: reactor))
      } catch {
        result = .failure(error)
      }
      await deployer.endUpload(upload)
      await deployer.endChange()
      return try result.get()
    }
  }

  private static func deploy(
    _ upload: String, deployer: Deployer, core: ReactorBound<NodeCore>, reactor: Reactor
  ) async throws(StatusError) -> JSONValue {
    let candidate = try await deployer.open(upload)
    let manifest = candidate.package.manifest
    let previous = await deployer.entry(manifest.name.text)
    // Which topics there are is to be known of this moment.
    try await finishing(reactor) { finish in core.value.refreshTopics(completion: finish) }
    // Checked before anything is recorded; `install` checks once more, as nothing else changes in between.
    let cycles: JSONValue = try await onReactor(reactor) { () throws(StatusError) in
      JSONValue.array(
        try core.value.check(manifest, topics: core.value.external.names).cycles.map {
          JSONValue(strings: $0.map(\.text))
        })
    }
    let isChanged = previous?.version != candidate.package.version
    if isChanged {
      let stopped = previous?.isStopped ?? false
      _ = try await deployer.record(candidate, stopped: stopped)
      try await finishing(reactor) { finish in
        core.value.install(
          manifest, version: candidate.package.version, directory: candidate.directory, stopped: stopped,
          completion: finish)
      }
    }
    return [
      "app": .string(manifest.name.text), "version": .string(candidate.package.version),
      "previous": JSONValue(previous?.version), "changed": .bool(isChanged),
      "warnings": JSONValue(strings: manifest.warnings()), "cycles": cycles,
    ]
  }

  /// Takes an application out. A deployment of it that comes meanwhile waits, as it must find the registry as this leaves it, and
  /// must not take events that workers still have.
  func remove(_ engine: ApplicationEngine, force: Bool, _ respond: @escaping (Answer) -> Void) {
    let name = engine.name
    let core = ReactorBound(core, reactor: core.reactor)
    let reactor = self.core.reactor
    inBackground(respond) { [deployer] () async throws(StatusError) in
      await deployer.beginChange()
      let result: Result<JSONValue, StatusError>
      do throws(StatusError) {
        try await Self.finishing(reactor) { finish in core.value.remove(name, force: force, completion: finish) }
        try await deployer.remove(name.text)
        result = .success(["app": .string(name.text), "topics": JSONValue(strings: name.topics)])
      } catch {
        result = .failure(error)
      }
      await deployer.endChange()
      return try result.get()
    }
  }

  private static func onReactor<Value: Sendable>(
    _ reactor: Reactor, _ body: @escaping @Sendable () throws(StatusError) -> Value
  ) async throws(StatusError) -> Value {
    do {
      return try await reactor.perform { finish in
        do throws(StatusError) { finish(.success(try body())) } catch { finish(.failure(error)) }
      }
    } catch {
      throw (error as? StatusError) ?? StatusError(.unavailable, "the node is stopping")
    }
  }

  static func finishing(
    _ reactor: Reactor, _ body: @escaping @Sendable (@escaping @Sendable (Result<Void, StatusError>) -> Void) -> Void
  ) async throws(StatusError) {
    do {
      try await reactor.perform { finish in
        body { result in finish(result.mapError { $0 as any Error }) }
      }
    } catch {
      throw (error as? StatusError) ?? StatusError(.unavailable, "the node is stopping")
    }
  }
}
