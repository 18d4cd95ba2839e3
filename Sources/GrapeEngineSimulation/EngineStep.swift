import GrapeCommitLogSimulation
import GrapeCore
import GrapeEngine
import GrapeReactor
import GrapeWorkers

/// What may happen next.
enum EngineStep: Int, CaseIterable {
  case nodeTurn, stateTurn, logWriter, logReader, logHousekeeper, logCleaner, logTick
  case worker
  case append, call, write, readLocally, readLinearizably
  case advanceClock
  case killWorker, silenceWorker, failStore, regroup
  case deploy, restart, killNode, losePower, armDeath

  /// How often it happens, beside the others.
  var weight: Int {
    switch self {
    case .nodeTurn: 220
    case .stateTurn: 90
    case .logWriter: 160
    case .logReader: 60
    case .logHousekeeper: 20
    case .logCleaner: 15
    case .logTick: 4
    case .worker: 320
    case .append: 50
    case .call: 14
    case .write: 14
    case .readLocally: 10
    case .readLinearizably: 10
    case .advanceClock: 60
    case .killWorker: 8
    case .silenceWorker: 1
    case .failStore: 2
    case .regroup: 6
    case .deploy: 2
    case .restart: 2
    case .killNode: 2
    case .losePower: 2
    case .armDeath: 3
    }
  }

  /// Weights for one run: some steps often, some never, so that runs differ from each other.
  static func weights(_ random: inout SimulationRandom) -> [Int] {
    allCases.map { step in
      switch step {
      // Without these nothing would ever get done.
      case .nodeTurn, .stateTurn, .logWriter, .logReader, .worker, .append, .advanceClock:
        step.weight * random.pick([1, 1, 2])
      default: step.weight * random.pick([0, 1, 1, 3])
      }
    }
  }
}

extension EngineSimulation {
  func perform(_ step: EngineStep) throws(Wrong) {
    guard let node else { throw Wrong(message: "there is no node") }
    switch step {
    case .nodeTurn: node.reactor.turn()
    case .stateTurn: node.stateReactor.turn()
    case .logWriter: _ = node.threads.stepWriter()
    case .logReader: stepQueue("log-reader")
    case .logHousekeeper: stepQueue("log-segments")
    case .logCleaner: stepQueue("log-cleaner")
    case .logTick: node.threads.tick()
    case .worker: stepWorker()
    case .append: append()
    case .call: call()
    case .write: write()
    case .readLocally: readState(isLinearizable: false)
    case .readLinearizably: readState(isLinearizable: true)
    case .advanceClock: pass(random.pick([1, 1, 5, 20, 100, 400, 1_500]))
    case .killWorker: killWorker()
    case .silenceWorker: node.workers.filter(\.isAlive).first?.isSilent = true
    case .failStore: stores.callsToFault = random.within(1...6)
    case .regroup: node.groups?.stir(&random) { note($0) }
    case .deploy: deploy()
    case .restart: try restart()
    case .killNode: try kill(powerLost: false)
    case .losePower: try kill(powerLost: true)
    case .armDeath:
      endsWithPowerLoss = random.chance(1, in: 2)
      disk.armDeath(in: random.within(1...30))
    }
  }

  func stepQueue(_ name: String) {
    guard let node else { return }
    for queue in node.threads.queues where queue.name == name { _ = node.threads.step(queue) }
  }

  func stepWorker() {
    guard let node else { return }
    let able = node.workers.filter(\.hasWork)
    guard !able.isEmpty else { return }
    let worker = random.pick(able)
    worker.step()
  }

  /// Somebody else's step, while a worker waits for an answer.
  func goOn() {
    guard let node else { return }
    depth += 1
    defer { depth -= 1 }
    switch random.below(12) {
    case 0, 1, 2, 3: node.reactor.turn()
    case 4, 5, 6: node.stateReactor.turn()
    case 7, 8: _ = node.threads.stepWriter()
    case 9: stepQueue("log-reader")
    case 10 where !isFinishing: append()
    default: if random.chance(1, in: 30), !isFinishing { killWorker() } else if depth < 4 { stepWorker() }
    }
  }

  private func killWorker() {
    guard let node else { return }
    let alive = node.workers.filter(\.isAlive)
    guard !alive.isEmpty else { return }
    let worker = random.pick(alive)
    note("  worker \(worker.pid) of \(apps[worker.app]) is killed")
    summary.workerKills += 1
    worker.die(.signalled(9))
  }

  /// Time passes, in pieces after each of which workers are heard.
  func pass(_ milliseconds: Int) {
    clock.advance(milliseconds: milliseconds)
    for worker in node?.workers ?? [] { worker.beat() }
  }

  private func deploy() {
    guard let node, node.phase == .running, !isDeploying else { return }
    let app = random.below(apps.count)
    isDeploying = true
    summary.deployments += 1
    let manifest = Self.makeManifest(apps[app], of: apps, partitions, &random)
    note("  another version of \(apps[app])")
    node.deploy(app, manifest) { [self] in
      isDeploying = false
      manifests[app] = manifest
      model.deployed(app, manifest.profile)
    }
  }
}
