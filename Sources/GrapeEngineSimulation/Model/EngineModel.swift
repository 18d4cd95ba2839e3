import GrapeCore
import GrapeEngine
import GrapeLog
import GrapeWire

/// What the applications of a node must do, one commit after the other: holds every transaction that engines hand to the log against what
/// events, writes and expiry must come to, in the order of the log.
final class EngineModel: @unchecked Sendable {
  // A simulation lives on one thread.
  /// A transaction, and what it led to.
  struct Step {
    var state: ModelState
    var durability: Durability
    /// Base offsets that it must get.
    var bases: [Int64]
    var isAcknowledged = false
    /// Attempts at the head of a partition, and nothing else.
    var attempts: ModelRun.Place?
  }

  /// The state of a partition as of the end of a commit that changed it.
  struct Version {
    var changelogEnd: Int
    var state: [[UInt8]: [UInt8]]
    /// Of the result that made it; nil: the node's own change.
    var processed: Int?
  }

  let apps: [String]
  let partitions: Int
  let library: ProgramLibrary
  let replyTopic: String
  /// What stands on the disk for sure, and what came after it.
  private(set) var base: ModelState
  private(set) var steps: [Step] = []
  /// Steps that are behind `base` for good.
  private(set) var settled = 0
  private(set) var versions: [[[Version]]]
  /// Of each application as it is deployed.
  private(set) var profiles: [Profile]
  /// Applications of which another version was deployed: they may have events that were tried by another profile.
  private(set) var renewed: Set<Int> = []
  var wallTime: () -> Int64 = { 0 }
  /// Told of each commit.
  var willTake: ((ModelCommit) -> Void)?
  private var problem: String?
  /// Attempts that were confirmed in this life of the node, by application and partition.
  private(set) var confirmedAttempts: [ModelRun.Place: Int] = [:]
  /// Transactions that were handed to the log.
  private(set) var commits = 0

  init(apps: [String], partitions: Int, library: ProgramLibrary, replyTopic: String, profiles: [Profile]) {
    self.apps = apps
    self.partitions = partitions
    self.library = library
    self.replyTopic = replyTopic
    self.profiles = profiles
    base = ModelState(apps: apps.count, partitions: partitions)
    let first = Version(changelogEnd: 0, state: [:], processed: nil)
    versions = .init(repeating: .init(repeating: [first], count: partitions), count: apps.count)
  }

  /// Another version of an application is in place.
  func deployed(_ app: Int, _ profile: Profile) {
    profiles[app] = profile
    renewed.insert(app)
  }

  /// After all that was handed to the log.
  var latest: ModelState { steps.last?.state ?? base }

  func report(_ text: @autoclosure () -> String) { if problem == nil { problem = text() } }

  func takeProblem() -> String? {
    defer { problem = nil }
    return problem
  }

  // MARK: Transactions

  /// An engine, or somebody from outside, hands a transaction to the log. Its number.
  func submitted(_ transaction: Transaction) -> Int {
    commits += 1
    var state = latest
    var step = Step(state: state, durability: transaction.durability, bases: [])
    do throws(Mismatch) {
      let commit = try ModelCommit(transaction, apps: apps, replyTopic: replyTopic)
      willTake?(commit)
      step.bases = commit.bases(in: state)
      let before = state
      try apply(commit, to: &state)
      note(commit, before, state)
      if commit.isAttemptAlone, commit.durability == .disk, let lane = commit.lane,
        commit.processed == before.partitions[lane.app][lane.partition].processed
      {
        step.attempts = lane
      }
    } catch {
      report(error.message)
    }
    step.state = state
    steps.append(step)
    return settled + steps.count - 1
  }

  private func note(_ commit: ModelCommit, _ before: ModelState, _ after: ModelState) {
    guard let place = commit.changelog?.place else { return }
    let partition = after.partitions[place.app][place.partition]
    versions[place.app][place.partition].append(
      Version(
        changelogEnd: partition.changelogEnd, state: partition.state,
        processed: commit.lane == nil ? nil : partition.processed))
  }

  /// The log answered.
  func completed(_ number: Int, _ result: Result<CommitReceipt, LogError>) {
    guard number >= settled else { return }
    let index = number - settled
    guard steps.indices.contains(index) else { return report("the log answered commit \(number), which is unknown") }
    guard case .success(let receipt) = result else { return }
    if receipt.baseOffsets != steps[index].bases {
      report("commit \(number) got offsets \(receipt.baseOffsets), expected \(steps[index].bases)")
    }
    steps[index].isAcknowledged = true
    if let place = steps[index].attempts { confirmedAttempts[place, default: 0] += 1 }
    if receipt.durability == .disk { settle(index) }
  }

  private func settle(_ index: Int) {
    base = steps[index].state
    steps.removeFirst(index + 1)
    settled += index + 1
  }

  // MARK: Restarts

  /// What the log shows after a start.
  struct Found {
    /// Ends of the topics.
    var ends: [TopicPartition: Int64]
    /// By application.
    var offsets: [[TopicPartition: CommittedOffset]]
  }

  /// The node starts anew and finds the log as it is: as it was after one of the last commits. Returns how many were lost.
  func restarted(_ found: Found, powerLost: Bool) throws(Mismatch) -> Int {
    // What was promised to be there is there.
    let promised = powerLost ? Durability.disk : .os
    let needed = (steps.lastIndex { $0.isAcknowledged && $0.durability >= promised } ?? -1) + 1
    var count = steps.count
    while count > needed, !matches(count == 0 ? base : steps[count - 1].state, found) { count -= 1 }
    let survived = count == 0 ? base : steps[count - 1].state
    guard matches(survived, found) else {
      throw Mismatch(
        "the log after the restart is none of the \(steps.count - needed + 1) that it may be: \(difference(survived, found))"
      )
    }
    let lost = steps.count - count
    base = survived
    steps = []
    settled += count + lost
    confirmedAttempts = [:]
    for app in apps.indices {
      for partition in 0..<partitions {
        let end = base.partitions[app][partition].changelogEnd
        versions[app][partition].removeAll { $0.changelogEnd > end }
      }
    }
    return lost
  }

  private func matches(_ state: ModelState, _ found: Found) -> Bool { difference(state, found).isEmpty }

  private func difference(_ state: ModelState, _ found: Found) -> String {
    var lines: [String] = []
    func compare(_ topic: String, _ partition: Int, _ expected: Int) {
      let end = found.ends[TopicPartition(topic, Int32(partition))] ?? -1
      if end != Int64(expected) { lines.append("\(topic)/\(partition) ends at \(end), not \(expected)") }
    }
    compare(replyTopic, 0, state.replies.count)
    for (app, name) in apps.enumerated() {
      compare("\(name).dead", 0, state.deadLetters[app].count)
      for (number, partition) in state.partitions[app].enumerated() {
        compare("\(name).events", number, partition.events.count)
        compare("\(name).writes", number, partition.writes.count)
        compare("\(name).state", number, partition.changelogEnd)
        let events = found.offsets[app][TopicPartition("\(name).events", Int32(number))]
        if Int(events?.offset ?? 0) != partition.processed || AttemptNotes(events?.metadata ?? []) != partition.notes {
          lines.append("\(name)/\(number) stands at \(events?.offset ?? 0), not \(partition.processed)")
        }
        let writes = found.offsets[app][TopicPartition("\(name).writes", Int32(number))]
        if Int(writes?.offset ?? 0) != partition.writesDone {
          lines.append("\(name)/\(number) has done writes to \(writes?.offset ?? 0), not \(partition.writesDone)")
        }
      }
    }
    return lines.joined(separator: "; ")
  }
}

/// Something is not as the model has it.
struct Mismatch: Error {
  let message: String
  init(_ message: String) { self.message = message }
}
