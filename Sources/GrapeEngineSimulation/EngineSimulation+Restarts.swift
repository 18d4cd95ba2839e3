import GrapeCommitLog
import GrapeCommitLogSimulation
import GrapeCore
import GrapeEngine
import GrapeLog
import GrapeReactor
import GrapeWire
import GrapeWorkers

/// How a node begins and ends.
extension EngineSimulation {
  func makeSetting() {
    let clock = clock
    setting = WorkerSetting(
      apps: apps, library: library, stores: stores, now: { clock.monotonicNanoseconds },
      wallTime: { clock.wallMilliseconds }, post: { [unowned self] job in _ = node?.reactor.post(job) },
      connect: { [unowned self] worker in connect(worker) },
      exited: { [unowned self] worker, status in exited(worker, status) },
      failed: { [unowned self] app, delivery, offsets in failed(app, delivery, offsets) },
      goOn: { [unowned self] in goOn() }, report: { [unowned self] text in report(text) })
  }

  // MARK: Starts

  /// Opens the log, compares what it shows with what it must show, and starts the engines.
  func start(powerLost: Bool) throws(Wrong) {
    disk.disarm()
    disk.forgetFaults()
    let isFirst = summary.starts == 0
    summary.starts += 1
    let directory = disk.mount()
    let threads = SimulatedThreads()
    let log: CommitLog
    do throws(LogError) {
      log = try CommitLog.open(storage: directory, options: options, clock: clock.logClock, threads: threads).0
    } catch {
      throw Wrong(message: "the log does not open: \(error)")
    }
    if isFirst { try createTopics(log, threads) }
    do throws(Mismatch) {
      let lost = try model.restarted(try find(log, threads), powerLost: powerLost)
      summary.lost += lost
      note("  started; \(lost) commits are lost")
    } catch {
      throw Wrong(message: error.message)
    }
    seen = [:]
    lostDeliveries = [:]
    isDeploying = false
    stores.callsToFault = nil
    do throws(SystemError) {
      let node = try SimulatedNode(
        log: log, threads: threads, directory: directory, model: model, clock: clock,
        provider: SimulatedStoreProvider(stores, mapped: mapped), manifests: manifests,
        groups: isShared ? SimulatedGroups(partitions: partitions) : nil)
      self.node = node
      if isFinishing { node.groups?.calmDown() }
      node.start(replyTopic: Self.replyTopic, seed: random.next(), isDeputy: isDeputy) {
        [unowned self, unowned node] app, token, onExit in
        spawn(in: node, app, token, onExit)
      }
    } catch {
      throw Wrong(message: "no reactor can be made: \(error)")
    }
  }

  private func createTopics(_ log: CommitLog, _ threads: SimulatedThreads) throws(Wrong) {
    let count = Int32(partitions)
    var topics = [(Self.replyTopic, TopicConfiguration(partitions: 1))]
    for app in apps {
      topics += [
        ("\(app).events", TopicConfiguration(partitions: count)), ("\(app).dead", TopicConfiguration(partitions: 1)),
        ("\(app).state", TopicConfiguration(partitions: count, cleanup: .compact)),
        ("\(app).writes", TopicConfiguration(partitions: count)),
      ]
    }
    for (topic, configuration) in topics {
      log.createTopic(topic, configuration: configuration) { [self] result in
        if case .failure(let error) = result { report("topic \(topic) cannot be made: \(error)") }
      }
    }
    _ = threads.runUntilIdle()
    try check()
  }

  /// Where the log ends, and where the applications stand.
  private func find(_ log: CommitLog, _ threads: SimulatedThreads) throws(Mismatch) -> EngineModel.Found {
    let gathered = Gathered(apps: apps.count)
    var places = [TopicPartition(Self.replyTopic, 0)]
    for app in apps {
      places.append(TopicPartition("\(app).dead", 0))
      for partition in 0..<Int32(partitions) {
        places += ["events", "writes", "state"].map { TopicPartition("\(app).\($0)", partition) }
      }
    }
    for place in places {
      log.bounds(of: place) { if case .success(let bounds) = $0 { gathered.found.ends[place] = bounds.end } }
    }
    for (index, app) in apps.enumerated() {
      log.committedOffsets(group: app) {
        if case .success(let offsets) = $0 { gathered.found.offsets[index] = offsets }
      }
    }
    _ = threads.runUntilIdle()
    guard gathered.found.ends.count == places.count else { throw Mismatch("the log does not tell its bounds") }
    return gathered.found
  }

  private final class Gathered: @unchecked Sendable {
    // A simulation lives on one thread.
    var found: EngineModel.Found
    init(apps: Int) { found = .init(ends: [:], offsets: .init(repeating: [:], count: apps)) }
  }

  // MARK: Ends

  /// The process ends at once, and perhaps the machine with it.
  func kill(powerLost: Bool) throws(Wrong) {
    note("  \(powerLost ? "the power goes" : "the node is killed")")
    if powerLost { summary.powerLosses += 1 } else { summary.kills += 1 }
    endProcess(powerLost: powerLost)
    try start(powerLost: powerLost)
  }

  private func endProcess(powerLost: Bool) {
    node?.die()
    node = nil
    if powerLost {
      disk.losePower()
      stores.losePower(&random)
    } else {
      disk.kill()
    }
    if random.chance(1, in: 2) { clock.advance(milliseconds: random.below(5_000)) }
  }

  /// The process has died in a call to the disk.
  func reviveIfDead() throws(Wrong) {
    if let node, node.directory.hasDied { try kill(powerLost: endsWithPowerLoss) }
  }

  /// The node stops in order, or is out of patience before its workers are, and starts anew.
  func restart() throws(Wrong) {
    guard let node, node.phase == .running else { return }
    note("  the node stops")
    summary.restarts += 1
    node.stop()
    let patience = random.pick([30, 300, 10_000])
    for _ in 0..<patience where node.phase != .stopped {
      try anyStep()
      if self.node !== node { return }
    }
    if patience == 10_000, node.phase != .stopped {
      throw Wrong(message: "the engines do not stop: \(describe(node))")
    }
    try close(node)
    let powerLost = random.chance(1, in: 3)
    if powerLost { note("  and the power goes") }
    self.node = nil
    node.die()
    disk.kill()
    if powerLost {
      disk.losePower()
      stores.losePower(&random)
    }
    // Everything that was accepted is on the disk, unless the process died over it.
    try start(powerLost: powerLost && node.directory.hasDied)
  }

  /// Closes stores and log; what engines and workers do then comes to nothing.
  private func close(_ node: SimulatedNode) throws(Wrong) {
    let closed = Gathered(apps: 0)
    node.reactor.stop()
    node.reactor.turn()
    node.keeper.close { failures in closed.found.ends[TopicPartition("stores", 0)] = Int64(failures.count) }
    node.keeper.stop()
    node.stateReactor.turn()
    node.log.close { closed.found.ends[TopicPartition("log", 0)] = 0 }
    guard node.threads.runUntilIdle() || node.directory.hasDied else {
      throw Wrong(message: "the log's threads never rest")
    }
    if !node.directory.hasDied, closed.found.ends.count != 2 { throw Wrong(message: "the node does not close") }
  }

  // MARK: Workers

  private func spawn(
    in node: SimulatedNode, _ app: String, _ token: String, _ onExit: @escaping (ExitStatus) -> Void
  ) -> any RunningWorker {
    let worker = SimulatedWorker(
      setting, seed: random.next(), pid: nextPid, app: apps.firstIndex(of: app) ?? 0, token: token, onExit: onExit)
    nextPid += 1
    summary.workers += 1
    note("  worker \(worker.pid) of \(app) starts")
    worker.channel.willDeliver = { [unowned self, unowned worker] body in willDeliver(body, to: worker) }
    node.workers.append(worker)
    return worker
  }

  private func connect(_ worker: SimulatedWorker) {
    guard let node else { return }
    node.reactor.post {
      guard !node.engines.isEmpty else { return }
      let hello: JSONValue = [
        "role": "worker", "slots": JSONValue(strings: [ProgramHandler.slot, ProgramHandler.trigger]),
        "compression": ["none", "zstd"],
      ]
      do throws(StatusError) {
        try node.engines[worker.app].welcome(worker.channel, token: worker.token, hello: hello)
      } catch {
        worker.channel.close()
      }
    }
  }

  private func exited(_ worker: SimulatedWorker, _ status: ExitStatus) {
    guard let node else { return }
    node.reactor.post { [self] in
      node.workers.removeAll { $0 === worker }
      guard !node.engines.isEmpty else { return }
      note("  worker \(worker.pid) \(status), \(worker.channel.unanswered.count) deliveries unanswered")
      let isReleased = node.engines[worker.app].state != .running
      for delivery in worker.channel.unanswered.values { lost(delivery, of: worker, isReleased: isReleased) }
      worker.onExit?(status)
    }
  }

  private func lost(_ body: ByteSlice, of worker: SimulatedWorker, isReleased: Bool) {
    guard let delivery = DeliveryHead(body) else { return report("a DELIVER frame is malformed") }
    // A delivery of a partition that has gone is nobody's loss.
    if !isReleased, !isShared {
      lostDeliveries[.init(app: worker.app, partition: delivery.partition), default: 0] += 1
    }
    let events = model.latest.partitions[worker.app][delivery.partition].events
    for offset in delivery.first..<min(delivery.end, events.count) {
      library.misfortunes[events[offset].value ?? [], default: 0] += 1
    }
  }

  private func failed(_ app: Int, _ body: ByteSlice, _ offsets: [Int]) {
    guard let delivery = DeliveryHead(body) else { return }
    let events = model.latest.partitions[app][delivery.partition].events
    for offset in offsets where events.indices.contains(offset) {
      library.misfortunes[events[offset].value ?? [], default: 0] += 1
    }
  }

  private func willDeliver(_ body: ByteSlice, to worker: SimulatedWorker) {
    guard let delivery = DeliveryHead(body) else { return report("a DELIVER frame is malformed") }
    summary.deliveries += 1
    note("  \(apps[worker.app])/\(delivery.partition): \(delivery.first)..<\(delivery.end) to worker \(worker.pid)")
    let place = ModelRun.Place(app: worker.app, partition: delivery.partition)
    let confirmed = model.confirmedAttempts[place, default: 0]
    if lostDeliveries[place, default: 0] > confirmed {
      report(
        "\(apps[worker.app])/\(delivery.partition) is delivered again, though of \(lostDeliveries[place]!) lost deliveries only \(confirmed) are noted on the disk"
      )
    }
    let processed = model.latest.partitions[worker.app][delivery.partition].processed
    // The next delivery goes out before the last commit is answered: if that is refused it comes to nothing.
    if isShared ? delivery.first < processed : delivery.first != processed {
      report("\(apps[worker.app])/\(delivery.partition) is delivered from \(delivery.first), it stands at \(processed)")
    }
  }
}

/// The fields at the beginning of a DELIVER frame.
struct DeliveryHead {
  let partition: Int
  let first: Int
  let end: Int

  init?(_ body: ByteSlice) {
    var reader = ByteReader(body.unsafeBytes)
    guard let partition = try? reader.i32(), (try? reader.u32()) != nil, let first = try? reader.i64(),
      let end = try? reader.i64()
    else { return nil }
    self.partition = Int(partition)
    self.first = Int(first)
    self.end = Int(end)
  }
}
