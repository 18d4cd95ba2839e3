internal import GrapeCore
package import GrapeLog
internal import GrapeReactor
package import GrapeStore
internal import GrapeWire
internal import GrapeWorkers
internal import Logging

/// The application's state: stores follow what is committed, workers learn where they are, and may ask.
extension ApplicationEngine {
  func changelog(_ lane: Int) -> TopicPartition { TopicPartition(stateTopic, lanes[lane].partition) }

  /// What WELCOME says about state.
  var stateWelcome: JSONValue {
    let directory = environment.state.directory(of: name.text)
    return [
      "topic": .string(stateTopic), "partitions": JSONValue(partitions), "access": directory == nil ? "ask" : "map",
      "path": .string(directory ?? ""), "maxKey": JSONValue(StateLimits.key), "maxValue": JSONValue(StateLimits.value),
    ]
  }

  // MARK: Opening

  /// Opens the state of a partition. If that fails it is tried again; the partition stands still meanwhile. `completion` when it was
  /// tried once.
  func openState(lane index: Int, completion: @escaping () -> Void) {
    let (app, logger) = (name.text, environment.logger)
    let place = changelog(index)
    let note = reactor.completion { [self] (message: String) in self.note("warning", "\(place): \(message)") }
    let heldTooLong = reactor.completion { [self] (view: HeldView) in self.heldTooLong(view, index) }
    environment.state.open(
      app, changelog: place, processed: lanes[index].processed, note: note,
      progress: { applied, end in
        logger.info(
          "state is being restored",
          metadata: ["grape.app": "\(app)", "partition": "\(place.partition)", "records": "\(applied)", "of": "\(end)"])
      },
      onLongView: { heldTooLong(HeldView(process: $0, nanoseconds: $1)) },
      completion: reactor.completion { [self] result in
        switch result {
        case .success(let nextExpiry):
          stateAttempts[index] = nil
          stateGates[index].opened()
          chores[index].nextExpiry = nextExpiry
          // It has the whole changelog.
          for waiter in whenSettled.removeValue(forKey: index) ?? [] { waiter.body() }
          schedulePump()
        case .failure(let error): stateFailed(lane: index, error)
        }
        completion()
      })
  }

  /// The store cannot be used: the lane waits, and the store is opened anew, later each time. What it lacks is in the changelog.
  private func stateFailed(lane index: Int, _ error: StateError) {
    guard !isLeaving, tenures[index].phase != .away else { return }
    stateGates[index].failed()
    let attempt = stateAttempts[index, default: 0] + 1
    stateAttempts[index] = attempt
    problem =
      "the state of partition \(lanes[index].partition) cannot be used: \(error.message); its events wait, and it is tried again"
    note("error", problem!)
    logger.error("state cannot be used", metadata: ["grape.app": "\(name)", "error": "\(error)"])
    let delay = min(Int64(60), 1 << Int64(min(attempt - 1, 6)))
    let term = tenures[index].term
    reactor.schedule(after: delay * 1_000_000_000) { [self] in reopenState(lane: index, term) }
  }

  private func reopenState(lane index: Int, _ term: Int) {
    guard isTerm(term, index), !stateGates[index].isReady, !isLeaving else { return }
    // What is committed while the changelog is read would be missing in it, and come too early for the store: nothing may be under way
    // that could lead to a commit. The gate is shut, so nothing new begins.
    guard stateGates[index].unapplied == 0, lanes[index].delivery == nil, !chores[index].isBusy else {
      reactor.schedule(after: 100_000_000) { [self] in reopenState(lane: index, term) }
      return
    }
    // It must not be let go of while its store is being opened.
    tenures[index].beganToApply()
    openState(lane: index) { [self] in
      tenures[index].applied()
      if here.allSatisfy({ stateGates[$0].isReady }) { problem = nil }
      settleTenures()
    }
  }

  // MARK: Reading from outside

  /// Runs `body` on a partition's state as it is now; nil: nothing was ever written.
  package func readState<Value: Sendable>(
    _ partition: Int32, _ body: @escaping @Sendable ((any StateView)?) throws(StateError) -> Value,
    completion: @escaping (Result<Value, StateError>) -> Void
  ) {
    guard isHere(partition) else {
      return completion(
        .failure(
          StateError(
            .unavailable,
            "partition \(partition) of \(name) is not worked on by this node; `grape cluster` shows who does")))
    }
    environment.state.read(
      changelog(Int(partition)), { (view, _) throws(StateError) in try body(view) },
      completion: reactor.completion(completion))
  }

  /// Calls `body` once the stores have all that has been handed to the log so far: what anybody was told to be done is then there.
  package func whenApplied(_ partitions: Range<Int32>, _ body: @escaping () -> Void) {
    let waiting = partitions.filter { tenures[Int($0)].isHere && stateGates[Int($0)].unapplied > 0 }
    guard !waiting.isEmpty else { return body() }
    var missing = waiting.count
    for partition in waiting {
      let lane = Int(partition)
      whenSettled[lane, default: []].append(
        (
          stateGates[lane].unapplied,
          {
            missing -= 1
            if missing == 0 { body() }
          }
        ))
    }
  }

  /// How safe the application's commits are.
  package var durability: Durability { Durability(profile.durability) }

  // MARK: Following

  /// Hands the changelog batches of a committed transaction to the store.
  func applyState(_ transaction: Transaction, _ receipt: CommitReceipt, lane index: Int, processed: Int64) {
    var batches: [LogBatch] = []
    var bytes = 0
    for (append, base) in zip(transaction.appends, receipt.baseOffsets) where append.partition.topic == stateTopic {
      batches.append(
        LogBatch(
          bytes: append.batch, baseOffset: base, lastOffset: base + Int64(append.recordCount) - 1,
          maxTimestamp: append.maxTimestamp))
      bytes += append.batch.count
    }
    guard !batches.isEmpty, !isStateClosed else { return }
    // The store is to be opened anew, and will find them in the changelog.
    guard stateGates[index].isReady else { return stateGates[index].applied() }
    environment.gate.hold(bytes)
    tenures[index].beganToApply()
    environment.state.apply(
      batches, to: changelog(index), processed: processed, limit: longViewLimit,
      completion: reactor.completion { [self] result in
        environment.gate.release(bytes)
        tenures[index].applied()
        defer { if tenures[index].phase == .closing { settleTenures() } }
        switch result {
        case .success(let nextExpiry):
          stateGates[index].applied()
          chores[index].nextExpiry = nextExpiry
          told(index)
          schedulePump()
          settleStop()
        case .failure(let error):
          stateGates[index].applied()
          // One failure is told once: what follows it fails with it.
          if stateGates[index].isReady { stateFailed(lane: index, error) }
        }
      })
  }

  /// Those who wait for the store are told that it has what was written before they asked.
  private func told(_ index: Int) {
    for waiter in whenSettled[index] ?? [] where waiter.left <= 1 { waiter.body() }
    whenSettled[index] = whenSettled[index]?.filter { $0.left > 1 }.map { ($0.left - 1, $0.body) }
  }

  private struct HeldView: Sendable {
    var process: Int32
    var nanoseconds: Int64
  }

  /// How long a worker may look at another partition as it was, while that goes on and its file grows.
  private var longViewLimit: LongViews.Limit {
    var limit = environment.longViews
    limit.time = max(limit.time, profile.requestTimeout.nanoseconds)
    return limit
  }

  /// Space that a process may see is not used again: it must let go.
  private func heldTooLong(_ view: HeldView, _ index: Int) {
    let what =
      "it looked at the state of partition \(lanes[index].partition) as it was \(view.nanoseconds / 1_000_000_000) s ago, while that went on and its file grew"
    if let session = sessions.values.first(where: { $0.process?.pid == view.process }) {
      condemn(session, what)
    } else {
      note("warning", "process \(view.process) is no worker, but \(what)")
    }
  }

  /// A worker is gone: what it had open must not keep pages from being used again.
  func forgetReaders() {
    guard environment.state.directory(of: name.text) != nil else { return }
    environment.state.clearDeadReaders(
      here.map(changelog), note: reactor.completion { [self] (message: String) in note("warning", message) })
  }

  // MARK: Questions of workers

  /// Questions that a worker may have open.
  static let questionLimit = 16

  /// Answers a STATE frame.
  func question(_ header: FrameHeader, _ body: ByteSlice, from session: WorkerSession) {
    let question: StateQuestion
    do throws(WireError) {
      question = try StateQuestion(body)
    } catch {
      return refuse(header.id, "STATE is malformed: \(error.message)", to: session)
    }
    guard lanes.indices.contains(Int(question.partition)) else {
      return refuse(header.id, "\(name) has no partition \(question.partition), it has \(partitions)", to: session)
    }
    guard tenures[Int(question.partition)].isHere else {
      return refuse(
        header.id, "partition \(question.partition) of \(name) is worked on by another node", to: session,
        as: .unavailable)
    }
    guard session.questions < Self.questionLimit else {
      return condemn(session, "it asked \(Self.questionLimit + 1) questions about state at a time")
    }
    session.questions += 1
    environment.state.read(
      changelog(Int(question.partition)),
      { (view, position) throws(StateError) in try question.answer(view, position) },
      completion: reactor.completion { [self] result in
        session.questions -= 1
        switch result {
        case .success(let answer): session.connection?.send(.stated, id: header.id) { $0.bytes(answer.unsafeBytes) }
        case .failure(let error):
          refuse(header.id, error.message, to: session, as: error.code == .invalidArgument ? .badRequest : .unavailable)
        }
      })
  }

  private func refuse(
    _ id: UInt64, _ message: String, to session: WorkerSession, as status: Status = .badRequest
  ) {
    let error: JSONValue = [
      "status": JSONValue(Int(status.rawValue)), "name": .string(status.name),
      "message": .string(message),
    ]
    session.connection?.send(.error, id: id) { $0.bytes(error.utf8) }
  }
}
