internal import GrapeCore
internal import GrapeLog
internal import GrapeReactor
internal import GrapeStore
internal import GrapeWire
internal import Logging

/// What the node changes in the state by itself, in a lane between two deliveries: writes from outside, and what has expired. Each is one
/// commit: changelog, replies, events that it triggers, and how far `APP.writes` has been dealt with.
extension ApplicationEngine {
  private static let expiredAtATime = 1000
  private static let writesAtATime = 1024 * 1024

  private func writesPartition(_ index: Int) -> TopicPartition {
    TopicPartition(writesTopic, lanes[index].partition)
  }

  // MARK: Reading writes

  /// Keeps writes at hand.
  func fetchWrites(_ index: Int) {
    guard let position = chores[index].planRead() else { return }
    let partition = writesPartition(index)
    let term = tenures[index].term
    let fired = reactor.completion { [self] (_: Void) in readWrites(index, from: position, term) }
    _ = log.whenAvailable(partition, after: position) { fired(()) }
  }

  private func readWrites(_ index: Int, from position: Int64, _ term: Int) {
    guard isTerm(term, index) else { return }
    log.read(
      writesPartition(index), from: position, maxBytes: Self.writesAtATime,
      completion: reactor.completion { [self] result in
        guard isTerm(term, index) else { return }
        switch result {
        case .success(let read):
          if read.batches.isEmpty {
            chores[index].readNothing(next: read.bounds.end)
          } else {
            chores[index].read(read.batches)
          }
          schedulePump()
        case .failure(let error) where error.code == .offsetOutOfRange: skipWrites(index)
        case .failure(let error) where error.code == .noSuchTopic && environment.sharesLog:
          chores[index].readNothing()
          topicIsGone(index, error)
        case .failure(let error) where error.code == .closed || error.code == .noSuchTopic: break
        case .failure(let error):
          problem = "cannot read \(writesTopic)/\(lanes[index].partition) at \(position): \(error.message)"
          note("error", problem!)
          reactor.schedule(after: 1_000_000_000) { [self] in
            guard isTerm(term, index) else { return }
            chores[index].readNothing()
            schedulePump()
          }
        }
      })
  }

  private func skipWrites(_ index: Int) {
    let term = tenures[index].term
    log.bounds(
      of: writesPartition(index),
      completion: reactor.completion { [self] result in
        guard isTerm(term, index) else { return }
        guard case .success(let bounds) = result else { return chores[index].readNothing() }
        note(
          "error", "writes up to \(bounds.start) of \(writesTopic)/\(lanes[index].partition) are no longer kept")
        chores[index].readNothing(next: bounds.start)
        schedulePump()
      })
  }

  // MARK: Doing

  /// Whether events wait that could be delivered. A lane that waits for a retry or for a worker that is busy elsewhere, or stands still, does
  /// not keep writes waiting.
  private func eventsCanGo(_ index: Int) -> Bool {
    lanes[index].hasWork && !lanes[index].awaitsAttemptCommit && lanes[index].blockedUntil <= reactor.now
      && unreadable[index] == nil && hasFreeWorker(index)
  }

  /// Whether a chore comes before the lane's next delivery: begins it if it can be done now.
  func choreComesFirst(_ index: Int) -> Bool {
    if chores[index].isBusy { return true }
    guard chores[index].hasWork else { return false }
    guard
      let chore = chores[index].due(
        now: reactor.now, time: reactor.clock.wall, eventsWait: eventsCanGo(index))
    else { return false }
    // The store must have what came before; the next turn of the pump looks again.
    guard lanes[index].delivery == nil, stateGates[index].isSettled else { return true }
    chores[index].begin()
    switch chore {
    case .writes: doWrites(index)
    case .expiry: removeExpired(index)
    }
    return true
  }

  /// What a chore has come to on the keeper's thread.
  private struct Proposal: Sendable {
    var changes: [(key: ByteSlice, entry: ByteSlice?)] = []
    /// Reply address and the reply's value.
    var replies: [(address: ByteSlice, status: ReplyStatus, value: ByteSlice?)] = []
    var triggers: [(slot: String, write: StateWrite)] = []
    var position: Int64 = 0
  }

  private func doWrites(_ index: Int) {
    let (batches, first, limit) = (chores[index].writes, chores[index].position, environment.batchLimit)
    let (partition, now) = (lanes[index].partition, reactor.clock.wall)
    environment.state.read(
      changelog(index),
      { (view, _) throws(StateError) in
        try Self.run(batches, from: first, on: view, limit: limit, partition: partition, now: now)
      },
      completion: reactor.completion { [self] result in
        switch result {
        case .success(let proposal): commit(proposal, .writes, lane: index)
        case .failure(let error): choreFailed(.writes, lane: index, error)
        }
      })
  }

  private static func run(
    _ batches: [LogBatch], from first: Int64, on view: (any StateView)?, limit: Int, partition: Int32, now: Int64
  ) throws(StateError) -> Proposal {
    var answerBytes = 0
    var run = StateWriteRun(view)
    var proposal = Proposal(position: first)
    reading: for batch in batches {
      do throws(WireError) {
        let unpacked = try RecordBatch.unpack(batch.bytes, checkingCRC: false, limit: limit)
        defer { withExtendedLifetime(unpacked) {} }
        var reader = unpacked.reader()
        while let record = try reader.next() {
          let offset = batch.baseOffset + Int64(record.offsetDelta)
          guard offset >= first, let value = record.value else { continue }
          let address = try EventHeaders(record).replyAddress
          if StateQuery.isQuestion(value) {
            // What was written before is to be in the store first.
            if run.hasChanges { break reading }
            answerBytes += answer(value, replyingTo: address, on: view, partition: partition, now: now, &proposal)
          } else {
            try take(value, replyingTo: address, &run, &proposal)
          }
          proposal.position = offset + 1
          // The rest is read again for the next commit.
          if run.byteCount + answerBytes > proposalBytes { break reading }
        }
        proposal.position = batch.lastOffset + 1
      } catch {
        throw StateError(.corrupt, "a batch of writes cannot be read: \(error.message)")
      }
    }
    proposal.changes = run.changes
    return proposal
  }

  /// Entries of one commit come to so many bytes, and what one record of writes brings beyond.
  private static let proposalBytes = 16 * 1024 * 1024

  /// Answers a question of another node. Bytes of the answer.
  private static func answer(
    _ question: UnsafeRawBufferPointer, replyingTo address: UnsafeRawBufferPointer?, on view: (any StateView)?,
    partition: Int32, now: Int64, _ proposal: inout Proposal
  ) -> Int {
    guard let address else { return 0 }
    var (status, value): (ReplyStatus, ByteSlice?) = (ReplyStatus(), nil)
    do throws(StatusError) {
      value = try StateQuery.answer(question, on: view, partition: partition, now: now)
      if value == nil { return 0 }
    } catch {
      status = ReplyStatus(error.status, ran: .never, message: error.message)
    }
    proposal.replies.append((ByteSlice(copying: address), status, value))
    return value?.count ?? 0
  }

  /// Carries out one record of writes. What cannot be done changes nothing, and is the answer; what cannot be read of the store is thrown.
  private static func take(
    _ value: UnsafeRawBufferPointer, replyingTo address: UnsafeRawBufferPointer?, _ run: inout StateWriteRun,
    _ proposal: inout Proposal
  ) throws(WireError) {
    var answer = ByteWriter(capacity: 64)
    var status = ReplyStatus()
    do {
      let writes = try StateWrite.all(in: value)
      for (write, outcome) in zip(writes, try run.run(record: writes)) {
        answer.u8(outcome.result.rawValue)
        answer.i64(outcome.size)
        if outcome.result == .done, !write.trigger.isEmpty { proposal.triggers.append((write.trigger, write)) }
      }
    } catch let error as WireError {
      status = ReplyStatus(.badRequest, ran: .never, message: error.message)
    } catch let error as StateError where error.code == .tooLarge {
      status = ReplyStatus(.tooLarge, ran: .never, message: error.message)
    } catch {
      // The store cannot be read: that is not the fault of who writes, who waits until it can.
      throw WireError(.malformed, "\(error)")
    }
    if let address { proposal.replies.append((ByteSlice(copying: address), status, answer.finish())) }
  }

  private func removeExpired(_ index: Int) {
    let time = reactor.clock.wall
    environment.state.read(
      changelog(index),
      { (view, _) throws(StateError) in
        var proposal = Proposal()
        try view?.expiring { expiry, key in
          guard expiry <= time, proposal.changes.count < Self.expiredAtATime else { return false }
          proposal.changes.append((ByteSlice(copying: key), nil))
          return true
        }
        return proposal
      },
      completion: reactor.completion { [self] result in
        switch result {
        case .success(let proposal):
          if proposal.changes.isEmpty { chores[index].nextExpiry = nil }
          commit(proposal, .expiry, lane: index)
        case .failure(let error): choreFailed(.expiry, lane: index, error)
        }
      })
  }

  private func choreFailed(_ chore: LaneChores.Chore, lane index: Int, _ error: StateError) {
    problem = "the state of partition \(lanes[index].partition) cannot be changed: \(error.message)"
    note("error", problem!)
    // Tried again, not at once: what is wrong may pass.
    reactor.schedule(after: 1_000_000_000) { [self] in
      chores[index].ended(chore, now: reactor.now, keepingWrites: true)
      settleStop()
      schedulePump()
    }
  }

  // MARK: Committing

  private func commit(_ proposal: Proposal, _ chore: LaneChores.Chore, lane index: Int) {
    var transaction = Transaction(durability: Durability(profile.durability))
    var arrivals: [Arrival] = []
    do throws(WireError) {
      transaction.appends = try changelogAppends(proposal.changes, lane: index)
      for reply in proposal.replies {
        transaction.appends += self.reply(to: reply.address.unsafeBytes, reply.status, value: reply.value)
      }
      if let (append, arrival) = try triggered(proposal.triggers, lane: index) {
        transaction.appends.append(append)
        arrivals.append(arrival)
      }
    } catch {
      return choreFailed(chore, lane: index, StateError(.tooLarge, error.message))
    }
    if chore == .writes {
      transaction.offsets = [
        .init(
          group: name.text, partition: writesPartition(index), committed: CommittedOffset(offset: proposal.position),
          previous: chores[index].position)
      ]
    }
    guard !transaction.appends.isEmpty || !transaction.offsets.isEmpty else {
      return choreEnded(chore, lane: index, proposal)
    }
    if !proposal.changes.isEmpty { stateGates[index].nodeWrote() }
    for arrival in arrivals { noteAppended(arrival) }
    commit(transaction, lane: index) { [self] outcome in
      switch outcome {
      case .success(let receipt):
        applyState(transaction, receipt, lane: index, processed: lanes[index].processed)
        choreEnded(chore, lane: index, proposal)
      case .failure:
        for arrival in arrivals { noteRefused(arrival) }
        // The lane begins again, or nothing does.
        chores[index].ended(chore, now: reactor.now, keepingWrites: true)
      }
    }
  }

  private func choreEnded(_ chore: LaneChores.Chore, lane index: Int, _ proposal: Proposal) {
    chores[index].ended(chore, now: reactor.now, upTo: chore == .writes ? proposal.position : nil)
    settleStop()
    schedulePump()
  }

  /// Record batches for the changelog, as many as the size asks for.
  func changelogAppends(
    _ changes: [(key: ByteSlice, entry: ByteSlice?)], lane index: Int
  ) throws(WireError) -> [Transaction.Append] {
    var appends: [Transaction.Append] = []
    var builder = RecordBatchBuilder(capacity: 4096)
    let now = reactor.clock.wall
    func cut() throws(WireError) {
      let batch = try builder.take()
      appends.append(
        .init(changelog(index), batch: batch.bytes, maxTimestamp: batch.maxTimestamp, recordCount: batch.recordCount))
    }
    for change in changes {
      let size = change.key.count + (change.entry?.count ?? 0)
      if !builder.isEmpty, builder.byteCount + size > 1024 * 1024 { try cut() }
      builder.append(key: change.key, value: change.entry, headerSection: HeaderSection.empty, timestamp: now)
    }
    if !builder.isEmpty { try cut() }
    return appends
  }

  /// One event per write that names a slot, for the partition in which the entry is.
  private func triggered(
    _ triggers: [(slot: String, write: StateWrite)], lane index: Int
  ) throws(WireError) -> (Transaction.Append, Arrival)? {
    var builder = RecordBatchBuilder(capacity: 4096)
    var counts = [Int](repeating: 0, count: slotNames.count)
    let now = reactor.clock.wall
    for (slot, write) in triggers {
      guard let number = slotNames.firstIndex(of: slot) else {
        note(
          "error", "a write of \(readable(write.key.unsafeBytes)) was to trigger \"\(slot)\", which is no slot any more"
        )
        continue
      }
      var headers = HeaderSection()
      headers.append("g.e", Array(slot.utf8))
      do throws(StateError) {
        let key = try StateKey(full: write.key)
        headers.append("state-store", Array(key.store.utf8))
        headers.append("state-operation", Array(write.operation.name.utf8))
        let value = try write.entry.map { (entry) throws(StateError) in
          ByteSlice(copying: try StateEntry(entry.unsafeBytes).value)
        }
        builder.append(key: key.key, value: value, headerSection: headers.finish(), timestamp: now)
      } catch {
        throw WireError(.malformed, error.message)
      }
      counts[number] += 1
    }
    guard !builder.isEmpty else { return nil }
    let batch = try builder.take()
    let partition = lanes[index].partition
    return (
      .init(
        TopicPartition(topic, partition), batch: batch.bytes, maxTimestamp: batch.maxTimestamp,
        recordCount: batch.recordCount),
      Arrival(partition: partition, counts: counts, timestamp: batch.maxTimestamp)
    )
  }
}

extension StateWrite.Operation {
  /// As in the header `state-operation`, and in requests.
  package var name: String {
    switch self {
    case .put: "put"
    case .remove: "remove"
    case .compareAndSet: "cas"
    case .append: "append"
    }
  }
}
