import GrapeCommitLog
import GrapeLog
import GrapeWire

extension Simulation {
  func read() {
    guard let log else { return }
    let partition = anyPartition(in: model.visible)
    let expected = visible(partition)
    var offset = Int64(random.below(3))
    if case .success(let expected) = expected {
      let bounds = expected.bounds
      offset =
        random.chance(1, in: 4)
        ? random.pick([bounds.start - 1, bounds.start, bounds.end, bounds.end + 1])
        : bounds.start + Int64(random.below(Int(bounds.end - bounds.start) + 1))
    }
    let maxBytes = random.pick([1, 200, 5_000, 1 << 20])
    let queueFull = isReaderBusy
    note("  read \(partition) from \(offset), \(maxBytes) bytes")
    pendingReads += 1
    summary.reads += 1
    let directory = directory
    let faults = disk.faults
    let box = Unshared { [unowned self] (result: Result<ReadResult, LogError>) in
      if directory.hasDied { return }
      pendingReads -= 1
      if case .failure = result { summary.failedReads += 1 }
      // Only what fails while it reads is an excuse.
      if case .failure(let error) = result, isExcused(error, queueFull || isReaderBusy, disk.faults > faults) { return }
      // A segment may be replaced while it is read: then the read begins again, and sees what there is by then.
      if let wrong = difference(result, expected, offset, maxBytes),
        difference(result, visible(partition), offset, maxBytes) != nil,
        difference(result, between(result, partition, expected), offset, maxBytes) != nil
      {
        model.report("read of \(partition) from \(offset): \(wrong)")
      }
    }
    log.read(partition, from: offset, maxBytes: maxBytes) { box.value($0) }
  }

  /// What is wrong with a read's answer; nil if nothing is.
  private func difference(
    _ result: Result<ReadResult, LogError>, _ expected: Result<ModelState.Partition, LogError>, _ offset: Int64,
    _ maxBytes: Int
  ) -> String? {
    switch (result, expected) {
    case (.failure(let error), .failure(let other)):
      return error.code == other.code ? nil : "\(error), expected \(other.code)"
    case (.success, .failure(let error)): return "an answer, expected \(error.code)"
    case (.failure(let error), .success(let partition)):
      let inside = partition.bounds.start <= offset && offset <= partition.bounds.end
      return error.code == .offsetOutOfRange && !inside ? nil : "\(error)"
    case (.success(let answer), .success(let partition)):
      if answer.bounds != partition.bounds { return "bounds \(answer.bounds), expected \(partition.bounds)" }
      if offset < partition.bounds.start || offset > partition.bounds.end {
        return "an answer, expected offsetOutOfRange"
      }
      if answer.batches.isEmpty { return offset == partition.bounds.end ? nil : "nothing" }
      let bytes = answer.batches.reduce(0) { $0 + $1.bytes.count }
      if bytes > maxBytes && answer.batches.count > 1 { return "\(bytes) bytes, more than asked for" }
      return partition.difference(from: answer.batches[...], at: partition.batchNumber(of: offset))
    }
  }

  func readByTime() {
    // Whether a log that is being closed still answers is its own business.
    guard let log, !closing else { return }
    let partition = anyPartition(in: model.visible)
    let timestamp = clock.wallMilliseconds + Int64(random.within(-30_000...100))
    let expected = visible(partition).map { $0.offsets(at: timestamp) }
    let queueFull = isReaderBusy
    let faults = disk.faults
    note("  offset of \(partition) at \(timestamp)")
    pendingReads += 1
    summary.reads += 1
    let directory = directory
    let box = Unshared { [unowned self] (result: Result<Int64, LogError>) in
      if directory.hasDied { return }
      pendingReads -= 1
      if case .failure(let error) = result {
        summary.failedReads += 1
        if isExcused(error, queueFull || isReaderBusy, disk.faults > faults) { return }
      }
      // A segment may be replaced while it is searched: then the search begins again.
      let now = visible(partition).map { $0.offsets(at: timestamp) }
      if !isWithin(result, expected) && !isWithin(result, now) {
        model.report("offset of \(partition) at \(timestamp): \(result), expected \(expected)")
      }
    }
    log.offset(of: partition, at: timestamp) { box.value($0) }
  }

  /// What readers see of a partition now.
  private func visible(_ partition: TopicPartition) -> Result<ModelState.Partition, LogError> {
    model.visible.find(partition).map { model.visible.topics[$0.topic].partitions[$0.partition] }
  }

  /// What readers saw of a partition when it ended where `result` says.
  private func between(
    _ result: Result<ReadResult, LogError>, _ partition: TopicPartition,
    _ expected: Result<ModelState.Partition, LogError>
  ) -> Result<ModelState.Partition, LogError> {
    let now = visible(partition)
    guard case .success(let answer) = result, case .success(let before) = expected,
      let between = before.grown(to: answer.bounds)
    else { return now }
    // Nobody sees what is not acknowledged. (A topic that is gone by now may have grown before.)
    if case .success(let now) = now, now.history === before.history, now.bounds.end < answer.bounds.end {
      return .success(now)
    }
    return .success(between)
  }

  /// A read has to wait in the queue; also one that begins again because a segment was replaced.
  private var isReaderBusy: Bool {
    threads.queues.contains { $0.name == "log-reader" && $0.count >= options.readQueue }
  }

  /// A read may fail with it whatever it asked for.
  private func isExcused(_ error: LogError, _ queueFull: Bool, _ diskFailed: Bool) -> Bool {
    switch error.code {
    case .closed: closing
    case .busy: queueFull
    case .failed: diskFailed
    case .corrupt: damaged || disk.failedSynchronizations > 0
    default: false
    }
  }

  /// Bounds, topics, groups.
  func lookAround() {
    guard let log, !closing else { return }
    let partition = anyPartition(in: model.visible)
    let model = Unshared(model)
    let bounds = model.value.visible.find(partition).map {
      model.value.visible.topics[$0.topic].partitions[$0.partition].bounds
    }
    log.bounds(of: partition) { result in
      if !same(result, bounds) { model.value.report("bounds of \(partition): \(result), expected \(bounds)") }
    }
    let group = random.pick(Self.groupNames)
    log.committedOffsets(group: group) { result in
      let expected = model.value.visible.groups[group] ?? [:]
      if (try? result.get()) != expected {
        model.value.report("offsets of \(group): \(result), expected \(expected)")
      }
    }
    log.topics { result in
      let expected = model.value.visible.topics.map { TopicDescription(name: $0.name, configuration: $0.configuration) }
      if (try? result.get()) != expected { model.value.report("topics \(result), expected \(expected)") }
    }
  }

  func watch() {
    guard let log, !closing, model.watches.count < 20 else { return }
    let partition = anyPartition(in: model.visible)
    let end = model.visible.partition(partition)?.bounds.end ?? 0
    let offset = max(end + Int64(random.within(-2...4)), 0)
    let watch = ModelWatch(
      partition, after: offset, incarnation: model.visible.topic(partition.topic)?.incarnation)
    let box = Unshared(watch)
    watch.token = log.whenAvailable(partition, after: offset) { box.value.fired += 1 }
    model.watching(watch)
    note("  \(watch)")
  }

  func cancelWatch() {
    guard let log, let watch = model.watches.randomElement(using: &random), let token = watch.token else { return }
    watch.cancelled = true
    log.cancelWatch(token)
  }

  /// Everything the log shows. Nothing comes between.
  /// `damaged`: readers may be told that something is.
  func readEverything(damaged: Bool = false) throws(Wrong) -> FoundLog {
    guard let log else { throw Wrong(message: "there is no log to read") }
    let before = undisturbed
    undisturbed = true
    defer { undisturbed = before }
    let topics = try answer("topics") { log.topics(completion: $0) }
    var found = FoundLog(topics: topics, partitions: [], groups: [:])
    for topic in topics {
      for number in 0..<topic.configuration.partitions {
        let (partition, whole) = try readPartition(TopicPartition(topic.name, number), log, damaged)
        found.partitions.append(partition)
        if !whole { found.isDamaged = true }
      }
    }
    for group in Self.groupNames {
      let offsets = try answer("offsets of \(group)") { log.committedOffsets(group: group, completion: $0) }
      if !offsets.isEmpty { found.groups[group] = offsets }
    }
    return found
  }

  private func readPartition(
    _ partition: TopicPartition, _ log: CommitLog, _ damaged: Bool
  ) throws(Wrong) -> (FoundLog.Partition, whole: Bool) {
    let bounds = try answer("bounds of \(partition)") { log.bounds(of: partition, completion: $0) }
    var batches: [LogBatch] = []
    var offset = bounds.start
    while offset < bounds.end {
      let answer = ask { log.read(partition, from: offset, maxBytes: 1 << 20, completion: $0) }
      switch answer {
      case .success(let result):
        guard result.nextOffset > offset else {
          throw Wrong(message: "read of \(partition) from \(offset): nothing, of \(bounds)")
        }
        batches += result.batches
        offset = result.nextOffset
      case .failure(let error) where damaged && error.code == .corrupt:
        return (FoundLog.Partition(bounds: bounds, batches: batches), false)
      case .failure(let error): throw Wrong(message: "read of \(partition) from \(offset): \(error)")
      case nil: throw Wrong(message: "read of \(partition) from \(offset): no answer")
      }
    }
    return (FoundLog.Partition(bounds: bounds, batches: batches), true)
  }

  /// The answer to a question that the reader's thread may have to be run for.
  private func answer<Value: Sendable>(
    _ what: @autoclosure () -> String, _ ask: (@escaping @Sendable (Result<Value, LogError>) -> Void) -> Void
  ) throws(Wrong) -> Value {
    guard let result = self.ask(ask) else { throw Wrong(message: "\(what()): no answer") }
    do {
      return try result.get()
    } catch {
      throw Wrong(message: "\(what()): \(error)")
    }
  }

  /// The same, which may fail; nil if there is no answer.
  func ask<Value: Sendable>(
    _ ask: (@escaping @Sendable (Result<Value, LogError>) -> Void) -> Void
  ) -> Result<Value, LogError>? {
    // There must be room for one more.
    stepQueueUntilEmpty("log-reader")
    let box = Unshared(Answer<Value>())
    ask { box.value.result = $0 }
    if box.value.result == nil { stepQueueUntilEmpty("log-reader") }
    return box.value.result
  }

  private final class Answer<Value> {
    var result: Result<Value, LogError>?
  }

  private func stepQueueUntilEmpty(_ name: String) {
    for queue in threads.queues where queue.name == name {
      while threads.step(queue) {}
    }
  }
}

private func isWithin(
  _ result: Result<Int64, LogError>, _ expected: Result<ClosedRange<Int64>, LogError>
) -> Bool {
  switch (result, expected) {
  case (.success(let value), .success(let range)): range.contains(value)
  case (.failure(let error), .failure(let other)): error.code == other.code
  default: false
  }
}

private func same<Value: Equatable>(_ result: Result<Value, LogError>, _ expected: Result<Value, LogError>) -> Bool {
  switch (result, expected) {
  case (.success(let value), .success(let other)): value == other
  case (.failure(let error), .failure(let other)): error.code == other.code
  default: false
  }
}
