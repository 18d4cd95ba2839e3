internal import GrapeCore
internal import GrapeEngine
internal import GrapeLog
internal import GrapeReactor

/// What the topics that are not Grape's mean for applications.
extension NodeCore {
  /// Where the events that an application emits go.
  func routes(of app: AppName) -> [Manifest.Target: [RouteDestination]] {
    topology.routes(of: app, topics: external.partitions)
  }

  /// Finds out which topics there are.
  func refreshTopics(completion: @escaping (Result<Void, StatusError>) -> Void) {
    external.refresh { completion($0.mapError { StatusError($0) }) }
  }

  /// Keeps an eye on the topics while an application uses some: one may come, go, or get more partitions.
  func watchTopics() {
    external.watch(
      while: { [unowned self] in topology.usesExternalTopics },
      seen: { [unowned self] in
        for engine in engines.values {
          let routes = routes(of: engine.name)
          // One that is being replaced has its routes from now; what they lack is seen the next time.
          guard routes != engine.deployment.routes, engine.state == .running || engine.state == .stopped else {
            continue
          }
          var deployment = engine.deployment
          deployment.routes = routes
          engine.replace(with: deployment) {}
        }
      })
  }

  /// Begins to bring records to an application that has sources.
  func startSources(_ engine: ApplicationEngine) -> Result<Void, LogError> {
    do throws(SystemError) {
      try external.start(engine)
      return .success(())
    } catch {
      return .failure(LogError(.busy, "the sources of \(engine.name) cannot be read: \(error.description)"))
    }
  }

  /// Has an application take events again, and its sources read.
  func resume(_ engine: ApplicationEngine) -> Result<Void, StatusError> {
    if withheld[engine.name.text] != nil {
      withheld[engine.name.text]?.isStopped = false
      return .success(())
    }
    engine.resume()
    return engine.state == .running ? startSources(engine).mapError { StatusError($0) } : .success(())
  }

  /// Has an application and its sources come to rest. `completion` when nothing is under way.
  func stop(_ engine: ApplicationEngine, completion: @escaping () -> Void) {
    if withheld[engine.name.text] != nil {
      withheld[engine.name.text]?.isStopped = true
      return completion()
    }
    external.stop(engine.name.text) { engine.stop(completion: completion) }
  }

  /// Puts another version in place. Its sources are those of the new manifest, and bring nothing while it is put there.
  func replace(
    _ engine: ApplicationEngine, with deployment: Deployment,
    completion: @escaping (Result<Void, StatusError>) -> Void
  ) {
    let name = engine.name.text
    external.stop(name) { [self] in
      engine.replace(with: deployment) { [self] in
        // Somebody may have started the application meanwhile, with the old ones.
        external.stop(name) { [self] in
          completion(engine.state == .running ? startSources(engine).mapError { StatusError($0) } : .success(()))
        }
      }
    }
  }
}
