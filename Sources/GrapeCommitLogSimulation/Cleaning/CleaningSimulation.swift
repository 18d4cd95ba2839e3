import GrapeCommitLog
import GrapeLog
import GrapeTestKit
import GrapeWire

/// Retention by age and size, and compaction by key, step by step beside everything else that a log does, on a disk that fails under
/// a process that dies: nothing is ever removed that somebody may still want, everything else is as it was written, and removing
/// ends.
final class CleaningSimulation: @unchecked Sendable {
  // A simulation lives on one thread.
  var random: SimulationRandom
  let seed: UInt64
  let disk: SimulatedDisk
  let clock = SimulatedClock()
  var options = CommitLogOptions()
  let model: CleaningModel
  var threads = SimulatedThreads()
  var directory: SimulatedDirectory
  var log: CommitLog?
  /// How the process ends if a call kills it.
  var endOfDeath = LogModel.End.killed
  /// No step of another thread comes between now.
  var undisturbed = true
  /// The log was asked to close.
  var closing = false
  private var problem: String?
  /// Moves on, so that keys fall silent.
  private var firstKey = 0
  private var traced: [String]?
  var summary = Simulation.Summary()

  /// Runs the simulation of a seed. Throws what is wrong with the log.
  static func run(seed: UInt64, tracing: Bool) throws(Simulation.Failure) -> (Simulation.Summary, trace: [String]) {
    let simulation = CleaningSimulation(seed: seed, tracing: tracing)
    defer { simulation.end() }
    do throws(Simulation.Wrong) {
      try simulation.run()
    } catch {
      throw Simulation.Failure(seed: seed, message: error.message, trace: simulation.traced ?? [])
    }
    simulation.summary.calls = simulation.disk.calls
    simulation.summary.operations = simulation.model.operations
    return (simulation.summary, simulation.traced ?? [])
  }

  private init(seed: UInt64, tracing: Bool) {
    self.seed = seed
    random = SimulationRandom(seed: seed &+ 0xc1ea)
    disk = SimulatedDisk(seed: random.next())
    directory = disk.mount()
    directory.close()
    options.segmentBytes = random.pick([8, 8, 16, 32]) << 10
    options.tailCacheBytes = random.pick([0, 0, 0, 16 << 10])
    options.indexCacheBytes = random.pick([0, 4 << 10, 1 << 20])
    options.compactionBytes = random.pick([1, 1 << 10, 1 << 11, 1 << 16, 1 << 20])
    options.cleanableShare = random.pick([0.01, 0.01, 0.3, 0.7])
    options.tombstoneMilliseconds = Int64(random.pick([0, 200, 1_000, 5_000]))
    options.lowSpaceBytes = 0
    model = CleaningModel(tombstoneMilliseconds: options.tombstoneMilliseconds)
    if tracing {
      traced = []
      disk.trace = { [unowned self] call in note("    \(call)") }
    }
    disk.interlude = { [unowned self] subject in interlude(subject) }
  }

  /// Breaks the circles of references between the log and its threads.
  private func end() {
    threads.discard()
    log = nil
    disk.interlude = nil
    disk.trace = nil
  }

  func note(_ text: @autoclosure () -> String) { if traced != nil { traced!.append(text()) } }

  func report(_ text: @autoclosure () -> String) { if problem == nil { problem = text() } }

  private func run() throws(Simulation.Wrong) {
    try start(after: .closed)
    for name in Self.topics.keys.sorted() where random.chance(4, in: 5) { create(name) }
    stepWriter()
    // Who comes later finds what is left; who is there from the beginning misses nothing.
    for partition in model.latest.partitions where random.chance(2, in: 3) { claim(partition, 0) }
    for _ in 0..<random.within(60...300) {
      summary.steps += 1
      note("\(summary.steps)")
      undisturbed = false
      try step()
      undisturbed = true
      try checkProblems()
      if directory.hasDied { try restart(after: endOfDeath) }
      if failing { try restart(after: .killed) }
    }
    try finish()
  }

  /// What model or disk have found.
  func checkProblems() throws(Simulation.Wrong) {
    if let problem = problem ?? disk.violation { throw Simulation.Wrong(message: problem) }
    if !directory.hasDied, model.waiting > 0, threads.isWriterAsleep {
      throw Simulation.Wrong(message: "\(model.waiting) operations wait, and nobody wakes the writer")
    }
  }

  /// The log may fail: a call to the disk did.
  var failing: Bool { disk.faults > 0 }

  // MARK: Steps

  private func step() throws(Simulation.Wrong) {
    switch random.below(200) {
    case ..<80: append()
    case ..<95: consume()
    case ..<125: stepWriter()
    case ..<145: stepQueue("log-segments")
    case ..<172: stepQueue("log-cleaner")
    case ..<175: stepQueue("log-reader")
    case ..<178: threads.tick()
    case ..<184: clock.advance(milliseconds: random.below(300))
    case ..<187: change()
    case ..<190: try check("in between")
    case ..<193: try maintainWhole()
    case ..<194: try restart(after: .killed)
    case ..<196: try restart(after: .powerLost)
    case ..<197: try closeAndOpen()
    case ..<199:
      endOfDeath = random.pick([.killed, .powerLost])
      disk.armDeath(in: 1 + random.below(60))
    default: disk.armFault(in: 1 + random.below(40), noSpace: false, stays: false, changesOnly: random.chance(1, in: 2))
    }
  }

  /// What happens seldom.
  private func change() {
    let names = model.latest.topics.keys.sorted()
    let partitions = model.latest.partitions
    switch random.below(12) {
    case 0: if let name = names.randomElement(using: &random) { delete(name) }
    case 1...5: if let name = names.randomElement(using: &random) { alter(name) }
    case 6: if let partition = partitions.randomElement(using: &random) { trim(partition) }
    case 7: deleteGroup()
    case 8: if let partition = partitions.randomElement(using: &random) { claim(partition, 0) }
    default: create(random.pick(Self.topics.keys.sorted()))
    }
  }

  func stepWriter() { _ = threads.stepWriter() }

  func stepQueue(_ name: String) {
    for queue in threads.queues where queue.name == name { _ = threads.step(queue) }
  }

  /// Threads for another process.
  func makeThreads() -> SimulatedThreads {
    let threads = SimulatedThreads()
    threads.willDo = { [unowned self] name in if name == "log-cleaner" { model.look(now: clock.wallMilliseconds) } }
    return threads
  }

  /// While one thread waits for the disk, others go on.
  private func interlude(_ subject: String) {
    guard !undisturbed, random.chance(1, in: 12) else { return }
    undisturbed = true
    summary.interludes += 1
    defer { undisturbed = false }
    note("  meanwhile")
    switch random.below(6) {
    case 0: append()
    case 1: consume()
    default:
      switch threads.running.last {
      case nil, .writer: stepQueue("log-cleaner")
      case .queue("log-reader"), .queue("log-cleaner"): stepWriter()
      // Whoever prepares a segment holds the lock that the writer may need.
      case .queue: break
      }
    }
  }

  /// Everything at once, until nothing is left to clean.
  func maintainWhole() throws(Simulation.Wrong) {
    guard let log else { return }
    // What comes meanwhile could be cleaned as well, and there would be no end.
    undisturbed = true
    let finished = Unshared(Flag())
    log.maintain { finished.value.isSet = true }
    guard threads.runUntilIdle() else { throw Simulation.Wrong(message: "cleaning never ends") }
    if !finished.value.isSet, !directory.hasDied { throw Simulation.Wrong(message: "cleaning was not answered") }
  }

  private final class Flag {
    var isSet = false
  }

  // MARK: Operations

  private static let groups = ["g", "h"]

  private static let topics: [String: TopicConfiguration] = [
    "aged": TopicConfiguration(partitions: 2, retentionMilliseconds: 500),
    "greedy": TopicConfiguration(partitions: 1, retentionBytes: 4_000, dropsUnconsumed: true),
    "keyed": TopicConfiguration(partitions: 2, cleanup: .compact),
    "kept": TopicConfiguration(partitions: 1),
    "rash": TopicConfiguration(partitions: 1, cleanup: .compact, dropsUnconsumed: true),
    "sized": TopicConfiguration(partitions: 1, retentionBytes: 6_000),
  ]

  /// Hands an operation over that makes `after` of the latest state.
  private func submit(
    _ description: @autoclosure () -> String, _ durability: Durability = .disk, baseOffsets: [Int64] = [],
    after: CleaningHistory,
    _ hand: (CommitLog, @escaping @Sendable (Result<CommitReceipt, LogError>) -> Void) -> Void
  ) {
    guard let log, !directory.hasDied else { return }
    let directory = directory
    let box = Unshared(Answer())
    let answer = Unshared { [unowned self] (result: Result<CommitReceipt, LogError>) in
      // Nobody hears what a dead process says.
      if directory.hasDied { return }
      guard let number = box.value.number else {
        box.value.turnedAway = true
        if case .failure(let error) = result, (failing && error.code == .failed) || (closing && error.code == .closed) {
          return
        }
        return report("turned away: \(result)")
      }
      note("  answer to #\(number): \(result)")
      let wrong = model.answered(
        number, result, failing: failing, looking: threads.running.contains(.queue("log-cleaner")),
        now: clock.wallMilliseconds)
      if let wrong { report(wrong) }
    }
    hand(log) { answer.value($0) }
    if box.value.turnedAway { return }
    let text = traced == nil ? "operation \(model.operations + 1)" : description()
    box.value.number = model.accepted(text, durability, baseOffsets: baseOffsets, after)
    note("  #\(model.operations) \(text)")
  }

  private final class Answer {
    var number: Int?
    var turnedAway = false
  }

  private func create(_ name: String) {
    var after = model.latest
    if after.topics[name] != nil { return }
    let configuration = Self.topics[name]!
    after.create(name, configuration, incarnation: model.operations + 1)
    submit("create \(name)", after: after) { log, done in
      log.createTopic(name, configuration: configuration) { done($0.map { .done }) }
    }
  }

  private func delete(_ name: String) {
    var after = model.latest
    after.delete(name)
    submit("delete \(name)", after: after) { log, done in log.deleteTopic(name) { done($0.map { .done }) } }
  }

  private func alter(_ name: String) {
    var after = model.latest
    let now = after.topics[name]!.configuration
    var other = Self.topics[random.pick(Self.topics.keys.sorted())]!
    other.partitions = now.partitions
    if random.chance(1, in: 4) {
      // A topic may be compacted and have limits.
      other.cleanup = .compact
      other.retentionMilliseconds = 2_000
    }
    let configuration = other
    after.alter(name, configuration)
    submit("alter \(name) to \(configuration)", after: after) { log, done in
      log.alterTopic(name, configuration: configuration) { done($0.map { .done }) }
    }
  }

  private func append() {
    var after = model.latest
    guard let partition = after.partitions.randomElement(using: &random) else { return }
    if random.chance(1, in: 6) { firstKey += 1 }
    var pairs: [(key: String?, value: String?)] = []
    for _ in 0..<random.within(1...5) {
      let value =
        random.chance(1, in: 4) ? nil : String(repeating: "v", count: random.below(600)) + "\(model.operations)"
      pairs.append((random.chance(1, in: 15) ? nil : "k\(firstKey + random.below(6))", value))
    }
    let now = clock.wallMilliseconds
    let timestamp = now - Int64(random.below(100))
    let append = SampleBatch.append(pairs: pairs, to: partition, timestamp: timestamp)
    let base = after.partition(partition).end
    after.append(pairs, to: partition, timestamp: timestamp, now: now, bytes: append.batch.count)
    let durability = random.pick([Durability.disk, .os, .memory])
    submit(
      "append \(pairs.count) records of \(pairs.map { $0.key ?? "-" }) to \(partition) at \(base), \(durability)",
      durability, baseOffsets: [base], after: after
    ) { log, done in log.commit(Transaction(durability: durability, appends: [append]), completion: done) }
  }

  /// A group goes on, or now and then back.
  private func consume() {
    let groups = model.latest.groups
    guard let group = groups.keys.sorted().randomElement(using: &random) else { return }
    let places = groups[group]!.keys.sorted { ($0.topic, $0.partition) < ($1.topic, $1.partition) }
    guard let partition = places.randomElement(using: &random) else { return }
    let end = model.latest.partition(partition).end
    let before = min(groups[group]![partition]!, end)
    claim(
      partition,
      random.chance(1, in: 10)
        ? Int64(random.below(Int(end) + 1)) : before + Int64(random.below(Int(end - before) + 1)),
      group)
  }

  private func claim(_ partition: TopicPartition, _ offset: Int64, _ group: String? = nil) {
    let group = group ?? random.pick(Self.groups)
    var after = model.latest
    after.claim(partition, offset, for: group)
    let durability = random.pick([Durability.disk, .os, .memory])
    submit("\(group) to \(offset) of \(partition), \(durability)", durability, after: after) { log, done in
      log.commit(
        Transaction(
          durability: durability,
          offsets: [.init(group: group, partition: partition, committed: CommittedOffset(offset: offset))]),
        completion: done)
    }
  }

  private func trim(_ partition: TopicPartition) {
    var after = model.latest
    let offset = Int64(random.below(Int(after.partition(partition).end) + 1))
    after.trim(partition, before: offset)
    submit("trim \(partition) to \(offset)", after: after) { log, done in
      log.deleteRecords(of: partition, before: offset) { done($0.map { .done }) }
    }
  }

  private func deleteGroup() {
    let group = random.pick(Self.groups)
    var after = model.latest
    after.deleteGroup(group)
    submit("delete group \(group)", after: after) { log, done in log.deleteGroup(group) { done($0.map { .done }) } }
  }
}

extension CommitReceipt {
  /// Changes of topics and groups are durable.
  fileprivate static var done: CommitReceipt { CommitReceipt(durability: .disk, baseOffsets: []) }
}
