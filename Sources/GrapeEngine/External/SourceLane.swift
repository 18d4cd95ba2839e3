internal import GrapeCore
internal import GrapeLog
internal import GrapeReactor
internal import GrapeWire

/// Carries out what `SourceLaneStateMachine` asks for, for one partition of a source. Lives on the reactor's thread.
final class SourceLane {
  let place: TopicPartition
  let source: Manifest.Source
  private let rules: SourceRules
  private let group: String
  private let durability: Durability
  private let environment: SourceEnvironment
  /// What the group has committed. Asked for by all lanes at once.
  private let offsets: SourceOffsets
  private(set) var machine = SourceLaneStateMachine()
  private var batches: [LogBatch] = []
  private var result: SourceWork.Result?
  /// What the group committed last here.
  private var committed: Int64?
  private var watch: WatchToken?
  private var spread: Int32
  private var whenEnded: (() -> Void)?
  /// Why it does not go on; nil: it does.
  private(set) var problem: String?
  /// Events that the log has taken, and records that became dead letters, since the lane began.
  private(set) var events = 0
  private(set) var unusable = 0

  /// Bytes read at a time.
  private static let readBytes = 512 << 10

  init(
    _ place: TopicPartition, source: Manifest.Source, rules: SourceRules, group: String, durability: Durability,
    offsets: SourceOffsets, environment: SourceEnvironment
  ) {
    self.place = place
    self.source = source
    self.rules = rules
    self.group = group
    self.durability = durability
    self.offsets = offsets
    self.environment = environment
    // Different partitions of a source begin at different ones of the input.
    spread = place.partition % rules.partitions
  }

  private var log: any EventLog { environment.gate.log }

  func start() { perform(machine.start()) }

  /// Begins nothing new; `completion` once nothing is under way.
  func finish(_ completion: @escaping () -> Void) {
    whenEnded = completion
    perform(machine.finish())
    if machine.hasEnded { end() }
  }

  /// Is over at once: the partition is somebody else's.
  func abandon() {
    machine.abandon()
    end()
  }

  private func end() {
    if let watch { log.cancelWatch(watch) }
    watch = nil
    batches = []
    result = nil
    let completion = whenEnded
    whenEnded = nil
    completion?()
  }

  private func perform(_ action: SourceLaneStateMachine.Action) {
    switch action {
    case .none: break
    case .locate: locate()
    case .claim(let offset): claim(offset)
    case .read(let offset): read(offset)
    case .translate(let from, let care): translate(from: from, care: care)
    case .commit(let next): commit(next: next)
    case .watch(let offset): wait(offset)
    case .rest(let nanoseconds):
      environment.reactor.schedule(after: nanoseconds) { [weak self] in
        guard let self else { return }
        perform(machine.rested())
      }
    case .end: end()
    }
  }

  // MARK: Where to begin

  private func locate() {
    batches = []
    result = nil
    offsets.get { [weak self] result in
      guard let self else { return }
      switch result {
      case .success(let offsets): locate(offsets)
      case .failure(let error): failed(error, "what was consumed cannot be found out")
      }
    }
  }

  private func locate(_ offsets: [TopicPartition: CommittedOffset]) {
    log.bounds(
      of: place,
      completion: environment.reactor.completion { [weak self] result in
        guard let self else { return }
        switch result {
        case .failure(let error): failed(error, "cannot be read")
        case .success(let bounds): begin(offsets, bounds)
        }
      })
  }

  private func begin(_ offsets: [TopicPartition: CommittedOffset], _ bounds: PartitionBounds) {
    let start = SourceStart.find(place, source.start, committed: offsets, bounds: bounds)
    let before = offsets[place]?.offset
    committed = before
    switch start {
    case .committed(let offset): located(offset, bounds, isCommitted: true, before: before)
    case .fresh(let offset): located(offset, bounds, isCommitted: false, before: before)
    case .atTime(let time):
      log.offset(
        of: place, at: time,
        completion: environment.reactor.completion { [weak self] result in
          guard let self else { return }
          switch result {
          case .failure(let error): failed(error, "its times cannot be read")
          case .success(let offset): refine(max(offset, bounds.start), time, bounds, before: before)
          }
        })
    }
  }

  /// The log knows the times of batches; the first record is looked for.
  private func refine(_ offset: Int64, _ time: Int64, _ bounds: PartitionBounds, before: Int64?) {
    log.read(
      place, from: offset, maxBytes: 1,
      completion: environment.reactor.completion { [weak self] result in
        guard let self else { return }
        switch result {
        case .failure(let error): failed(error, "cannot be read")
        case .success(let read):
          let first = SourceStart.first(in: read.batches, from: offset, at: time, limit: rules.batchLimit)
          located(first, bounds, isCommitted: false, before: before)
        }
      })
  }

  private func located(_ offset: Int64, _ bounds: PartitionBounds, isCommitted: Bool, before: Int64?) {
    if !isCommitted, let before {
      environment.note(
        "warning",
        "source \(place): offset \(before) is not there, the topic has \(bounds.start) to \(bounds.end); going on at "
          + "\(offset), as \"start: \(source.start)\" says")
    }
    perform(machine.located(offset, end: bounds.end, isCommitted: isCommitted))
  }

  /// Commits the place before anything is read, so that "latest" means the same after a restart, and retention spares what
  /// comes.
  private func claim(_ offset: Int64) { send(Transaction(durability: .disk), next: offset) {} }

  // MARK: Records

  private func read(_ offset: Int64) {
    log.read(
      place, from: offset, maxBytes: Self.readBytes,
      completion: environment.reactor.completion { [weak self] result in
        guard let self, !machine.hasEnded else { return }
        switch result {
        case .failure(let error): failed(error, "cannot be read")
        case .success(let read):
          batches = read.batches
          perform(machine.read(isEmpty: batches.isEmpty, next: read.nextOffset, end: read.bounds.end))
          if batches.isEmpty { recovered() }
        }
      })
  }

  private func wait(_ offset: Int64) {
    let grown = environment.reactor.completion { [weak self] (_: Void) in
      guard let self else { return }
      watch = nil
      perform(machine.grown())
    }
    watch = log.whenAvailable(place, after: offset) { grown(()) }
  }

  private func translate(from: Int64, care: SourceWork.Care) {
    let work = SourceWork(
      rules: rules, batches: batches, from: from, care: care, spread: spread, now: environment.reactor.clock.wall)
    let done = environment.reactor.completion { [weak self] (result: SourceWork.Result) in self?.translated(result) }
    let accepted = environment.thread.post { done(work.run()) }
    if !accepted { perform(machine.failed(.final)) }
  }

  private func translated(_ result: SourceWork.Result) {
    guard !machine.hasEnded else { return }
    guard result.next > (machine.position ?? 0) || result.damage == nil else {
      report("\(result.damage ?? ""); it is looked at again every half minute")
      return perform(machine.stuck())
    }
    self.result = result
    spread = (spread + 1) % rules.partitions
    perform(machine.translated(next: result.next, isComplete: result.isComplete))
  }

  private func commit(next: Int64) {
    guard environment.gate.admitsDeliveries else {
      return environment.gate.whenDrained { [weak self] in self?.commit(next: next) }
    }
    guard let result else { return }
    let withdraw = environment.arriving(source.slot, result.arrivals)
    send(Transaction(durability: durability, appends: result.appends), next: next, ifRefused: withdraw)
  }

  private func send(_ proposed: Transaction, next: Int64, ifRefused withdraw: @escaping () -> Void) {
    var transaction = proposed
    transaction.isPatient = true
    transaction.offsets = [
      .init(group: group, partition: place, committed: CommittedOffset(offset: next), previous: committed)
    ]
    environment.gate.commit(transaction) { [self] outcome in
      switch outcome {
      case .success:
        committed = next
        tell()
        recovered()
        perform(machine.committed())
      case .failure(let error):
        withdraw()
        result = nil
        failed(error, "its events cannot be committed")
      }
    }
  }

  /// What was committed is counted, and what became of unusable records said, once for all of them.
  private func tell() {
    guard let result else { return }
    self.result = nil
    events += result.events
    unusable += result.unusable
    guard let first = result.firstUnusable else { return }
    let others = result.unusable > 1 ? ", and \(result.unusable - 1) more behind it" : ""
    environment.note(
      "warning", "source \(place): the record at offset \(first.offset)\(others) became a dead letter: \(first.message)"
    )
  }

  // MARK: Failures

  private func failed(_ error: LogError, _ what: String) {
    guard !machine.hasEnded else { return }
    let failure = SourceLaneStateMachine.Failure(error)
    if failure == .passing || failure == .final { report("\(what): \(error.message)") }
    perform(machine.failed(failure))
  }

  /// Says once what is wrong.
  private func report(_ problem: String) {
    if self.problem == nil { environment.note("error", "source \(place): \(problem)") }
    self.problem = problem
  }

  private func recovered() {
    if problem != nil { environment.note("info", "source \(place): goes on") }
    problem = nil
  }
}

extension SourceLaneStateMachine.Failure {
  init(_ error: LogError) {
    switch error.code {
    case .closed, .failed: self = .final
    case .partitionLost, .outOfSequence, .unknown: self = .lost
    case .offsetOutOfRange: self = .outOfRange
    case .tooLarge: self = .tooLarge
    default: self = .passing
    }
  }
}
