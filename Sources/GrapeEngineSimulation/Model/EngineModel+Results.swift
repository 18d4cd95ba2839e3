import GrapeCore
import GrapeEngine
import GrapeLog
import GrapeWire

/// What each kind of commit must come to.
extension EngineModel {
  func apply(_ commit: ModelCommit, to state: inout ModelState) throws(Mismatch) {
    if commit.isClaim { return try claim(commit, state) }
    if let lane = commit.lane {
      try result(commit, lane, &state)
    } else if let lane = commit.writesLane, state.partitions[lane.app][lane.partition].writes.isEmpty {
      return try claim(commit, state)
    } else if let lane = commit.writesLane {
      try outsideWrites(commit, lane, &state)
    } else if let changelog = commit.changelog {
      try expiry(commit, changelog.place, &state)
    }
    for (place, records) in commit.events { state.partitions[place.app][place.partition].events += records }
    for (place, records) in commit.writes { state.partitions[place.app][place.partition].writes += records }
    for (app, records) in commit.deadLetters { state.deadLetters[app] += records }
    state.replies += commit.replies
  }

  /// The first offsets of a partition: where it stands already.
  private func claim(_ commit: ModelCommit, _ state: ModelState) throws(Mismatch) {
    guard commit.events.isEmpty, commit.changelog == nil, commit.processed == 0, commit.writesDone == 0 else {
      throw Mismatch("an application's first offsets are not 0, or something goes with them")
    }
    guard let place = commit.lane ?? commit.writesLane else { throw Mismatch("first offsets of nothing") }
    let partition = state.partitions[place.app][place.partition]
    guard partition.processed == 0, partition.writesDone == 0 else {
      throw Mismatch("a partition of which something was consumed gets its first offsets")
    }
  }

  // MARK: Deliveries

  private func result(
    _ commit: ModelCommit, _ lane: ModelRun.Place, _ state: inout ModelState
  ) throws(Mismatch) {
    let before = state.partitions[lane.app][lane.partition]
    let name = "\(apps[lane.app])/\(lane.partition)"
    guard commit.processed >= before.processed else {
      throw Mismatch("\(name) goes back from \(before.processed) to \(commit.processed)")
    }
    guard commit.processed <= before.events.count else {
      throw Mismatch("\(name) has dealt with \(commit.processed) events, there are \(before.events.count)")
    }
    try checkNotes(commit, before, name)
    let expected = Durability(profiles[lane.app].durability)
    // Attempts are always brought to the disk.
    guard commit.durability == expected || (commit.isAttemptAlone && commit.durability == .disk) else {
      throw Mismatch("\(name) commits with durability \(commit.durability), not \(expected)")
    }
    var run = ModelRun(before.state, apps: apps, partitions: partitions)
    var letters = commit.deadLetters[lane.app] ?? []
    for offset in before.processed..<commit.processed {
      try event(before.events[offset], offset, lane, commit, before, &letters, &run)
    }
    guard letters.isEmpty, commit.deadLetters.keys.allSatisfy({ $0 == lane.app }) else {
      throw Mismatch("\(name): dead letters of events that it has not dealt with: \(commit.deadLetters)")
    }
    try compare(run, commit, name)
    try take(commit, run, lane, &state)
    state.partitions[lane.app][lane.partition].processed = commit.processed
    state.partitions[lane.app][lane.partition].notes = commit.notes
  }

  private func checkNotes(_ commit: ModelCommit, _ before: ModelPartition, _ name: String) throws(Mismatch) {
    func failures(_ notes: AttemptNotes, at offset: Int) -> Int { notes.head == offset ? notes.failures : 0 }
    let now = failures(commit.notes, at: commit.processed)
    let then = commit.processed == before.processed ? failures(before.notes, at: before.processed) : 0
    guard now == then || now == then + 1 else {
      throw Mismatch("\(name): the event at \(commit.processed) has failed \(now) times, and \(then) times before")
    }
    guard max(commit.notes.suspectEnd, commit.processed) >= min(before.notes.suspectEnd, before.events.count) else {
      throw Mismatch("\(name): suspects up to \(before.notes.suspectEnd) are forgotten")
    }
  }

  private func event(
    _ event: LoggedRecord, _ offset: Int, _ lane: ModelRun.Place, _ commit: ModelCommit, _ before: ModelPartition,
    _ letters: inout [LoggedRecord], _ run: inout ModelRun
  ) throws(Mismatch) {
    let name = "\(apps[lane.app])/\(lane.partition):\(offset)"
    let value = event.value ?? []
    let steps = Program.number(in: value).map { library.programs[$0].steps } ?? []
    let isRejected = steps.contains { if case .reject = $0 { true } else { false } }
    if let why = try letter(letters.first, of: event, offset, lane.partition) {
      letters.removeFirst()
      switch why.reason {
      case "rejected" where isRejected && event.replyAddress == nil: return
      case "gave-up":
        let attempts = profiles[lane.app].retry.attempts
        guard why.attempts == attempts || (why.attempts > attempts && renewed.contains(lane.app)),
          library.misfortunes[value, default: 0] >= attempts
        else {
          throw Mismatch(
            "\(name) was given up after \(why.attempts) attempts of \(attempts); \(library.misfortunes[value, default: 0]) went wrong"
          )
        }
        guard offset > before.processed || before.notes.head == offset || attempts == 1 else {
          throw Mismatch("\(name) was given up without its attempts having been noted")
        }
        if let address = event.replyAddress {
          run.answer(address, ReplyStatus(.gaveUp, ran: .unknown), nil)
        }
        return
      default: throw Mismatch("\(name) became a dead letter: \(why)")
      }
    }
    if isRejected {
      guard event.replyAddress != nil else { throw Mismatch("\(name) rejects its event, which is no dead letter") }
      return run.fail(event, library, ReplyStatus(.handlerError, ran: .yes, code: 7), found: commit.replies)
    }
    // Whether a handler that fails sometimes (as each does when it cannot read state) failed this time shows in the answer.
    if let address = event.replyAddress, library.misfortunes[value, default: 0] > 0,
      commit.replies.contains(where: {
        $0.key == Array(address.prefix(16)) && $0.status?.status == .handlerError
      })
    {
      return run.fail(event, library, ReplyStatus(.handlerError, ran: .yes), found: commit.replies)
    }
    if let needed = mishapsNeeded(steps), library.runs[value, default: 0] <= needed {
      throw Mismatch("\(name) has taken effect, though its handler failed each time")
    }
    run.succeed(event, library)
  }

  /// How often the handler goes wrong before it succeeds.
  private func mishapsNeeded(_ steps: [Program.Step]) -> Int? {
    for step in steps {
      switch step {
      case .fail(let times), .retry(let times, _), .crash(let times), .hang(let times): return times
      default: continue
      }
    }
    return nil
  }

  private func letter(
    _ record: LoggedRecord?, of event: LoggedRecord, _ offset: Int, _ partition: Int
  ) throws(Mismatch) -> (reason: String, attempts: Int)? {
    guard let record, let text = record["g.x"] else { return nil }
    guard let why = try? text.withUnsafeBytes({ try JSONValue(parsing: $0) }) else {
      throw Mismatch("a dead letter does not say why: \(record)")
    }
    guard why["offset"]?.int == Int64(offset), why["partition"]?.int == Int64(partition) else { return nil }
    guard record.key == event.key, record.value == event.value else {
      throw Mismatch("the dead letter of the event at \(offset) is another event: \(record)")
    }
    return (why["reason"]?.string ?? "", Int(why["attempts"]?.int ?? 0))
  }

  // MARK: Comparing

  /// Holds what was handed to the log against what it must be.
  private func compare(_ run: ModelRun, _ commit: ModelCommit, _ name: String) throws(Mismatch) {
    let places = Set(run.emitted.keys).union(commit.events.keys)
    for place in places.sorted(by: { ($0.app, $0.partition) < ($1.app, $1.partition) }) {
      let expected = run.emitted[place] ?? []
      let found = commit.events[place] ?? []
      if let difference = Self.difference(expected, found, headers: ["g.e", "g.h", "g.r"]) {
        throw Mismatch("\(name) emits to \(apps[place.app])/\(place.partition): \(difference)")
      }
    }
    try compareReplies(run.replies, commit, name)
    guard commit.writes.isEmpty else { throw Mismatch("\(name) appends writes from outside") }
  }

  func compareReplies(_ expected: [LoggedRecord], _ commit: ModelCommit, _ name: String) throws(Mismatch) {
    let found = commit.replies
    for index in 0..<max(expected.count, found.count) {
      guard index < expected.count else { throw Mismatch("\(name) gives a reply too many: \(found[index])") }
      guard index < found.count else { throw Mismatch("\(name) does not give the reply \(expected[index])") }
      let (left, right) = (expected[index].status, found[index].status)
      guard expected[index].key == found[index].key, expected[index].value == found[index].value,
        left?.status == right?.status, left?.isFinal == right?.isFinal, left?.ran == right?.ran
      else {
        throw Mismatch(
          "\(name) replies \(found[index]) \(right.map { "\($0)" } ?? ""), not \(expected[index]) \(left.map { "\($0)" } ?? "")"
        )
      }
    }
  }

  static func difference(_ expected: [LoggedRecord], _ found: [LoggedRecord], headers: [String]) -> String? {
    for index in 0..<max(expected.count, found.count) {
      guard index < expected.count else { return "one too many: \(found[index])" }
      guard index < found.count else { return "missing: \(expected[index])" }
      let (left, right) = (expected[index], found[index])
      let isSame = left.key == right.key && left.value == right.value && headers.allSatisfy { left[$0] == right[$0] }
      if !isSame { return "\(right), not \(left)" }
    }
    return nil
  }

  /// Holds the changelog against the writes, and makes them the partition's state.
  func take(
    _ commit: ModelCommit, _ run: ModelRun, _ lane: ModelRun.Place, _ state: inout ModelState
  ) throws(Mismatch) {
    let name = "\(apps[lane.app])/\(lane.partition)"
    if let place = commit.changelog?.place, place != lane { throw Mismatch("\(name) changes the state of \(place)") }
    var left = run.writes
    var run = run
    for record in commit.changelog?.records ?? [] {
      let key = record.key ?? []
      guard let write = left.removeValue(forKey: key) else {
        throw Mismatch("\(name) writes an entry that no event has written, or writes it twice: \(record)")
      }
      guard let actual = record.value, let ttl = write.ttl, let entry = write.entry else {
        guard record.value == write.entry else {
          throw Mismatch(
            "\(name) writes \(record), not \(write.entry.map { String(decoding: $0, as: UTF8.self).debugDescription } ?? "nothing")"
          )
        }
        continue
      }
      let now = wallTime()
      guard let expiry = ModelEntry.expiry(actual), expiry <= now + Int64(ttl), expiry > now + Int64(ttl) - 1_000_000,
        ModelEntry.value(actual) == ModelEntry.value(entry),
        ModelEntry.isTagged(actual) == ModelEntry.isTagged(entry)
      else { throw Mismatch("\(name) writes \(record), to live for \(ttl) ms") }
      run.settle(key, actual)
    }
    if let (key, _) = left.first {
      throw Mismatch("\(name) does not write \(String(decoding: key, as: UTF8.self).debugDescription)")
    }
    state.partitions[lane.app][lane.partition].state = run.state
    state.partitions[lane.app][lane.partition].changelogEnd += commit.changelog?.records.count ?? 0
  }
}
