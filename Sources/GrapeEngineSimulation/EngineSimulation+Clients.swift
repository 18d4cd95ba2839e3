import GrapeCommitLogSimulation
import GrapeCore
import GrapeEngine
import GrapeLog
import GrapeReactor
import GrapeState
import GrapeWire

/// What comes from outside.
extension EngineSimulation {
  /// So many events may wait before clients hold back.
  private static let mostWaiting = 60

  private var isFull: Bool {
    model.latest.partitions.reduce(0) { $0 + $1.reduce(0) { $0 + $1.events.count - $1.processed } } > Self.mostWaiting
  }

  /// Some events of no or little concern to each other, in one commit.
  func append() {
    if isFull { return }
    let app = random.below(apps.count)
    var batches: [Int: [(key: String, value: String)]] = [:]
    for _ in 0..<random.pick([1, 1, 2, 5]) {
      let key = "e\(random.below(12))"
      let partition = Int(Array(key.utf8).withUnsafeBytes { Partitioner.partition(forKey: $0, of: Int32(partitions)) })
      let number = library.make(&random, depth: 2, awaited: false)
      batches[partition, default: []].append((key, "\(number) client"))
    }
    var appends: [(Transaction.Append, Int)] = []
    for (partition, events) in batches.sorted(by: { $0.key < $1.key }) {
      let records = events.map { event in
        LoggedRecord(
          key: Array(event.key.utf8), value: Array(event.value.utf8),
          headers: [.init(name: "g.e", value: Array(ProgramHandler.slot.utf8))])
      }
      appends.append((makeAppend(records, to: "\(apps[app]).events", partition), records.count))
    }
    commit(appends, to: app)
  }

  /// An event that somebody waits for.
  func call() {
    if isFull { return }
    let app = random.below(apps.count)
    let key = Array("e\(random.below(12))".utf8)
    let partition = Int(key.withUnsafeBytes { Partitioner.partition(forKey: $0, of: Int32(partitions)) })
    let number = library.make(&random, depth: 2, awaited: true)
    let record = LoggedRecord(
      key: key, value: Array("\(number) call".utf8),
      headers: [
        .init(name: "g.e", value: Array(ProgramHandler.slot.utf8)), .init(name: "g.r", value: nextAddress()),
      ])
    commit([(makeAppend([record], to: "\(apps[app]).events", partition), 1)], to: app)
  }

  private func nextAddress() -> [UInt8] {
    calls += 1
    return ReplyAddress(
      correlation: CorrelationID(high: seed, low: UInt64(calls)), partition: 0, topic: Self.replyTopic
    ).encoded
  }

  /// Writes of state.
  func write() {
    let app = random.below(apps.count)
    let partition = random.below(partitions)
    var value: [UInt8] = []
    for _ in 0..<random.pick([1, 1, 3]) { value += makeWrite().encoded }
    var record = LoggedRecord(key: nil, value: value)
    if random.chance(3, in: 4) { record.headers.append(.init(name: "g.r", value: nextAddress())) }
    let append = makeAppend([record], to: "\(apps[app]).writes", partition)
    guard let node else { return }
    node.reactor.post { [self] in
      guard !node.engines.isEmpty, node.engines[app].state == .running else { return }
      node.gate.commit(Transaction(durability: node.engines[app].durability, appends: [append])) { _ in }
      summary.writes += 1
    }
  }

  private func makeWrite() -> OutsideWrite {
    let key = ModelEntry.fullKey(random.below(StateName.count))
    let expiry = random.chance(1, in: 3) ? clock.wallMilliseconds + Int64(random.pick([-5, 50, 3_000])) : nil
    let tag = random.chance(1, in: 4) ? StateName.tag : nil
    let entry = ModelEntry.make(Array("w\(random.below(1_000))".utf8), expiry: expiry, tag: tag)
    let isTrigger = random.chance(1, in: 4)
    switch random.below(6) {
    case 0: return OutsideWrite(operation: .remove, isTrigger: isTrigger, key: key, entry: nil)
    case 1:
      return OutsideWrite(operation: .append, isTrigger: isTrigger, key: key, entry: ModelEntry.make(Array("w,".utf8)))
    case 2, 3:
      // Mostly what is there now, which may be something else when its turn has come.
      let present = model.latest.partitions[random.below(apps.count)][random.below(partitions)].state[key]
      return OutsideWrite(
        operation: .compareAndSet, isTrigger: isTrigger, key: key, entry: random.chance(1, in: 5) ? nil : entry,
        expected: ModelEntry.value(present))
    default: return OutsideWrite(operation: .put, isTrigger: isTrigger, key: key, entry: entry)
    }
  }

  private func makeAppend(_ records: [LoggedRecord], to topic: String, _ partition: Int) -> Transaction.Append {
    var builder = RecordBatchBuilder(capacity: 256)
    for record in records {
      var headers = HeaderSection()
      for header in record.headers { headers.append(header.name, header.value ?? []) }
      builder.append(
        key: record.key.map { ByteSlice($0) }, value: record.value.map { ByteSlice($0) },
        headerSection: headers.finish(), timestamp: clock.wallMilliseconds)
    }
    do throws(WireError) {
      let batch = try builder.take()
      return Transaction.Append(
        TopicPartition(topic, Int32(partition)), batch: batch.bytes, maxTimestamp: batch.maxTimestamp,
        recordCount: batch.recordCount)
    } catch {
      preconditionFailure("an uncompressed batch can always be built: \(error)")
    }
  }

  private func commit(_ appends: [(append: Transaction.Append, count: Int)], to app: Int) {
    guard let node else { return }
    let durability = random.pick(Durability.allCases)
    node.reactor.post { [self] in
      guard !node.engines.isEmpty, node.engines[app].state != .loading else { return }
      let engine = node.engines[app]
      for (append, count) in appends {
        engine.noteAppended(
          .init(partition: append.partition.partition, counts: [count, 0], timestamp: append.maxTimestamp))
      }
      summary.appends += 1
      node.gate.commit(Transaction(durability: durability, appends: appends.map(\.append))) { _ in }
    }
  }

  /// Reads a partition's state as it is, or as it is once everything that was handed to the log is in it.
  func readState(isLinearizable: Bool) {
    guard let node else { return }
    let place = ModelRun.Place(app: random.below(apps.count), partition: random.below(partitions))
    node.reactor.post { [self] in
      guard !node.engines.isEmpty, node.engines[place.app].state != .loading else { return }
      let engine = node.engines[place.app]
      let partition = Int32(place.partition)
      guard isLinearizable else { return read(engine, place, from: 0) }
      let needed = Int64(model.latest.partitions[place.app][place.partition].changelogEnd)
      engine.whenApplied(partition..<partition + 1) { [self] in read(engine, place, from: needed) }
    }
  }

  private func read(_ engine: ApplicationEngine, _ place: ModelRun.Place, from needed: Int64) {
    engine.readState(Int32(place.partition)) { (view) throws(StateError) in
      (view as? SimulatedView)?.image.position.changelog ?? 0
    } completion: { [self] result in
      guard case .success(let position) = result else { return summary.failedReads += 1 }
      summary.reads += 1
      if position < needed {
        report(
          "a linearizable read of \(apps[place.app])/\(place.partition) shows the changelog up to \(position), \(needed) had been committed"
        )
      }
      if position < seen[place, default: 0] {
        report("a read of \(apps[place.app])/\(place.partition) goes back from \(seen[place]!) to \(position)")
      }
      seen[place] = position
    }
  }
}
