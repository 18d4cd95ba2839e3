internal import GrapeCore
internal import GrapeLog
internal import GrapeReactor
internal import GrapeStore
internal import GrapeWire
internal import Logging

/// Which partitions are this engine's: they come from the application's consumer group, and go back to it.
extension ApplicationEngine {
  /// Waits between openings of a lane that fails again and again, nanoseconds.
  private static let firstWait: Int64 = 100_000_000
  private static let longestWait: Int64 = 10_000_000_000

  // MARK: The group

  func join(awaitingGroup: Bool) {
    awaitsGroupSince = reactor.clock.monotonic
    let take = reactor.completion { [self] (change: GroupChange) in changed(change) }
    membership = log.join(group: name.text, topics: [topic], onChange: take)
    // What `join` told of at once is taken first.
    reactor.deferred { [self] in
      guard awaitingGroup, awaitsGroupSince != nil else { return tellStarted() }
      reactor.schedule(after: Self.groupPatience) { [self] in tellStarted() }
    }
  }

  /// Gives all partitions back, once what is under way in them is in the log; nothing may be under way at a worker. `completion` when the group
  /// has been left and the stores are closed.
  public func leave(completion: @escaping () -> Void) {
    isLeaving = true
    whenLeft.append(completion)
    for index in tenures.indices { tenures[index].withdrawn() }
    settleTenures()
  }

  /// For so long the engine is not taken for idle because it has no partitions, nanoseconds.
  static let groupPatience: Int64 = 10_000_000_000

  private func changed(_ change: GroupChange) {
    // A change without partitions may only mean that the group has not decided yet.
    if !change.assigned.isEmpty { awaitsGroupSince = nil }
    for index in indices(of: change.lost) { withdraw(index, isLost: true) }
    let revoked = indices(of: change.revoked)
    for index in revoked { withdraw(index, isLost: false) }
    if !change.revoked.isEmpty {
      // One that waits to be opened again has nothing under way.
      let left = Set(revoked.filter { tenures[$0].phase != .away })
      if left.isEmpty { change.finish() } else { revocations.append((left, change)) }
    }
    settleTenures()
    let granted = indices(of: change.assigned).filter { !isLeaving && tenures[$0].granted() }
    if !granted.isEmpty { open(granted) }
  }

  private func indices(of partitions: [TopicPartition]) -> [Int] {
    partitions.filter { $0.topic == topic && $0.partition < self.partitions }.map { Int($0.partition) }
  }

  // MARK: Coming

  /// Finds out where lanes stand, and opens their state.
  private func open(_ indices: [Int]) {
    let places = indices.flatMap { index in
      [topic, writesTopic, stateTopic].map { TopicPartition($0, Int32(index)) }
    }
    // What whoever had them before has begun must be decided: it may lead further than what is to be seen now.
    log.settled(
      places,
      completion: reactor.completion { [self] result in
        if case .failure(let error) = result { return openFailed(indices, error) }
        log.committedOffsets(
          group: name.text,
          completion: reactor.completion { [self] result in
            switch result {
            case .success(let offsets): for index in indices { load(index, offsets) }
            case .failure(let error): openFailed(indices, error)
            }
          })
      })
  }

  private func load(_ index: Int, _ offsets: [TopicPartition: CommittedOffset]) {
    let place = TopicPartition(topic, Int32(index))
    log.bounds(
      of: place,
      completion: reactor.completion { [self] result in
        switch result {
        case .success(let bounds):
          lanes[index] = LaneStateMachine(partition: Int32(index), start: offsets[place], bounds: bounds)
          takeBlame(index)
          trails[index] = CommitTrail(offsets[place]?.offset ?? lanes[index].processed)
          // Partitions of a shared log come and go, and are read over a network: what waits there is not looked at, and counts for no
          // slot.
          let (first, end) = (lanes[index].processed, lanes[index].end)
          replaceBacklog(
            index, LaneBacklog(first: first, end: environment.sharesLog ? first : end, slots: slotNames.count))
          noteSeen(index, end: end)
          stateGates[index] = StateGate()
          offsetPacing[index] = OffsetPacing()
          toldReplies[index] = ToldReplies()
          chores[index] = LaneChores(position: offsets[TopicPartition(writesTopic, Int32(index))]?.offset ?? 0)
          openState(lane: index) { [self] in opened(index, offsets) }
        case .failure(let error): openFailed([index], error)
        }
      })
  }

  private func opened(_ index: Int, _ offsets: [TopicPartition: CommittedOffset]) {
    if tenures[index].opened() {
      here = tenures.indices.filter { tenures[$0].isHere }
      claim(index, offsets)
      if !environment.sharesLog { countBacklog(index) }
      schedulePump()
    } else {
      settleTenures()
    }
    tellStarted()
  }

  /// Commits where a lane begins if it has consumed nothing yet: retention keeps what a group that has committed an offset has
  /// still to consume.
  private func claim(_ index: Int, _ offsets: [TopicPartition: CommittedOffset]) {
    var transaction = Transaction(isPatient: true)
    for (topic, offset) in [(writesTopic, 0), (topic, lanes[index].processed)] {
      let place = TopicPartition(topic, Int32(index))
      if offsets[place] != nil { continue }
      transaction.offsets.append(.init(group: name.text, partition: place, committed: CommittedOffset(offset: offset)))
    }
    if transaction.offsets.isEmpty { return }
    commit(transaction, lane: index) { [self] result in
      if case .failure(let error) = result {
        logger.error(
          "the start of an application's consumption could not be recorded",
          metadata: ["grape.app": "\(name.text)", "error": "\(error.message)"])
      }
    }
  }

  /// The log does not say where lanes stand. At the start that is the end; later it is asked again.
  private func openFailed(_ indices: [Int], _ error: LogError) {
    if let whenStarted {
      self.whenStarted = nil
      return whenStarted(.failure(error))
    }
    problem = "cannot find out where \(name) stands: \(error.message)"
    note("error", problem!)
    for index in indices { tenures[index].openFailed() }
    settleTenures()
  }

  private func tellStarted() {
    guard let whenStarted, tenures.allSatisfy({ $0.phase != .opening }) else { return }
    self.whenStarted = nil
    whenStarted(.success(()))
  }

  // MARK: Going

  private func withdraw(_ index: Int, isLost: Bool) {
    if isLost, tenures[index].isGranted {
      note("warning", "\(topic)/\(index) has gone to another node; what is under way in it is run there again")
    }
    tenures[index].withdrawn()
    if isLost {
      // The log takes no word of it any more.
      offsetPacing[index] = OffsetPacing()
      abandonDelivery(index)
    }
  }

  /// A worker may go on with it; nothing of it will be committed.
  private func abandonDelivery(_ index: Int) {
    guard lanes[index].delivery != nil else { return }
    lanes[index].released()
  }

  /// A commit failed on which what follows in the lane builds: it begins again from what the log has.
  func reset(lane index: Int, _ error: LogError) {
    let message = "\(topic)/\(index) begins again from the last commit: \(error.message)"
    note("warning", message)
    // Partitions that go to other nodes are nobody's problem.
    if error.code != .partitionLost, error.code != .outOfSequence {
      problem = message
      refusedLanes[index] = message
    }
    tenures[index].failed()
    offsetPacing[index] = OffsetPacing()
    abandonDelivery(index)
    settleTenures()
  }

  /// Lets go of lanes that have come to rest.
  func settleTenures() {
    for index in tenures.indices where tenures[index].isSettled && lanes[index].delivery == nil && !chores[index].isBusy
    {
      // Whoever gets it next is to begin behind what was done.
      if offsetPacing[index].due != nil, environment.gate.failure == nil {
        commitOffset(lane: index)
      } else {
        rest(index)
      }
    }
    if here.contains(where: { !tenures[$0].isHere }) {
      here = tenures.indices.filter { tenures[$0].isHere }
    }
    finishLeaving()
  }

  private func rest(_ index: Int) {
    if let watch = watches.removeValue(forKey: Int32(index)) { log.cancelWatch(watch) }
    let attempts = tenures[index].attempts
    let isWanted = tenures[index].rested()
    stateGates[index] = StateGate()
    chores[index] = LaneChores(position: 0)
    offsetPacing[index] = OffsetPacing()
    unreadable[index] = nil
    lanes[index] = LaneStateMachine(
      partition: Int32(index), start: nil, bounds: PartitionBounds(start: 0, end: 0))
    replaceBacklog(index, LaneBacklog(first: 0, end: 0, slots: slotNames.count))
    for waiter in whenSettled.removeValue(forKey: index) ?? [] { waiter.body() }
    // The group is told first: whoever comes next does not wait for our files.
    for place in revocations.indices { revocations[place].left.remove(index) }
    for revocation in revocations where revocation.left.isEmpty { revocation.change.finish() }
    revocations.removeAll { $0.left.isEmpty }
    let closed = reactor.completion { [self] (_: Void) in
      guard isWanted else { return }
      let wait = min(Self.longestWait, Self.firstWait << Int64(min(max(0, attempts - 1), 10)))
      reactor.schedule(after: wait) { [self] in
        if !isLeaving, tenures[index].reopened() { open([index]) }
      }
    }
    // When the engine leaves, all are closed at once.
    if isLeaving { return }
    environment.state.close([TopicPartition(stateTopic, Int32(index))]) { closed(()) }
  }

  private func finishLeaving() {
    guard !whenLeft.isEmpty, tenures.allSatisfy({ $0.phase == .away }) else { return }
    let completions = whenLeft
    whenLeft = []
    isStateClosed = true
    if let membership { log.leave(membership) }
    membership = nil
    let closed = reactor.completion { (_: Void) in for completion in completions { completion() } }
    environment.state.close((0..<partitions).map { TopicPartition(stateTopic, $0) }) { closed(()) }
  }

  private func replaceBacklog(_ index: Int, _ backlog: LaneBacklog) {
    waiting += backlog.count - backlogs[index].count
    backlogs[index] = backlog
  }

  // MARK: Results that the log refuses

  /// Events whose result the log refused for what it was: they are tried again one by one, and set aside in the end.
  struct Blame {
    var first: Int64
    var end: Int64
    var failures: UInt32
    var message: String
  }

  private func blame(_ delivery: LaneStateMachine.Delivery, lane index: Int, _ error: LogError) {
    switch error.code {
    case .tooLarge, .invalidArgument, .noSuchTopic, .noSuchPartition: break
    default: return
    }
    let isAlone = delivery.end - delivery.first == 1
    let before = blames[index].flatMap { $0.first == delivery.first ? $0.failures : nil } ?? 0
    blames[index] = Blame(
      first: delivery.first, end: delivery.end, failures: isAlone ? before + 1 : 0,
      message: "its result cannot be written: \(error.message)")
  }

  /// The lane begins again where its result was refused.
  private func takeBlame(_ index: Int) {
    guard let blame = blames[index] else { return }
    guard (blame.first..<blame.end).contains(lanes[index].processed) else {
      blames[index] = nil
      return
    }
    lanes[index].suspect(upTo: blame.end)
    if blame.failures > 0, lanes[index].processed == blame.first { lanes[index].headHasFailed(blame.failures) }
  }

  // MARK: Commits of a lane

  /// Hands a transaction of a lane to the log, and counts it as under way until it is answered.
  ///
  /// - Parameter delivery: what it is the result of.
  func commit(
    _ transaction: Transaction, lane index: Int, of delivery: LaneStateMachine.Delivery? = nil,
    completion: @escaping (Result<CommitReceipt, LogError>) -> Void
  ) {
    var transaction = transaction
    transaction.isPatient = true
    transaction.mayRepeat = profile.guarantee == .atLeastOnce
    unfinishedCommits += 1
    tenures[index].handedOver()
    environment.gate.commit(transaction) { [self] outcome in
      tenures[index].answered()
      switch outcome {
      case .success:
        unfinishedCommits -= 1
        tenures[index].proved()
        if let message = refusedLanes.removeValue(forKey: index), problem == message { problem = nil }
        completion(outcome)
      case .failure(let error):
        completion(outcome)
        commitFailed(error, lane: index, delivery, replyTopics: replyTopics(of: transaction))
      }
      if tenures[index].phase == .closing { settleTenures() }
    }
  }

  private func replyTopics(of transaction: Transaction) -> [String] {
    Set(transaction.appends.map(\.partition.topic)).filter { environment.replies($0) == .open(partitions: 1) }
  }

  /// Where logs fail whole, the node takes no more; where transactions fail singly, the lane begins again.
  private func commitFailed(
    _ error: LogError, lane index: Int, _ delivery: LaneStateMachine.Delivery?, replyTopics: [String]
  ) {
    if environment.sharesLog, error.code != .failed, error.code != .closed {
      unfinishedCommits -= 1
      if let delivery { blame(delivery, lane: index, error) }
      if error.code == .noSuchTopic { environment.repliesRefused(replyTopics) }
      // What followed a failure fails with it.
      if tenures[index].isHere { reset(lane: index, error) }
      return
    }
    environment.gate.breakOff(error)
    problem = "cannot commit: \(error.message)"
    note("error", problem!)
    logger.error("commit failed", metadata: ["app": "\(name)", "error": "\(error)"])
  }
}
