internal import GrapeCore
internal import GrapeLog
internal import GrapeReactor
internal import GrapeWire
internal import Logging

/// From the log to the workers.
extension ApplicationEngine {
  /// Keeps one delivery's worth of events at hand.
  func fetch(_ index: Int) {
    let partition = TopicPartition(topic, lanes[index].partition)
    let term = tenures[index].term
    switch lanes[index].planFetch(batchBytes: profile.batchBytes) {
    case .read(let offset):
      log.read(
        partition, from: offset, maxBytes: profile.batchBytes,
        completion: reactor.completion { [self] in if isTerm(term, index) { took($0, lane: index, from: offset) } })
    case .watch(let offset):
      let fired = reactor.completion { [self] (_: Void) in
        guard isTerm(term, index) else { return }
        watches[partition.partition] = nil
        lanes[index].grew(past: offset)
        schedulePump()
      }
      watches[partition.partition] = log.whenAvailable(partition, after: offset) { fired(()) }
    case nil: break
    }
  }

  /// Whether a lane is still in the term in which something was asked for.
  func isTerm(_ term: Int, _ index: Int) -> Bool { tenures[index].isHere && tenures[index].term == term }

  private func took(_ result: Result<ReadResult, LogError>, lane index: Int, from offset: Int64) {
    switch result {
    case .success(let read):
      lanes[index].read(read, from: offset)
      noteSeen(index, end: read.bounds.end)
      noteGaps(index)
      schedulePump()
    case .failure(let error) where error.code == .offsetOutOfRange:
      skipDropped(lane: index, offset)
    case .failure(let error) where error.code == .noSuchTopic && environment.sharesLog:
      topicIsGone(index, error)
    case .failure(let error) where error.code == .closed || error.code == .noSuchTopic:
      break  // The node is stopping, or the application is being removed.
    case .failure(let error):
      problem = "cannot read \(topic)/\(lanes[index].partition) at \(offset): \(error.message)"
      note("error", problem!)
      let term = tenures[index].term
      reactor.schedule(after: 1_000_000_000) { [self] in
        guard isTerm(term, index) else { return }
        lanes[index].readFailed()
        schedulePump()
      }
    }
  }

  /// Somebody has deleted it, with what was in it; or the application is being removed, which this node will hear of. The lane waits until there is one.
  func topicIsGone(_ index: Int, _ error: LogError) {
    if tenures[index].isHere { reset(lane: index, error) }
  }

  /// Retention has overtaken the application: it goes on with what is left, and says so.
  private func skipDropped(lane index: Int, _ offset: Int64) {
    let term = tenures[index].term
    log.bounds(
      of: TopicPartition(topic, lanes[index].partition),
      completion: reactor.completion { [self] result in
        guard isTerm(term, index) else { return }
        guard case .success(let bounds) = result else { return lanes[index].readFailed() }
        note(
          "error", "events \(offset) to \(bounds.start - 1) of \(topic)/\(lanes[index].partition) are no longer kept")
        lanes[index].skip(to: bounds)
        noteSeen(index, end: bounds.end)
        noteGaps(index)
        schedulePump()
      })
  }

  /// Gives the lane's next events to its worker, if both are ready.
  func deliver(_ index: Int) {
    if choreComesFirst(index) { return }
    guard !readySessions.isEmpty,
      let plan = lanes[index].planDelivery(
        now: reactor.now, batchBytes: profile.batchBytes, unpackedLimit: environment.batchLimit)
    else { return }
    noteGaps(index)
    if lanes[index].failuresOfHead >= UInt32(profile.retry.attempts) { return giveUpHead(index) }
    let lane = lanes[index]
    let session = worker(for: index)
    guard stateGates[index].admits(session.id),
      session.turns.admits(suspect: plan.isSuspect, isIdle: session.deliveries.isEmpty)
    else { return }
    guard hasRoom(session, for: index), let connection = session.connection else { return }
    let slices: [ByteSlice]
    do throws(WireError) {
      slices = try deliverable(plan.batches, zstd: session.acceptsZstd)
    } catch {
      // Nothing is passed over: the lane stands still until somebody has looked at it. Said once, however often it is tried.
      problem =
        "\(topic)/\(lane.partition) stands still at offset \(plan.first), which cannot be unpacked for the worker: \(error.message); `grape log verify` looks for damage"
      if unreadable.updateValue(plan.first, forKey: index) != plan.first { note("error", problem!) }
      return
    }
    deliveryCounter += 1
    let id = deliveryCounter
    connection.send(.deliver, id: id, slices: slices) { writer in
      writer.i32(lane.partition)
      writer.u32(plan.attempt)
      writer.i64(plan.first)
      writer.i64(plan.end)
      writer.u32(0)
    }
    chores[index].delivered()
    session.turns.gave(suspect: plan.isSuspect)
    if session.deliveries.isEmpty { session.unchangedSince = reactor.now }
    session.deliveries[id] = lane.partition
    lanes[index].delivered(
      .init(
        id: id, worker: session.id, first: plan.first, end: plan.end, bytes: plan.bytes,
        timestamp: plan.batches.first?.maxTimestamp ?? 0, sentAt: reactor.now))
    if plan.attempt > 1 { retries += 1 }
  }

  /// The lane's worker: same partition, same worker, as long as the set of workers stays. Precondition: there is one.
  private func worker(for index: Int) -> WorkerSession {
    readySessions[Int(lanes[index].partition) % readySessions.count]
  }

  /// Whether the lane's worker would take something now.
  func hasFreeWorker(_ index: Int) -> Bool {
    if readySessions.isEmpty { return false }
    let session = worker(for: index)
    return hasRoom(session, for: index)
      && session.turns.wouldAdmit(suspect: lanes[index].isSuspect, isIdle: session.deliveries.isEmpty)
  }

  /// A delivery of the same lane that was given up is to be answered first.
  private func hasRoom(_ session: WorkerSession, for index: Int) -> Bool {
    session.deliveries.count < profile.credits && !session.deliveries.values.contains(lanes[index].partition)
  }

  /// The batches in a form that the worker can read.
  private func deliverable(_ batches: ArraySlice<LogBatch>, zstd: Bool) throws(WireError) -> [ByteSlice] {
    var slices: [ByteSlice] = []
    slices.reserveCapacity(batches.count)
    for batch in batches {
      let isPacked = try RecordBatchHeader(batch.bytes.unsafeBytes).codec != 0
      slices.append(
        isPacked && !zstd ? try RecordBatch.uncompressed(batch.bytes, limit: environment.batchLimit) : batch.bytes)
    }
    return slices
  }
}
