internal import GrapeCore
internal import GrapeEngine
internal import GrapeReactor
internal import Logging

/// Applications that are deployed and cannot run, because their topics are not as they must be. They keep neither the node nor other applications
/// from working: their engines are there, failed, and are started when what is wrong has been mended.
extension NodeCore {
  /// How often it is looked whether somebody has mended it, nanoseconds.
  private static let lookTime: Int64 = 30_000_000_000

  func withhold(_ app: InstalledApp, _ engine: ApplicationEngine, _ problem: String) {
    withheld[app.manifest.name.text] = app
    engine.withhold(problem)
    logger.error(
      "an application cannot run here; it is tried again every 30 seconds, and by `grape app start`",
      metadata: ["grape.app": "\(app.manifest.name)", "error": "\(problem)"])
  }

  /// Begins to look, every now and then, whether what is wrong has been mended.
  func watchWithheld(_ deployer: Deployer) {
    guard !withheld.isEmpty, withheldTimer == nil else { return }
    withheldTimer = reactor.schedule(after: Self.lookTime) { [self] in
      withheldTimer = nil
      tryWithheld(withheld.keys.sorted()[...], deployer)
    }
  }

  private func tryWithheld(_ names: ArraySlice<String>, _ deployer: Deployer) {
    guard let name = names.first else { return watchWithheld(deployer) }
    tryAgain(name, deployer) { [self] _ in tryWithheld(names.dropFirst(), deployer) }
  }

  /// Looks at the topics of an application again, and starts it if they are as they must be now. Successful, too, if it is not withheld (any more).
  func tryAgain(_ name: String, _ deployer: Deployer, completion: @escaping (Result<Void, StatusError>) -> Void) {
    guard let app = withheld[name] else { return completion(.success(())) }
    Withheld.tryAgain(app, deployer, ReactorBound(self, reactor: reactor), reactor, reactor.completion(completion))
  }
}

/// Tries off the reactor's thread whether applications can run again.
private enum Withheld {
  static func tryAgain(
    _ app: InstalledApp, _ deployer: Deployer, _ core: ReactorBound<NodeCore>, _ reactor: Reactor,
    _ done: @escaping @Sendable (Result<Void, StatusError>) -> Void
  ) {
    Task { done(await tryAgain(app, deployer, core, reactor)) }
  }

  private static func tryAgain(
    _ app: InstalledApp, _ deployer: Deployer, _ core: ReactorBound<NodeCore>, _ reactor: Reactor
  ) async -> Result<Void, StatusError> {
    await deployer.beginChange()
    let result: Result<Void, StatusError>
    do throws(StatusError) {
      let problem: String?
      do throws(NodeError) { problem = try await deployer.problem(ofTopics: app.manifest) } catch {
        throw StatusError(.unavailable, error.message)
      }
      try await AdminService.finishing(reactor) { finish in
        let core = core.value
        // Another version may have been deployed meanwhile, or it was removed.
        guard let now = core.withheld[app.manifest.name.text], now.version == app.version else {
          return finish(.success(()))
        }
        if let problem {
          core.engines[app.manifest.name.text]?.withhold(problem)
          return finish(.failure(StatusError(.conflict, problem)))
        }
        core.logger.info("an application can run again", metadata: ["grape.app": "\(app.manifest.name)"])
        core.install(
          now.manifest, version: now.version, directory: now.directory, stopped: now.isStopped, completion: finish)
      }
      result = .success(())
    } catch {
      result = .failure(error)
    }
    await deployer.endChange()
    return result
  }
}
