import GrapeCore
import GrapeEngine
import GrapeLog
import GrapeWire

/// What the node does in the state by itself.
extension EngineModel {
  /// Writes from outside, record by record.
  func outsideWrites(
    _ commit: ModelCommit, _ lane: ModelRun.Place, _ state: inout ModelState
  ) throws(Mismatch) {
    let before = state.partitions[lane.app][lane.partition]
    let name = "\(apps[lane.app])/\(lane.partition), writes"
    guard commit.writesDone >= before.writesDone, commit.writesDone <= before.writes.count else {
      throw Mismatch("\(name) to \(commit.writesDone) of \(before.writes.count), after \(before.writesDone)")
    }
    guard commit.durability == Durability(profiles[lane.app].durability) else {
      throw Mismatch("\(name) with durability \(commit.durability)")
    }
    var run = ModelRun(before.state, apps: apps, partitions: partitions)
    var triggered: [LoggedRecord] = []
    for record in before.writes[before.writesDone..<commit.writesDone] {
      guard let writes = OutsideWrite.all(in: record.value ?? []) else { throw Mismatch("\(name): \(record)") }
      var answer: [UInt8] = []
      for write in writes {
        let outcome = run.perform(write)
        answer.append(outcome.isDone ? 1 : 0)
        for shift in stride(from: 56, through: 0, by: -8) {
          answer.append(UInt8(truncatingIfNeeded: outcome.size >> shift))
        }
        if outcome.isDone, write.isTrigger { triggered.append(write.event) }
      }
      if let address = record.replyAddress { run.answer(address, ReplyStatus(), answer) }
    }
    try compareReplies(run.replies, commit, name)
    guard commit.events.keys.allSatisfy({ $0 == lane }), commit.deadLetters.isEmpty else {
      throw Mismatch("\(name) lead elsewhere: \(commit.events) \(commit.deadLetters)")
    }
    if let difference = Self.difference(
      triggered, commit.events[lane] ?? [], headers: ["g.e", "state-store", "state-operation"])
    {
      throw Mismatch("\(name) trigger \(difference)")
    }
    try take(commit, run, lane, &state)
    state.partitions[lane.app][lane.partition].writesDone = commit.writesDone
  }

  /// Entries whose time has come are removed, and no others.
  func expiry(_ commit: ModelCommit, _ lane: ModelRun.Place, _ state: inout ModelState) throws(Mismatch) {
    let name = "\(apps[lane.app])/\(lane.partition)"
    guard commit.events.isEmpty, commit.replies.isEmpty, commit.deadLetters.isEmpty else {
      throw Mismatch("\(name): events or replies go with an expiry")
    }
    for record in commit.changelog?.records ?? [] {
      let key = record.key ?? []
      guard record.value == nil, let entry = state.partitions[lane.app][lane.partition].state[key],
        let expiry = ModelEntry.expiry(entry), expiry <= wallTime()
      else { throw Mismatch("\(name): the node changes an entry that has not expired: \(record)") }
      state.partitions[lane.app][lane.partition].state[key] = nil
    }
    state.partitions[lane.app][lane.partition].changelogEnd += commit.changelog?.records.count ?? 0
  }
}

/// A write from outside, as the simulation makes and reads it.
struct OutsideWrite {
  enum Operation: UInt8 { case put = 1, remove, compareAndSet, append }

  var operation: Operation
  var isTrigger: Bool
  var key: [UInt8]
  var entry: [UInt8]?
  /// Of compare-and-set: the value that must be there.
  var expected: [UInt8]?

  var encoded: [UInt8] {
    var writer = ByteWriter(capacity: 64)
    writer.u8(operation.rawValue)
    writer.u8(0)
    writer.string16(isTrigger ? ProgramHandler.trigger : "")
    for field in [key, entry, expected] {
      if let field { field.withUnsafeBytes { writer.bytes32($0) } } else { writer.bytes32(nil) }
    }
    return writer.finish().array
  }

  /// The writes of one record; nil: it cannot be read.
  static func all(in value: [UInt8]) -> [OutsideWrite]? {
    value.withUnsafeBytes { bytes in
      var reader = ByteReader(bytes)
      var writes: [OutsideWrite] = []
      do throws(WireError) {
        while reader.remaining > 0 {
          guard let operation = Operation(rawValue: try reader.u8()) else { return nil }
          _ = try reader.u8()
          let isTrigger = !(try reader.string16()).isEmpty
          guard let key = try reader.bytes32() else { return nil }
          let entry = try reader.bytes32().map { [UInt8]($0) }
          let expected = try reader.bytes32().map { [UInt8]($0) }
          writes.append(
            OutsideWrite(
              operation: operation, isTrigger: isTrigger, key: [UInt8](key), entry: entry, expected: expected))
        }
        return writes
      } catch {
        return nil
      }
    }
  }

  /// The event that it triggers.
  var event: LoggedRecord {
    let prefix = 1 + Int(key[0])
    let name =
      switch operation {
      case .put: "put"
      case .remove: "remove"
      case .compareAndSet: "cas"
      case .append: "append"
      }
    return LoggedRecord(
      key: Array(key[prefix...]), value: ModelEntry.value(entry),
      headers: [
        .init(name: "g.e", value: Array(ProgramHandler.trigger.utf8)),
        .init(name: "state-store", value: Array(key[1..<prefix])),
        .init(name: "state-operation", value: Array(name.utf8)),
      ])
  }
}

extension ModelRun {
  mutating func perform(_ write: OutsideWrite) -> (isDone: Bool, size: Int) {
    let old = state[write.key]
    func size(_ entry: [UInt8]?) -> Int { ModelEntry.value(entry)?.count ?? -1 }
    switch write.operation {
    case .put: set(write.key, write.entry)
    case .remove: set(write.key, nil)
    case .compareAndSet:
      guard ModelEntry.value(old) == write.expected else { return (false, size(old)) }
      set(write.key, write.entry)
    case .append: set(write.key, (old ?? ModelEntry.make([])) + (ModelEntry.value(write.entry) ?? []))
    }
    return (true, size(state[write.key]))
  }
}
