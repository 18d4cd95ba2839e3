import GrapeCommitLog
import GrapeLog
import GrapeTestKit
import GrapeWire

/// Retention by age and size, and compaction by key, on a disk under a process that may die at any call: nothing is ever
/// removed that somebody may still want, everything else is as it was written, and removing ends.
///
/// One operation is under way at a time, so that what a death interrupted is either there whole or not at all.
package final class CleaningSimulation: @unchecked Sendable {
  // It lives on one thread.
  private var random: SimulationRandom
  private let seed: UInt64
  private let disk: SimulatedDisk
  private let clock = SimulatedClock()
  private var options = CommitLogOptions()
  private var threads = SimulatedThreads()
  private var directory: SimulatedDirectory?
  private var log: CommitLog?
  private var model = CleaningHistory()
  /// What the work under way would make of the model, should it be found done after a death.
  private var pending: CleaningHistory?
  /// The last calls to the disk.
  private var trace: [String] = []
  package private(set) var deaths = 0
  package private(set) var cleaned: UInt64 = 0

  package struct Failure: Error, CustomStringConvertible {
    package var description: String
  }

  package init(seed: UInt64) {
    self.seed = seed
    random = SimulationRandom(seed: seed &+ 0xc1ea)
    disk = SimulatedDisk(seed: seed)
    options.segmentBytes = random.pick([8, 16, 32]) << 10
    options.tailCacheBytes = random.pick([0, 0, 32 << 10])
    options.indexCacheBytes = random.pick([0, 4 << 10, 1 << 20])
    options.compactionBytes = random.pick([1 << 10, 1 << 16, 1 << 20])
    options.cleanableShare = random.pick([0.01, 0.3, 0.7])
    options.tombstoneMilliseconds = Int64(random.pick([0, 200, 5_000]))
    options.lowSpaceBytes = 0
    disk.trace = { [unowned self] call in
      trace.append(call)
      if trace.count > 400 { trace.removeFirst(200) }
    }
  }

  /// Runs a history. Errors: what is wrong, with the seed.
  package func run() throws(Failure) {
    try open()
    for (name, configuration) in [
      ("aged", TopicConfiguration(partitions: 2, retentionMilliseconds: 500)),
      ("sized", TopicConfiguration(partitions: 1, retentionBytes: 6_000)),
      ("greedy", TopicConfiguration(partitions: 1, retentionBytes: 4_000, dropsUnconsumed: true)),
      ("keyed", TopicConfiguration(partitions: 2, cleanup: .compact)), ("kept", TopicConfiguration(partitions: 1)),
    ] { try create(name, configuration) }
    // Who comes later finds what is left; who is there from the beginning misses nothing.
    for partition in model.partitions.keys.sorted(by: Self.precedes) where random.chance(2, in: 3) {
      try claim(partition, 0)
    }
    for _ in 0..<random.within(60...160) { try step() }
    try reopen(powerLost: random.chance(1, in: 2))
    disk.disarm()
    for _ in 0..<3 { try maintain() }
    try check("at the end")
    let log = self.log!
    cleaned += log.statistics.cleanedSegments
    if let failure = log.statistics.lastBackgroundFailure { try fail("in the background: \(failure)") }
    log.close {}
    guard threads.runUntilIdle() else { return try fail("closing does not end") }
    let report: VerificationReport
    do throws(LogError) {
      report = try CommitLog.verify(storage: disk.observe())
    } catch {
      return try fail("verify: \(error)")
    }
    if let problem = report.problems.first { try fail("verify: \(problem)") }
  }

  private func fail(_ message: String) throws(Failure) {
    throw Failure(
      description: "seed \(seed): \(message); before that:\n  " + trace.suffix(40).joined(separator: "\n  "))
  }

  // MARK: Steps

  private func step() throws(Failure) {
    clock.advance(milliseconds: random.below(20))
    if random.chance(1, in: 12) { disk.armDeath(in: random.below(60)) }
    switch random.below(20) {
    case 0: try reopen(powerLost: random.chance(1, in: 2))
    case 1...3: try maintain()
    case 4...5: try consume()
    default: try append()
    }
    if directory!.hasDied { try reopen(powerLost: random.chance(1, in: 2)) }
  }

  /// Does one operation; the model becomes `after` if it is acknowledged.
  private func operate(
    _ after: CleaningHistory, _ body: (CommitLog, @escaping @Sendable (Result<Void, LogError>) -> Void) -> Void
  )
    throws(Failure)
  {
    let answer = Box()
    pending = after
    body(log!) { answer.result = $0 }
    guard threads.runUntilIdle() else { return try fail("the log's threads never rest") }
    switch answer.result {
    case .success?:
      model = after
      pending = nil
    case .failure(let error)?:
      guard directory!.hasDied else { return try fail("refused: \(error)") }
    case nil:
      guard directory!.hasDied else { return try fail("no answer") }
    }
  }

  private func create(_ name: String, _ configuration: TopicConfiguration) throws(Failure) {
    var after = model
    after.create(name, configuration)
    try operate(after) { log, done in log.createTopic(name, configuration: configuration, completion: done) }
  }

  private func append() throws(Failure) {
    let partition = random.pick(model.partitions.keys.sorted(by: Self.precedes))
    var pairs: [(key: String?, value: String?)] = []
    for _ in 0..<random.within(1...5) {
      let value = random.chance(1, in: 5) ? nil : String(repeating: "v", count: random.below(700))
      pairs.append((random.chance(1, in: 15) ? nil : "k\(random.below(9))", value))
    }
    let append = SampleBatch.append(pairs: pairs, to: partition, timestamp: clock.wallMilliseconds)
    var after = model
    after.append(pairs, to: partition, at: clock.wallMilliseconds, bytes: append.batch.count)
    try operate(after) { log, done in
      log.commit(Transaction(appends: [append])) { done($0.map { _ in }) }
    }
  }

  private func consume() throws(Failure) {
    let claimed = model.claims.keys.sorted(by: Self.precedes)
    if claimed.isEmpty { return }
    let partition = random.pick(claimed)
    let before = Int(model.claims[partition]!)
    try claim(partition, Int64(random.within(before...max(before, model.partitions[partition]!.records.count))))
  }

  private func claim(_ partition: TopicPartition, _ offset: Int64) throws(Failure) {
    var after = model
    after.claims[partition] = offset
    try operate(after) { log, done in
      log.commit(
        Transaction(offsets: [.init(group: "g", partition: partition, committed: CommittedOffset(offset: offset))])
      ) { done($0.map { _ in }) }
    }
  }

  private static func precedes(_ left: TopicPartition, _ right: TopicPartition) -> Bool {
    (left.topic, left.partition) < (right.topic, right.partition)
  }

  private func maintain() throws(Failure) {
    let finished = Box()
    log!.maintain { finished.result = .success(()) }
    guard threads.runUntilIdle() else { return try fail("cleaning never ends") }
    if finished.result == nil, !directory!.hasDied { try fail("cleaning was not answered") }
  }

  private func open() throws(Failure) {
    for _ in 0..<20 {
      threads = SimulatedThreads()
      let directory = disk.mount()
      self.directory = directory
      do throws(LogError) {
        log = try CommitLog.open(storage: directory, options: options, clock: clock.logClock, threads: threads).0
        return
      } catch {
        guard directory.hasDied else { return try fail("does not open: \(error)") }
        disk.disarm()
      }
    }
    try fail("does not open")
  }

  private func reopen(powerLost: Bool) throws(Failure) {
    if directory!.hasDied { deaths += 1 }
    cleaned += log?.statistics.cleanedSegments ?? 0
    threads.discard()
    log = nil
    if powerLost { disk.losePower() } else { disk.kill() }
    disk.disarm()
    if random.chance(1, in: 5) { disk.armDeath(in: random.below(40)) }
    try open()
    disk.disarm()
    if let pending, try matches(pending) { model = pending }
    pending = nil
    try check("opened")
  }

  // MARK: Checks

  private func ask<Value: Sendable>(
    _ what: String, _ body: (@escaping @Sendable (Result<Value, LogError>) -> Void) -> Void
  ) throws(Failure) -> Value {
    let answer = Answer<Value>()
    body { answer.result = $0 }
    guard threads.runUntilIdle() else { throw Failure(description: "seed \(seed): \(what): the threads never rest") }
    switch answer.result {
    case .success(let value)?: return value
    case .failure(let error)?: throw Failure(description: "seed \(seed): \(what): \(error)")
    case nil: throw Failure(description: "seed \(seed): \(what): no answer")
    }
  }

  /// True if the log has what `history` adds to the model.
  private func matches(_ history: CleaningHistory) throws(Failure) -> Bool {
    let log = self.log!
    let topics = try ask("topics") { log.topics(completion: $0) }
    if Set(topics.map(\.name)) != Set(history.partitions.keys.map(\.topic)) { return false }
    for (partition, expected) in history.partitions {
      let bounds = try ask("bounds of \(partition)") { log.bounds(of: partition, completion: $0) }
      if bounds.end != Int64(expected.records.count) { return false }
    }
    let offsets = try ask("offsets") { log.committedOffsets(group: "g", completion: $0) }
    return offsets.mapValues(\.offset) == history.claims
  }

  private func check(_ when: String) throws(Failure) {
    guard try matches(model) else { return try fail("\(when): ends or offsets are not those of what was acknowledged") }
    for (partition, expected) in model.partitions {
      let log = self.log!
      let bounds = try ask("bounds of \(partition)") { log.bounds(of: partition, completion: $0) }
      var found: [Int64: (key: String?, value: String?)] = [:]
      var next = bounds.start
      while next < bounds.end {
        let from = next
        let result = try ask("read of \(partition) from \(from)") {
          log.read(partition, from: from, maxBytes: 3_000, completion: $0)
        }
        for batch in result.batches {
          guard let pairs = try? SampleBatch.pairs(in: batch) else { return try fail("\(when): a torn batch") }
          for pair in pairs where pair.offset >= from { found[pair.offset] = (pair.key, pair.value) }
        }
        guard result.nextOffset > next else { return try fail("\(when): no progress at \(next) of \(partition)") }
        next = result.nextOffset
      }
      if let wrong = expected.difference(
        start: bounds.start, found, claim: model.claims[partition], now: clock.wallMilliseconds)
      {
        try fail("\(when): \(partition): \(wrong)")
      }
    }
  }

  private final class Box: @unchecked Sendable {
    var result: Result<Void, LogError>?
  }

  private final class Answer<Value: Sendable>: @unchecked Sendable {
    var result: Result<Value, LogError>?
  }
}
