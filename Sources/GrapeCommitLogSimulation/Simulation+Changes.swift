import GrapeCommitLog
import GrapeLog
import GrapeWire

extension Simulation {
  static let topicNames = ["a", "b", "c.d", "e_f"]
  static let groupNames = ["g", "group.two"]

  private func submit(_ request: LogOperation.Request) {
    guard let log else { return }
    let operation = LogOperation(request)
    let directory = directory
    let answer: (Result<CommitReceipt, LogError>) -> Void = { [unowned self] result in
      // Nobody hears what a dead process says.
      if directory.hasDied { return }
      note("  answer to \(operation): \(result)")
      if case .failure(let error) = result, error.code == .tooLarge, !isLarge(request) {
        model.report("refused as too large: \(operation)")
      }
      // What was answered before it was written still takes its room.
      if case .failure(let error) = result, error.code == .busy, model.waiting == 0, !meanwhile {
        model.report("refused as busy, with nothing waiting: \(operation)")
      }
      model.answered(operation, result, failing: failing, tight: disk.isTight)
    }
    let box = Unshared(answer)
    switch request {
    case .commit(let transaction): log.commit(transaction) { box.value($0) }
    case .createTopic(let name, let configuration):
      log.createTopic(name, configuration: configuration) { box.value($0.map { .topicChange }) }
    case .alterTopic(let name, let configuration):
      log.alterTopic(name, configuration: configuration) { box.value($0.map { .topicChange }) }
    case .deleteTopic(let name): log.deleteTopic(name) { box.value($0.map { .topicChange }) }
    case .deleteRecords(let partition, let offset):
      log.deleteRecords(of: partition, before: offset) { box.value($0.map { .topicChange }) }
    case .deleteGroup(let name): log.deleteGroup(name) { box.value($0.map { .topicChange }) }
    }
    if operation.answer == .none && !directory.hasDied {
      model.accepted(operation)
      note("  \(operation)")
    }
  }

  /// It may be larger than the log takes at once: entries have some bytes beside their contents.
  private func isLarge(_ request: LogOperation.Request) -> Bool {
    guard case .commit(let transaction) = request else { return false }
    let contents =
      transaction.appends.reduce(0) { $0 + $1.batch.count + 100 }
      + transaction.offsets.reduce(0) { $0 + $1.committed.metadata.count + 100 }
    return contents > options.transactionBytes
  }

  /// A partition that is mostly there, for those who see `state`.
  func anyPartition(in state: ModelState? = nil) -> TopicPartition {
    let topics = (state ?? model.latest).topics
    if topics.isEmpty || random.chance(1, in: 30) {
      return TopicPartition(random.pick(Self.topicNames), Int32(random.below(4)))
    }
    let topic = topics[random.below(topics.count)]
    return TopicPartition(topic.name, Int32(random.below(topic.partitions.count)))
  }

  func commit(partitions: Int, records: Int, size: Int) {
    let durability = random.pick([Durability.disk, .disk, .os, .memory])
    var transaction = Transaction(durability: durability)
    if partitions > 0 {
      for _ in 0..<1 + random.below(partitions) {
        transaction.appends.append(
          payload.append(
            to: anyPartition(), count: 1 + random.below(records), size: size,
            timestamp: clock.wallMilliseconds, &random))
      }
    }
    if partitions != 1 {
      for _ in 0..<random.within((partitions == 0 ? 1 : 0)...3) {
        let metadata = (0..<random.pick([0, 0, 5, 40])).map { UInt8($0) }
        transaction.offsets.append(
          .init(
            group: random.pick(Self.groupNames), partition: anyPartition(),
            committed: CommittedOffset(offset: Int64(random.below(500)), metadata: metadata)))
      }
    }
    submit(.commit(transaction))
  }

  /// Something that must be refused, beside something that need not.
  func commitBadly() {
    let missing =
      random.chance(1, in: 2)
      ? TopicPartition("never-made", 0) : TopicPartition(anyPartition().topic, Int32(10 + random.below(5)))
    var partitions = [anyPartition(), missing]
    partitions.shuffle(using: &random)
    var transaction = Transaction(durability: random.pick([Durability.disk, .os, .memory]))
    for partition in partitions {
      transaction.appends.append(
        payload.append(to: partition, count: 1, size: 30, timestamp: clock.wallMilliseconds, &random))
    }
    submit(.commit(transaction))
  }

  func createTopic() {
    submit(
      .createTopic(random.pick(Self.topicNames), TopicConfiguration(partitions: Int32(1 + random.below(3)))))
  }

  /// Changes limits, none of which is ever reached: what goes by itself is the cleaning simulation's to check.
  func alterTopic() {
    let name = random.pick(Self.topicNames)
    let partitions = model.latest.topic(name)?.configuration.partitions ?? 1
    submit(
      .alterTopic(
        name,
        TopicConfiguration(
          partitions: random.chance(1, in: 10) ? partitions % 3 + 1 : partitions,
          retentionMilliseconds: random.pick([nil, Self.veryLong]), retentionBytes: random.pick([nil, 1 << 50]),
          dropsUnconsumed: random.chance(1, in: 2))))
  }

  /// Ten years, in milliseconds.
  private static let veryLong: Int64 = 315_360_000_000

  /// Gives up records, mostly many.
  func deleteRecords() {
    let partition = anyPartition()
    let bounds = model.latest.partition(partition)?.bounds ?? PartitionBounds(start: 0, end: 0)
    let offset =
      random.chance(1, in: 6)
      ? bounds.end + Int64(random.below(3)) : bounds.start + Int64(random.below(Int(bounds.end - bounds.start) + 1))
    submit(.deleteRecords(partition, before: offset))
  }

  func deleteGroup() { submit(.deleteGroup(random.pick(Self.groupNames))) }

  func deleteTopic() { submit(.deleteTopic(random.pick(Self.topicNames))) }
}

extension CommitReceipt {
  /// Topics are created and deleted durably.
  fileprivate static var topicChange: CommitReceipt { CommitReceipt(durability: .disk, baseOffsets: []) }
}

/// Carries what lives on the simulation's one thread through an interface made for many.
struct Unshared<Value>: @unchecked Sendable {
  let value: Value
  init(_ value: Value) { self.value = value }
}
