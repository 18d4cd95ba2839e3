package import GrapeCore
package import GrapeLog
internal import GrapeReactor
internal import GrapeStore
internal import GrapeWire
internal import GrapeWorkers
internal import Logging

/// From the workers to the log.
extension ApplicationEngine {
  /// Takes a RESULT. A worker that breaks the rules is ended; what it held is run again elsewhere.
  func take(_ header: FrameHeader, _ body: ByteSlice, from session: WorkerSession) {
    guard let partition = session.deliveries[header.id] else {
      return condemn(session, "it answered delivery \(header.id), which it was not given")
    }
    guard let delivery = lanes[Int(partition)].delivery, delivery.id == header.id else {
      return dropResult(header, from: session)
    }
    let result: WorkerResult
    var transaction = Transaction(durability: Durability(profile.durability))
    var appended: [(ApplicationEngine, Arrival)] = []
    do throws(WireError) {
      result = try WorkerResult(body, first: delivery.first, end: delivery.end, slots: slotNames.count)
    } catch {
      return condemn(session, "its result is malformed: \(error.message)")
    }
    do throws(StatusError) {
      for output in result.outputs {
        let crcLeft = header.flags & 1 != 0
        if let append = try check(output, from: partition, crcLeft: crcLeft, counted: &appended) {
          transaction.appends.append(append)
        }
      }
    } catch {
      return condemn(session, "its output is not acceptable: \(error.message)")
    }
    session.answered(header.id, now: reactor.now)
    pool.proved()
    if transaction.appends.contains(where: { $0.partition.topic == stateTopic }) {
      stateGates[Int(partition)].wrote(session.id)
    }
    settle(result, delivery: delivery, lane: Int(partition), transaction: &transaction, worker: session.name)
    let isTold = tellAhead(transaction, result, delivery: delivery, lane: Int(partition))
    commit(transaction, lane: Int(partition), result: result, delivery: delivery, appended: appended, isTold: isTold)
    schedulePump()
    settleStop()
  }

  /// What works at least once, and came to nothing but replies, need not be in the log before those who wait for them have them: if the node dies before that
  /// the events run again, as they may. Not so if anything else came of the events, or of those before, which they may have seen, that could yet be undone.
  ///
  /// True: everybody who waits for one of them here has it, so that the log may have them as late as it is told that the events are done.
  private func tellAhead(
    _ transaction: Transaction, _ result: WorkerResult, delivery: LaneStateMachine.Delivery, lane index: Int
  ) -> Bool {
    guard profile.guarantee == .atLeastOnce, result.unfinished == nil, trails[index].isConfirmed,
      transaction.appends.allSatisfy({ environment.replies($0.partition.topic) != .none })
    else { return false }
    let events = LogRange(TopicPartition(topic, lanes[index].partition), delivery.first..<result.processed)
    return transaction.appends.reduce(true) { environment.repliesAhead($1, events) && $0 }
  }

  /// The partition has gone, or begun again, since: what came of its events is not to be committed.
  private func dropResult(_ header: FrameHeader, from session: WorkerSession) {
    session.answered(header.id, now: reactor.now)
    schedulePump()
    settleStop()
  }

  /// Holds an output against where this application may send, and against the format. nil: it is sound, and of no use to anybody.
  private func check(
    _ output: WorkerResult.Output, from source: Int32, crcLeft: Bool, counted: inout [(ApplicationEngine, Arrival)]
  ) throws(StatusError) -> Transaction.Append? {
    if crcLeft, output.batch.count >= RecordBatch.headerSize {
      // The frame's memory is ours alone until it is committed.
      RecordBatch.fillChecksum(
        UnsafeMutableRawBufferPointer(mutating: output.batch.unsafeBytes))
    }
    let header: RecordBatchHeader
    if output.topic == stateTopic {
      header = try checkState(output, from: source, crcLeft: crcLeft)
    } else if let target = environment.engine(output.topic), mayEmit(to: output.topic) {
      guard output.partition >= 0, output.partition < target.partitions else {
        throw StatusError(
          .badRequest, "\(output.topic) has no partition \(output.partition), it has \(target.partitions)")
      }
      var counts = [Int](repeating: 0, count: target.slotNames.count)
      header = try target.scanner.scan(output.batch, from: .worker, checkingCRC: !crcLeft, counts: &counts)
      counted.append(
        (target, Arrival(partition: output.partition, counts: counts, timestamp: header.maxTimestamp)))
    } else if let partitions = deployment.externalTopics[output.topic] {
      header = try checkExternal(output, partitions: partitions, crcLeft: crcLeft)
    } else {
      guard let reply = try checkReply(output, crcLeft: crcLeft) else { return nil }
      header = reply
    }
    return Transaction.Append(
      TopicPartition(output.topic, output.partition), batch: output.batch, maxTimestamp: header.maxTimestamp,
      recordCount: header.recordCount)
  }

  private func checkState(
    _ output: WorkerResult.Output, from source: Int32, crcLeft: Bool
  ) throws(StatusError) -> RecordBatchHeader {
    guard output.partition == source else {
      throw StatusError(
        .badRequest, "state of partition \(output.partition) is written by a result for partition \(source)")
    }
    do throws(WireError) {
      return try ChangelogBatches.validate(output.batch, checkingCRC: !crcLeft, limit: environment.batchLimit)
    } catch {
      throw StatusError(.badRequest, "record batch for \(output.topic): \(error.message)")
    }
  }

  /// nil: nobody can ask for the reply any more.
  private func checkReply(_ output: WorkerResult.Output, crcLeft: Bool) throws(StatusError) -> RecordBatchHeader? {
    switch environment.replies(output.topic) {
    case .none:
      throw StatusError(.badRequest, "\(name) emits nothing to topic \"\(output.topic)\" by its manifest")
    case .abandoned: return nil
    case .open(let partitions):
      guard output.partition >= 0, output.partition < partitions else {
        throw StatusError(.badRequest, "\(output.topic) has no partition \(output.partition)")
      }
      do throws(WireError) {
        return try RecordBatch.validate(output.batch, checkingCRC: !crcLeft, limit: environment.batchLimit) { _ in }
      } catch {
        throw StatusError(.badRequest, "record batch for \(output.topic): \(error.message)")
      }
    }
  }

  private func mayEmit(to topic: String) -> Bool {
    deployment.routes.values.contains { $0.contains { $0.topic == topic } }
  }

  /// Moves the lane on, and adds dead letters for what will not be run again.
  private func settle(
    _ result: WorkerResult, delivery: LaneStateMachine.Delivery, lane index: Int, transaction: inout Transaction,
    worker: String
  ) {
    for verdict in result.verdicts where verdict.kind == .rejected || verdict.kind == .failed {
      guard verdict.offset < result.processed else { continue }
      // Whoever waits for the event has the error as the answer.
      guard let record = find(verdict.offset, lane: index), !record.isAwaited else { continue }
      note(
        "warning", "event at \(topic)/\(lanes[index].partition):\(verdict.offset) was rejected: \(verdict.message)",
        worker: worker)
      transaction.appends.append(
        contentsOf: deadLetter(
          record, lane: index, offset: verdict.offset, reason: "rejected", code: verdict.code, message: verdict.message,
          attempts: 1))
    }
    noteProgress(index, to: result.processed, handled: result.tallies)
    lanes[index].completed(upTo: result.processed)
    noteGaps(index)
    guard let unfinished = result.unfinished, result.processed < delivery.end else { return }
    let attempts = Int(lanes[index].failuresOfHead) + 1
    if attempts >= profile.retry.attempts {
      setHeadAside(
        lane: index, attempts: attempts, code: unfinished.code, message: unfinished.message,
        transaction: &transaction)
    } else {
      let delay =
        unfinished.delayMilliseconds > 0
        ? Int64(unfinished.delayMilliseconds) * 1_000_000 : backoff(afterAttempt: attempts)
      lanes[index].headFailed(now: reactor.clock.monotonic, delay: delay)
      note(
        "warning",
        "event at \(topic)/\(lanes[index].partition):\(result.processed) failed (attempt \(attempts) of \(profile.retry.attempts)): \(unfinished.message)",
        worker: worker)
    }
  }

  /// Exponential, from the profile, with the upper half of it random so that retries of many lanes spread.
  func backoff(afterAttempt attempt: Int) -> Int64 {
    let base = profile.retry.backoff.nanoseconds
    let limit = profile.retry.maxBackoff.nanoseconds
    let doubled = attempt >= 32 ? limit : min(limit, base << Int64(attempt - 1))
    return doubled / 2 + Int64.random(in: 0...max(1, doubled / 2), using: &random)
  }

  private func commit(
    _ proposed: Transaction, lane index: Int, result: WorkerResult, delivery: LaneStateMachine.Delivery,
    appended: [(ApplicationEngine, Arrival)], isTold: Bool
  ) {
    var transaction = proposed
    let offset = lanes[index].processed
    let told = mustTellOffset(lane: index, result) ? offsetCommit(lane: index) : nil
    if let told { transaction.offsets = [told] }
    for (engine, arrival) in appended { engine.noteAppended(arrival) }
    toldReplies[index].gather(&transaction, isTold: isTold && told == nil)
    // Nothing came of the events that anybody waits for, and the log will be told later that they are done.
    if transaction.appends.isEmpty, told == nil {
      trails[index].moved(to: offset)
      return record(result, delivery: delivery)
    }
    let isAwaited = trails[index].handedOver(upTo: offset, telling: told?.committed.offset)
    commit(transaction, lane: index, of: delivery) { [self] outcome in
      switch outcome {
      case .success(let receipt):
        if let told { lanes[index].committed(upTo: told.committed.offset) }
        if isAwaited { trails[index].confirmedFirst() }
        record(result, delivery: delivery)
        applyState(transaction, receipt, lane: index, processed: offset)
      case .failure:
        for (engine, arrival) in appended { engine.noteRefused(arrival) }
      }
    }
  }

  /// Whether a result's commit says how far the lane is: always, if effects are to come about exactly once. Attempts are always told, as they must be durable
  /// before the next.
  private func mustTellOffset(lane index: Int, _ result: WorkerResult) -> Bool {
    guard profile.guarantee == .atLeastOnce, result.unfinished == nil else {
      offsetPacing[index].told(now: reactor.now)
      return true
    }
    return offsetPacing[index].progressed(now: reactor.now, interval: profile.commitInterval.nanoseconds)
  }

  /// Tells the log how far the lanes are of which that is due.
  func commitOffsets(upTo time: Int64) {
    guard environment.gate.failure == nil else { return }
    for index in lanes.indices {
      guard let due = offsetPacing[index].due, due <= time, tenures[index].phase != .away else { continue }
      commitOffset(lane: index)
    }
  }

  /// Tells the log how far a lane is.
  func commitOffset(lane index: Int) {
    offsetPacing[index].told(now: reactor.now)
    let told = offsetCommit(lane: index)
    var transaction = Transaction(durability: Durability(profile.durability), offsets: [told])
    toldReplies[index].gather(&transaction, isTold: false)
    commit(transaction, lane: index) { [self] outcome in
      if case .success = outcome { lanes[index].committed(upTo: told.committed.offset) }
    }
  }

  /// What the next commit of the lane says of its progress: no more than what is certain to be in the log when it is.
  private func offsetCommit(lane index: Int) -> Transaction.OffsetCommit {
    let previous = trails[index].told
    let committed =
      trails[index].isConfirmed
      ? CommittedOffset(offset: lanes[index].processed, metadata: lanes[index].metadata)
      : CommittedOffset(offset: trails[index].confirmed)
    trails[index].tells(committed.offset)
    return Transaction.OffsetCommit(
      group: name.text, partition: TopicPartition(topic, lanes[index].partition), committed: committed,
      previous: previous)
  }

  // MARK: Events that will not be run again

  /// An event as it stands in the log.
  struct FoundEvent {
    var batch: UnpackedBatch
    var record: Record
    var headers: EventHeaders
    var isAwaited: Bool { headers.replyAddress != nil }
  }

  func find(_ offset: Int64, lane index: Int) -> FoundEvent? {
    guard let batch = lanes[index].batch(holding: offset) else { return nil }
    do throws(WireError) {
      let unpacked = try RecordBatch.unpack(batch.bytes, checkingCRC: false, limit: environment.batchLimit)
      var reader = unpacked.reader()
      while let record = try reader.next() {
        guard batch.baseOffset + Int64(record.offsetDelta) == offset else { continue }
        return FoundEvent(batch: unpacked, record: record, headers: try EventHeaders(record))
      }
    } catch {
      note("error", "event \(offset) of \(topic)/\(lanes[index].partition) cannot be read: \(error.message)")
    }
    return nil
  }

  private func deadLetter(
    _ event: FoundEvent, lane index: Int, offset: Int64, reason: String, code: Int32, message: String, attempts: Int
  ) -> [Transaction.Append] {
    var headers = HeaderSection()
    let why: JSONValue = [
      "reason": .string(reason), "code": JSONValue(code), "message": .string(message), "attempts": JSONValue(attempts),
      "topic": .string(topic), "partition": JSONValue(lanes[index].partition), "offset": .int(offset),
      "version": .string(deployment.version), "timeMs": .int(reactor.clock.wall),
    ]
    do throws(WireError) {
      var original = event.record.headers
      while let (name, value) = try original.next() {
        // The reply address is spent: whoever waited has an answer.
        if name.elementsEqual("g.r".utf8) { continue }
        headers.append(name, value)
      }
      headers.append(HeaderName.deadLetter, why.utf8)
      var builder = RecordBatchBuilder(capacity: 256)
      headers.finish().withUnsafeBytes {
        builder.append(
          key: event.record.key, value: event.record.value, headerSection: $0, timestamp: reactor.clock.wall)
      }
      let batch = try builder.take()
      withExtendedLifetime(event) {}
      deadLetters += 1
      return [
        Transaction.Append(
          TopicPartition(name.deadLettersTopic, 0), batch: batch.bytes, maxTimestamp: batch.maxTimestamp,
          recordCount: batch.recordCount)
      ]
    } catch {
      note("error", "event \(offset) of \(topic)/\(lanes[index].partition) cannot be set aside: \(error.message)")
      return []
    }
  }

  /// The event at the head has been tried often enough: it becomes a dead letter, whoever waits is told, and the lane goes on behind it.
  private func setHeadAside(
    lane index: Int, attempts: Int, code: Int32, message: String, transaction: inout Transaction
  ) {
    let offset = lanes[index].processed
    note(
      "error",
      "event at \(topic)/\(lanes[index].partition):\(offset) is a dead letter after \(attempts) attempts: \(message)")
    if let event = find(offset, lane: index) {
      transaction.appends += deadLetter(
        event, lane: index, offset: offset, reason: "gave-up", code: code, message: message, attempts: attempts)
      if let address = event.headers.replyAddress {
        transaction.appends += reply(
          to: address,
          ReplyStatus(.gaveUp, ran: .unknown, code: code, message: "gave up after \(attempts) attempts: \(message)"))
      }
      // The event's memory lives to here: the address points into it.
      withExtendedLifetime(event) {}
    }
    noteProgress(index, to: offset + 1)
    lanes[index].skippedHead()
    noteGaps(index)
  }

  func reply(
    to address: UnsafeRawBufferPointer, _ status: ReplyStatus, value: ByteSlice? = nil
  ) -> [Transaction.Append] {
    do throws(WireError) {
      let address = try ReplyAddress(address)
      guard case .open = environment.replies(address.topic) else { return [] }
      var headers = HeaderSection()
      headers.append(HeaderName.replyStatus, status.encoded)
      var builder = RecordBatchBuilder(capacity: 256)
      builder.append(
        key: ByteSlice(address.correlation.encoded), value: value, headerSection: headers.finish(),
        timestamp: reactor.clock.wall)
      let batch = try builder.take()
      return [
        Transaction.Append(
          TopicPartition(address.topic, address.partition), batch: batch.bytes, maxTimestamp: batch.maxTimestamp,
          recordCount: batch.recordCount)
      ]
    } catch {
      note("error", "a reply address cannot be read: \(error.message)")
      return []
    }
  }

  /// The event at the head has killed its workers as often as is allowed.
  func giveUpHead(_ index: Int) {
    var transaction = Transaction(durability: Durability(profile.durability))
    setHeadAside(
      lane: index, attempts: Int(lanes[index].failuresOfHead), code: 0,
      message: blames[index]?.message ?? "its handler ended the worker each time", transaction: &transaction)
    let offset = lanes[index].processed
    let told = offsetCommit(lane: index)
    transaction.offsets = [told]
    let isAwaited = trails[index].handedOver(upTo: offset, telling: told.committed.offset)
    commit(transaction, lane: index) { [self] outcome in
      guard case .success = outcome else { return }
      lanes[index].committed(upTo: told.committed.offset)
      if isAwaited { trails[index].confirmedFirst() }
    }
    schedulePump()
  }

  /// Makes the attempts of the lane's head durable before its events go out again.
  func commitAttempts(_ index: Int) {
    commit(Transaction(durability: .disk, offsets: [offsetCommit(lane: index)]), lane: index) { [self] outcome in
      guard case .success = outcome else { return }
      lanes[index].attemptCommitted()
      schedulePump()
    }
  }
}

extension Durability {
  package init(_ durability: Profile.Durability) {
    switch durability {
    case .memory: self = .memory
    case .os: self = .os
    case .disk: self = .disk
    }
  }
}
