import GrapeCommitLog
import GrapeCommitLogSimulation
import GrapeCore
import GrapeEngine
import GrapeLog
import GrapeReactor
import GrapeState
import GrapeWire
import GrapeWorkers

extension EngineSimulation {
  // MARK: What is shown

  /// The state of a partition is shown to somebody: it is what one of the commits has left, and tells rightly which results it has.
  func check(_ name: SimulatedStores.Name, _ image: SimulatedStores.Image) {
    guard let app = apps.firstIndex(of: name.app) else { return report("a store of \(name.app)") }
    let versions = model.versions[app][Int(name.partition)]
    let position = image.position
    guard let index = versions.lastIndex(where: { $0.changelogEnd == Int(position.changelog) }) else {
      return report(
        "the store of \(name.app)/\(name.partition) stands at \(position.changelog) of the changelog, where no commit ends"
      )
    }
    let expected = versions[index].state
    if image.entries.count != expected.count
      || image.entries.contains(where: { expected[$0.key.array] != $0.value.array })
    {
      report("the store of \(name.app)/\(name.partition) at \(position.changelog): \(difference(image, expected))")
    }
    // What comes later and is counted as being there.
    if let later = versions[(index + 1)...].first(where: { ($0.processed ?? .max) <= Int(position.processed) }) {
      report(
        "the store of \(name.app)/\(name.partition) says it has all up to \(position.processed), and lacks the result up to \(later.processed ?? 0)"
      )
    }
  }

  private func difference(_ image: SimulatedStores.Image, _ expected: [[UInt8]: [UInt8]]) -> String {
    for (key, entry) in expected.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) })
    where image.entries[ByteSlice(key)]?.array != entry {
      let found = image.entries[ByteSlice(key)].map { $0.string.debugDescription } ?? "nothing"
      return
        "\(String(decoding: key, as: UTF8.self).debugDescription) is \(found), not \(String(decoding: entry, as: UTF8.self).debugDescription)"
    }
    return "it has \(image.entries.count) entries, not \(expected.count)"
  }

  // MARK: The end

  /// A step that leads on, of whoever has something to do.
  func anyStep() throws(Wrong) {
    guard let node else { return }
    switch random.below(10) {
    case 0, 1, 2: node.reactor.turn()
    case 3: node.stateReactor.turn()
    case 4, 5: _ = node.threads.stepWriter()
    case 6: for name in ["log-reader", "log-segments", "log-cleaner"] { stepQueue(name) }
    case 7, 8: stepWorker()
    default: pass(random.pick([1, 5, 50]))
    }
    try check()
    try reviveIfDead()
  }

  /// No more harm is done: everything must come to its end.
  func finish() throws(Wrong) {
    isFinishing = true
    disk.disarm()
    stores.callsToFault = nil
    node?.groups?.calmDown()
    note("nothing goes wrong any more")
    var rounds = 0
    while try !settle() {
      rounds += 1
      guard rounds < 6_000, let node else {
        throw Wrong(message: "it does not come to rest: \(node.map(describe) ?? "")")
      }
      // Timers: retries, heartbeats, expiries.
      let wait = min(
        node.reactor.timeUntilTimer ?? 1_000_000_000, node.stateReactor.timeUntilTimer ?? .max, 500_000_000)
      pass(Int(wait / 1_000_000) + 1)
    }
    try checkEnd()
  }

  /// Goes on until only time can bring something new. True if everything is done.
  private func settle() throws(Wrong) -> Bool {
    for _ in 0..<20_000 {
      guard let node else { return false }
      var worked = false
      if node.reactor.isDue {
        node.reactor.turn()
        worked = true
      }
      if node.stateReactor.isDue {
        node.stateReactor.turn()
        worked = true
      }
      if node.threads.stepWriter() { worked = true }
      for queue in node.threads.queues where node.threads.step(queue) { worked = true }
      for worker in node.workers where worker.hasWork {
        worker.step()
        worked = true
      }
      try check()
      guard !worked else { continue }
      return node.isIdle && !isDeploying && !hasExpiring
    }
    throw Wrong(message: "it goes on for ever: \(node.map(describe) ?? "")")
  }

  /// Entries wait for their time.
  private var hasExpiring: Bool {
    model.latest.partitions.contains { $0.contains { $0.state.values.contains { ModelEntry.expiry($0) != nil } } }
  }

  func describe(_ node: SimulatedNode) -> String {
    node.engines.map { engine in
      "\(engine.name) \(engine.state), \(engine.lag) wait, idle \(engine.isIdle), problem \(engine.problem ?? "none")"
    }.joined(separator: "; ")
      + "; workers \(node.workers.map { "\($0.pid) \($0.phase) \($0.hasWork)" }), phase \(node.phase)"
  }

  private func checkEnd() throws(Wrong) {
    let state = model.latest
    for (app, name) in apps.enumerated() {
      for (number, partition) in state.partitions[app].enumerated() {
        guard partition.processed == partition.events.count, partition.writesDone == partition.writes.count else {
          throw Wrong(
            message:
              "\(name)/\(number) rests at \(partition.processed) of \(partition.events.count) events and \(partition.writesDone) of \(partition.writes.count) writes"
          )
        }
        let image = stores.files[.init(app: name, partition: Int32(number))]?.image ?? SimulatedStores.Image()
        guard Int(image.position.changelog) == partition.changelogEnd else {
          throw Wrong(
            message: "the store of \(name)/\(number) rests at \(image.position.changelog) of \(partition.changelogEnd)")
        }
        check(.init(app: name, partition: Int32(number)), image)
      }
    }
    try checkReplies(state)
    try check()
    try compareLog()
  }

  /// Whoever called, and whose call is in the log, has exactly one final answer.
  private func checkReplies(_ state: ModelState) throws(Wrong) {
    var finals: [[UInt8]: Int] = [:]
    for reply in state.replies where reply.status?.isFinal == true { finals[reply.key ?? [], default: 0] += 1 }
    var called: Set<[UInt8]> = []
    for partitions in state.partitions {
      for partition in partitions {
        for record in partition.events + partition.writes {
          if let address = record.replyAddress { called.insert(Array(address.prefix(16))) }
        }
      }
    }
    for call in called where finals[call] != 1 {
      throw Wrong(message: "call \(call[15]) has \(finals[call] ?? 0) final replies")
    }
  }

  /// Reads everything from the log itself.
  private func compareLog() throws(Wrong) {
    let state = model.latest
    try compare(TopicPartition(Self.replyTopic, 0), state.replies)
    for (app, name) in apps.enumerated() {
      try compare(TopicPartition("\(name).dead", 0), state.deadLetters[app])
      for (number, partition) in state.partitions[app].enumerated() {
        try compare(TopicPartition("\(name).events", Int32(number)), partition.events)
        try compare(TopicPartition("\(name).writes", Int32(number)), partition.writes)
        var entries: [[UInt8]: [UInt8]] = [:]
        for record in try read(TopicPartition("\(name).state", Int32(number))) {
          entries[record.key ?? []] = record.value
        }
        guard entries == partition.state else {
          throw Wrong(message: "the changelog of \(name)/\(number) comes to another state than its events")
        }
      }
    }
  }

  private func compare(_ place: TopicPartition, _ expected: [LoggedRecord]) throws(Wrong) {
    let found = try read(place)
    guard found == expected else {
      let index = found.indices.first { $0 >= expected.count || found[$0] != expected[$0] } ?? found.count
      throw Wrong(
        message: "\(place) has \(found.count) records, \(expected.count) are expected; they differ at \(index)")
    }
  }

  private func read(_ place: TopicPartition) throws(Wrong) -> [LoggedRecord] {
    guard let node else { return [] }
    var records: [LoggedRecord] = []
    var offset: Int64 = 0
    for _ in 0..<100_000 {
      let answer = Answer()
      node.log.read(place, from: offset, maxBytes: 1 << 20) { answer.result = $0 }
      _ = node.threads.runUntilIdle()
      guard case .success(let read) = answer.result else {
        throw Wrong(message: "\(place) cannot be read at \(offset): \(String(describing: answer.result))")
      }
      do throws(WireError) {
        for batch in read.batches {
          for (delta, record) in try LoggedRecord.all(in: batch.bytes) where batch.baseOffset + Int64(delta) >= offset {
            records.append(record)
          }
        }
      } catch {
        throw Wrong(message: "\(place): \(error)")
      }
      offset = read.nextOffset
      if offset >= read.bounds.end { return records }
    }
    throw Wrong(message: "\(place) has no end")
  }

  private final class Answer: @unchecked Sendable {
    // A simulation lives on one thread.
    var result: Result<ReadResult, LogError>?
  }
}
