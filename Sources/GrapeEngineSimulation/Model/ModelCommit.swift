import GrapeCore
import GrapeLog
import GrapeWire

/// A transaction, taken apart.
struct ModelCommit: CustomStringConvertible {
  /// Whose events it has dealt with.
  var lane: ModelRun.Place?
  var processed = 0
  var notes = AttemptNotes()
  /// Whose writes from outside it has dealt with.
  var writesLane: ModelRun.Place?
  var writesDone = 0
  var changelog: (place: ModelRun.Place, records: [LoggedRecord])?
  var events: [ModelRun.Place: [LoggedRecord]] = [:]
  var writes: [ModelRun.Place: [LoggedRecord]] = [:]
  var replies: [LoggedRecord] = []
  /// By application.
  var deadLetters: [Int: [LoggedRecord]] = [:]
  var durability: Durability
  private var order: [(topic: Topic, place: ModelRun.Place, count: Int)] = []

  private enum Topic { case events, writes, state, dead, replies }

  init(_ transaction: Transaction, apps: [String], replyTopic: String) throws(Mismatch) {
    durability = transaction.durability
    for append in transaction.appends {
      var records: [LoggedRecord] = []
      do throws(WireError) {
        let all = try LoggedRecord.all(in: append.batch)
        records = all.map(\.record)
        guard append.recordCount == Int32(records.count), all.enumerated().allSatisfy({ $0 == $1.delta }) else {
          throw WireError(.malformed, "its record count or offset deltas are wrong")
        }
      } catch {
        throw Mismatch("a batch for \(append.partition) is malformed: \(error.message)")
      }
      try take(records, for: append.partition, apps, replyTopic)
    }
    for offset in transaction.offsets { try take(offset, apps) }
  }

  private mutating func take(
    _ records: [LoggedRecord], for target: TopicPartition, _ apps: [String], _ replyTopic: String
  ) throws(Mismatch) {
    let partition = Int(target.partition)
    if target.topic == replyTopic {
      replies += records
      return order.append((.replies, .init(app: 0, partition: 0), records.count))
    }
    let parts = target.topic.split(separator: ".").map(String.init)
    guard parts.count == 2, let app = apps.firstIndex(of: parts[0]) else {
      throw Mismatch("something goes to topic \(target.topic)")
    }
    let place = ModelRun.Place(app: app, partition: partition)
    switch parts[1] {
    case "events":
      events[place, default: []] += records
      order.append((.events, place, records.count))
    case "writes":
      writes[place, default: []] += records
      order.append((.writes, place, records.count))
    case "dead":
      deadLetters[app, default: []] += records
      order.append((.dead, place, records.count))
    case "state":
      if let known = changelog, known.place != place {
        throw Mismatch("one commit changes the state of two partitions")
      }
      changelog = (place, (changelog?.records ?? []) + records)
      order.append((.state, place, records.count))
    default: throw Mismatch("something goes to topic \(target.topic)")
    }
  }

  private mutating func take(_ offset: Transaction.OffsetCommit, _ apps: [String]) throws(Mismatch) {
    let parts = offset.partition.topic.split(separator: ".").map(String.init)
    guard parts.count == 2, let app = apps.firstIndex(of: parts[0]), offset.group == parts[0] else {
      throw Mismatch("group \(offset.group) commits an offset of \(offset.partition)")
    }
    let place = ModelRun.Place(app: app, partition: Int(offset.partition.partition))
    if parts[1] == "events" {
      guard let notes = AttemptNotes(offset.committed.metadata) else {
        throw Mismatch("the notes beside the offset of \(offset.partition) cannot be read")
      }
      self.notes = notes
      if lane != nil { isClaim = true }
      lane = place
      processed = Int(offset.committed.offset)
    } else {
      if writesLane != nil { isClaim = true }
      writesLane = place
      writesDone = Int(offset.committed.offset)
    }
    if lane != nil, writesLane != nil { isClaim = true }
  }

  var description: String {
    var parts: [String] = []
    if isClaim { return "first offsets" }
    if let lane {
      parts.append("app \(lane.app)/\(lane.partition) to \(processed)")
      if notes.failures > 0 || notes.suspectEnd > processed { parts.append("\(notes)") }
    }
    if let writesLane { parts.append("writes of app \(writesLane.app)/\(writesLane.partition) to \(writesDone)") }
    for (topic, place, count) in order { parts.append("\(count) \(topic) \(place.app)/\(place.partition)") }
    if let changelog {
      let keys = changelog.records.map {
        ($0.value == nil ? "-" : "+") + String(decoding: ($0.key ?? []).dropFirst(), as: UTF8.self)
      }
      parts.append("(\(keys.joined(separator: " ")))")
    }
    return parts.joined(separator: ", ") + ", \(durability)"
  }

  /// Several offsets at once: the application's first ones.
  private(set) var isClaim = false

  /// It notes attempts at a partition's head, and nothing else.
  var isAttemptAlone: Bool { lane != nil && !isClaim && order.isEmpty }

  /// The base offsets that its appends must get.
  func bases(in state: ModelState) -> [Int64] {
    var added: [String: Int] = [:]
    return order.map { topic, place, count in
      let partition =
        state.partitions[place.app].indices.contains(place.partition)
        ? state.partitions[place.app][place.partition] : ModelPartition()
      let start: Int
      switch topic {
      case .events: start = partition.events.count
      case .writes: start = partition.writes.count
      case .state: start = partition.changelogEnd
      case .dead: start = state.deadLetters[place.app].count
      case .replies: start = state.replies.count
      }
      let name = "\(topic) \(place)"
      defer { added[name, default: 0] += count }
      return Int64(start + added[name, default: 0])
    }
  }
}
