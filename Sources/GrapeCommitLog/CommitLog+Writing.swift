import GrapeLog
import Synchronization

/// What the holder of the writing role does.
extension CommitLog {
  /// What the writing thread does again and again.
  func writerStep() -> WriterStep {
    switch queue.take() {
    case .write(let operations):
      if !write(operations, assisting: false) { return .ended }
      _ = queue.release()
      return .wrote
    case .wait: return .idle
    case .finish:
      finish()
      return .ended
    case .stop: return .ended
    }
  }

  /// Writes and answers all of `operations`; false if the log has failed, in which case all are answered as well.
  func write(_ operations: [Operation], assisting: Bool) -> Bool {
    var first = 0
    while first < operations.count {
      let last = endOfGroup(operations, from: first)
      let part = operations[first..<last]
      do {
        try writer.serialise(part, into: &group)
      } catch  where error.code == .noSpace {
        // There is no room for another segment. Nothing was touched: the log goes on when there is.
        refuse(part, error)
        first = last
        continue
      } catch {
        fail(error, operations[first...])
        return false
      }
      do {
        try carryOut(part, assisting: assisting)
      } catch {
        // A group in memory only was answered before its write failed.
        fail(error, operations[(group.durability == .memory ? last : first)...])
        return false
      }
      queue.finished(bytes: part.reduce(0) { $0 + $1.bytes })
      first = last
    }
    return true
  }

  private func refuse(_ operations: ArraySlice<Operation>, _ cause: LogError) {
    let error = LogError(.noSpace, "no room for another segment of the log: \(cause.message)")
    queue.finished(bytes: operations.reduce(0) { $0 + $1.bytes })
    for operation in operations { operation.fail(error) }
  }

  /// Operations that go into one group: as many as its size allows, and none that asks for more than the first, so that
  /// the undemanding do not wait for the demanding.
  private func endOfGroup(_ operations: [Operation], from first: Int) -> Int {
    let durability = operations[first].durability
    var bytes = operations[first].bytes
    var next = first + 1
    while next < operations.count, operations[next].durability <= durability {
      bytes += operations[next].bytes
      if bytes > options.groupBytes { break }
      next += 1
    }
    return next
  }

  /// Brings the serialised group to its durability, shows it to readers and answers.
  private func carryOut(_ operations: ArraySlice<Operation>, assisting: Bool) throws(LogError) {
    if group.durability == .memory {
      publish()
      answer(operations)
      try writer.write(group)
      count(syncNanoseconds: nil, assisting: assisting)
    } else {
      let took = try writeToItsDurability()
      count(syncNanoseconds: took, assisting: assisting)
      publish()
      answer(operations)
    }
    if let next = writer.segmentToPrepare() { prepare(next) }
  }

  /// Returns how long its synchronisation took, if there was one.
  private func writeToItsDurability() throws(LogError) -> Int64? {
    guard group.durability == .disk else {
      try writer.write(group)
      return nil
    }
    turns?.groupBegan()
    defer { turns?.groupEnded() }
    try writer.write(group)
    return try synchronize()
  }

  /// Returns how long it took, nil if there was nothing to do.
  private func synchronize() throws(LogError) -> Int64? {
    if writer.durable == writer.sequence { return nil }
    let began = clock.monotonicNanoseconds()
    try writer.synchronize()
    return clock.monotonicNanoseconds() - began
  }

  private func count(syncNanoseconds: Int64?, assisting: Bool) {
    counters.withLock { counters in
      counters.commits += UInt64(group.commits)
      if group.count > 0 {
        counters.groups += 1
        counters.bytes += UInt64(group.count)
        if assisting { counters.assisted += 1 }
      }
      if let syncNanoseconds {
        counters.syncs += 1
        counters.syncTime.add(nanoseconds: syncNanoseconds)
      }
    }
  }

  private func publish() {
    guard group.count > 0, let block = group.storage else { return }
    var fired: [@Sendable () -> Void] = []
    let header = group.segment!
    var sealed = false
    let dropped = shared.withLock { shared in
      if shared.table.segments.last!.base != header.base {
        shared.beginSegment(header, lastSequence: writer.sequence - 1)
        sealed = true
      }
      for change in group.changes {
        switch change {
        case .trimmed, .topicDeleted, .topicAltered: shared.epoch += 1
        case .append, .offsetCommit, .groupDeleted, .topicCreated, .partitionState, .topicIDs: break
        }
        do throws(PublishedState.Misfit) {
          try shared.state.apply(change, segment: header.base, fired: &fired)
        } catch {
          preconditionFailure("a group that was written does not fit the state: \(error.reason)")
        }
      }
      return shared.cache.append(
        storage: block, offset: group.offset, position: group.position, count: group.count)
    }
    writer.recycle(dropped)
    // If there are too many jobs, the one for the next segment sees to this one too.
    if sealed { _ = housekeeper.add { self.indexSealed() } }
    for change in group.changes {
      switch change {
      case .topicCreated(_, let name, let configuration):
        coordinator.setPartitions(configuration.partitions, of: name)
      case .topicDeleted(_, let name): coordinator.setPartitions(nil, of: name)
      case .append, .offsetCommit, .topicAltered, .trimmed, .partitionState, .topicIDs, .groupDeleted: break
      }
    }
    for notify in fired { notify() }
  }

  private func answer(_ operations: ArraySlice<Operation>) {
    for (operation, outcome) in zip(operations, group.outcomes) {
      switch outcome {
      case .committed(let baseOffsets): operation.succeed(group.durability, baseOffsets)
      case .done: operation.succeed(group.durability, [])
      case .refused(let error): operation.fail(error)
      }
    }
  }

  private func prepare(_ next: (base: Int64, capacity: Int64)) {
    // If it fails now it will be tried again, and reported, when the segment is needed.
    _ = housekeeper.add {
      try? self.preparer.prepare(base: next.base, capacity: next.capacity)
      self.checkSpace()
    }
  }

  /// A write failed. What it left on the disk is unknown, so nothing more is written: reads go on, commits are refused.
  private func fail(_ cause: LogError, _ unanswered: ArraySlice<Operation>) {
    let error = LogError(
      .failed, "the log takes no more commits until it is opened anew, because of: \(cause.message)")
    writer.abandon()
    let waiting = queue.fail(error)
    for operation in unanswered { operation.fail(error) }
    for operation in waiting { operation.fail(error) }
    // The writing thread has nothing left to do.
    wake.signal()
    if ending.withLock({ $0.asked }) { shutDown() }
  }
}
