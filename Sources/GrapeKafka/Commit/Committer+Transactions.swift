internal import CRDKafka
internal import GrapeLog

// Groups of transactions that go in one Kafka transaction.
extension Committer {
  /// Longest wait between two tries, milliseconds.
  static let longestPause = 500
  /// How long a coordinator's refusal of a member may be due to news that are on their way, nanoseconds.
  static let staleTime: Int64 = 5_000_000_000
  /// How long the log may take to close though the cluster does not answer, nanoseconds.
  static let closeTime: Int64 = 2_000_000_000

  /// What came of the tries so far.
  struct Tries {
    var lastError = LogError.lateCommit
    var pause = 10
    var isFirst = true
    /// Since when a group's coordinator refuses this node's identity, or there is none, nanoseconds of the monotonic
    /// clock.
    var stale: [GroupStay: (identity: [UInt8]?, since: Int64)] = [:]
    /// The identities that were refused for good.
    var refused: [GroupStay: [UInt8]] = [:]
  }

  func writeTransaction(_ first: [PreparedTransaction]) {
    var group = first
    var tries = Tries()
    while true {
      refuseLate()
      // Before it is checked what this node has: a generation that is older than that is refused, never one that is newer.
      let identities = identities(of: group)
      group = admissible(group, identities, &tries)
      if group.isEmpty { return }
      if let failure {
        for transaction in group { refuse(transaction, failure, wasTried: false) }
        return
      }
      if !identities.missing.isDisjoint(with: stays(of: group)) {
        pause(&tries)
        continue
      }
      for transaction in group { memory.begin(transaction.transaction) }
      guard tryOnce(&group, identities.found, &tries) else { return }
      pause(&tries)
    }
  }

  /// True if what is left of the group is to be tried again.
  private func tryOnce(
    _ group: inout [PreparedTransaction], _ identities: [GroupStay: MemberIdentity], _ tries: inout Tries
  ) -> Bool {
    let ledger = DeliveryLedger(appends: group.reduce(0) { $0 + $1.batches.count })
    let producer = transactional.producer
    producer.client.ledger = ledger
    let attempt = group
    var undecided: [PreparedTransaction] = group
    let patience = patience(with: group) { error in
      // Those that cannot wait are told what is known.
      let late = undecided.filter { $0.deadline != nil }
      undecided.removeAll { $0.deadline != nil }
      for transaction in late { self.refuse(transaction, error, wasTried: true, isUnknown: true) }
    }
    meters.began()
    let outcome = transactional.run(ledger, patience, offsets: offsets(of: group, identities)) { () throws(LogError) in
      var place = 0
      let deadline = patience.deadline()
      for transaction in attempt { try produce(transaction, with: producer, ledger, &place, deadline: deadline) }
    }
    producer.client.ledger = nil
    meters.ended(outcome)
    let answered = Set(attempt.map(\.number)).subtracting(undecided.map(\.number))
    group = undecided
    switch outcome {
    case .committed:
      if producer.isUnusable { renewTransactional(attempt) }
      answer(attempt, ledger, except: answered)
      return false
    case .aborted(let error):
      if producer.isUnusable { renewTransactional(attempt) }
      return goOn(with: group, after: error, &tries)
    case .refused(let stay, let code, let error):
      if producer.isUnusable { renewTransactional(attempt) }
      note(stay, code, identities[stay])
      tries.noteRefusal(stay, code, identities[stay])
      return goOn(with: group, after: LogError(.busy, error.message), &tries)
    case .abandoned(let error):
      // Another producer rolls back what this one left, once the cluster is there again.
      renewTransactional(attempt)
      return goOn(with: group, after: error, &tries)
    case .lost(let error, let isOver):
      if isOver {
        failure = LogError(error.code, error.message + ". No more commits until the log is opened anew")
      }
      // What takes over the transactional id decides it: then, nobody reads a half of it.
      renewTransactional(attempt)
      if !isOver, isRolledBack(attempt) {
        return goOn(with: group, after: LogError(.busy, error.message), &tries)
      }
      for transaction in group { refuse(transaction, failure ?? error, wasTried: true, isUnknown: true) }
      return false
    }
  }

  /// Whether it is certain that transactions whose outcome nobody told were not committed. Their producer must have been replaced.
  ///
  /// All or none of them were, and offsets only grow: where one still is what they built on, none was. Anything else proves nothing, not even the very offset
  /// that they were to commit: another node may have got the partition, run the same events, and come just as far.
  private func isRolledBack(_ group: [PreparedTransaction]) -> Bool {
    let commits = group.flatMap(\.transaction.offsets).filter {
      $0.previous != nil && $0.previous != $0.committed.offset
    }
    if commits.isEmpty || failure != nil { return false }
    let deadline = MonotonicClock.after(milliseconds: configuration.requestTimeout)
    let until = { [queue] in queue.closedAt.map { min(deadline, $0 + Self.closeTime) } ?? deadline }
    // Once the new one has the transactional id nothing of the old one is under way.
    do throws(LogError) {
      try transactional.initialise(
        TransactionalProducer.Patience(deadline: until, meanwhile: { self.refuseLate() }, undecided: { _ in until() }))
    } catch {
      return false
    }
    for name in Set(commits.map(\.group)) {
      var found: [GroupOffset]?
      while found == nil, MonotonicClock.now < until() {
        do throws(LogError) {
          found = try GroupOffsets(configuration, of: configuration.namespace + name, timeout: 2_000).get()
        } catch {
          guard error.code == .busy else { return false }
          queue.closing.wait(until: MonotonicClock.after(milliseconds: Self.longestPause))
        }
      }
      for commit in commits where commit.group == name {
        let place = directory.clusterName(commit.partition)
        let offset = found?.first { $0.topic == place.topic && $0.partition == place.partition }?.offset
        if let offset, offset == commit.previous { return true }
      }
    }
    return false
  }

  /// After a try that wrote nothing. True if there is to be another.
  private func goOn(with group: [PreparedTransaction], after error: LogError, _ tries: inout Tries) -> Bool {
    tries.lastError = error
    if error.code == .busy {
      // Also how librdkafka 2.0.2 gets over a message that was refused before: its next transaction fails for sequence
      // numbers that were skipped, and the one after that has new ones.
      for transaction in group { memory.undone(transaction.transaction) }
      return true
    }
    if group.count == 1 {
      doubt(group[0], transactional.producer)
      refuse(group[0], error, wasTried: true)
    } else {
      // One of them is at fault, and only it shall fail.
      for transaction in group { memory.undone(transaction.transaction) }
      backlog.insert(
        contentsOf: group.map { transaction in
          var transaction = transaction
          transaction.isAlone = true
          return transaction
        }, at: 0)
    }
    return false
  }

  private func pause(_ tries: inout Tries) {
    if !tries.isFirst { queue.closing.wait(until: MonotonicClock.after(milliseconds: tries.pause)) }
    tries.isFirst = false
    tries.pause = min(tries.pause * 2, Self.longestPause)
  }

  /// How long a try may take: until somebody's time is over; once the log is to be closed, only as long as those that
  /// are not patient may wait.
  private func patience(
    with group: [PreparedTransaction], giveUp: @escaping (LogError) -> Void
  ) -> TransactionalProducer.Patience {
    let start = MonotonicClock.now
    let longest = start + Int64(configuration.commitTimeout) * 1_000_000
    let own = group.compactMap(\.deadline)
    let closing = { [queue] in queue.closedAt.map { max(max($0, start) + Self.closeTime, own.max() ?? 0) } }
    let first = min(own.min() ?? longest, backlog.compactMap(\.deadline).min() ?? longest, longest)
    return TransactionalProducer.Patience(
      deadline: { [queue] in closing() ?? min(first, queue.firstDeadline ?? first) },
      meanwhile: { self.refuseLate() },
      undecided: { error in
        giveUp(LogError(.unknown, error.message + "; it may or may not have been written"))
        // Patient ones want to know; the others' memory is needed as long as the cluster may not have decided.
        return closing() ?? MonotonicClock.after(milliseconds: self.configuration.commitTimeout)
      })
  }
}

extension LogError {
  static let lateCommit = LogError(
    .busy, "Kafka: the commit waited for too long behind others that the cluster did not take; may be tried again")
}
