import GrapeLog

/// The states that a log with retention and compaction goes through, one per operation in the order in which they were
/// handed over: which of them are there for good, which readers see, and which may come back after a death.
final class CleaningModel {
  /// An operation that is not on the disk for sure yet.
  private struct Step {
    var description: String
    var durability: Durability
    /// What the log must answer.
    var baseOffsets: [Int64]
    /// The state behind it.
    var state: CleaningHistory
    /// Reached, once it is answered.
    var reached: Durability?
  }

  private let tombstoneMilliseconds: Int64
  private var durable = CleaningHistory()
  private var steps: [Step] = []
  /// Of `steps`: so many are answered.
  private var answered = 0
  /// So many of those behind were answered with a failure of the log: whether they are there the next start will tell.
  private var unknown = 0
  /// First offsets that readers saw: what was given up never comes back.
  private var starts: [Int: [Int64]] = [:]
  private(set) var operations = 0
  /// Of the operations that were uncertain at the last restart so many were not there.
  private(set) var lost = 0

  init(tombstoneMilliseconds: Int64) { self.tombstoneMilliseconds = tombstoneMilliseconds }

  /// What readers see.
  var visible: CleaningHistory { state(answered) }
  /// What there will be when everything is answered.
  var latest: CleaningHistory { steps.last?.state ?? durable }
  /// Operations that wait for an answer.
  var waiting: Int { steps.count - answered - unknown }

  /// The log took an operation, which makes `after` of the latest state; returns its number for `answer`.
  func accepted(_ description: String, _ durability: Durability, baseOffsets: [Int64], _ after: CleaningHistory) -> Int
  {
    operations += 1
    steps.append(
      Step(description: description, durability: durability, baseOffsets: baseOffsets, state: after, reached: nil))
    return operations
  }

  /// The log answered an operation; returns what is wrong with that. `failing`: the log may fail. `looking`: its cleaner is in
  /// the middle of something.
  func answered(
    _ number: Int, _ result: Result<CommitReceipt, LogError>, failing: Bool, looking: Bool, now: Int64
  ) -> String? {
    let place = steps.count - (operations - number) - 1
    guard place == answered + unknown else { return "operation \(number) was answered out of turn" }
    switch result {
    case .failure(let error):
      guard failing, error.code == .failed else { return "\(steps[place].description): \(error)" }
      unknown += 1
      return nil
    case .success(let receipt):
      if unknown > 0 { return "\(steps[place].description): acknowledged by a log that had failed" }
      if receipt.durability < steps[place].durability || receipt.baseOffsets != steps[place].baseOffsets {
        return "\(steps[place].description): \(receipt), expected \(steps[place].baseOffsets)"
      }
      steps[place].reached = receipt.durability
      answered += 1
      if looking { look(now: now) }
      if receipt.durability == .disk { settle(answered) }
      return nil
    }
  }

  private func settle(_ count: Int) {
    guard count > 0 else { return }
    durable = steps[count - 1].state
    steps.removeFirst(count)
    answered = 0
  }

  /// The log's cleaner may look at what readers see.
  func look(now: Int64) {
    if unknown > 0 { return }
    release(answered, now)
    inherit(from: answered)
  }

  private func state(_ count: Int) -> CleaningHistory { count == 0 ? durable : steps[count - 1].state }

  private func release(_ count: Int, _ now: Int64) {
    if count == 0 {
      durable.release(now: now, tombstoneMilliseconds: tombstoneMilliseconds)
    } else {
      steps[count - 1].state.release(now: now, tombstoneMilliseconds: tombstoneMilliseconds)
    }
  }

  private func inherit(from count: Int) {
    for place in count..<steps.count { steps[place].state.inherit(from: state(place)) }
  }

  /// What is wrong with what readers find; nil if nothing is.
  func difference(from found: FoundCleaned) -> String? {
    if let wrong = visible.difference(from: found) { return wrong }
    return rising(visible, found)
  }

  private func rising(_ state: CleaningHistory, _ found: FoundCleaned) -> String? {
    for (name, topic) in state.topics {
      for number in topic.partitions.indices {
        let start = found.partitions[TopicPartition(name, Int32(number))]!.start
        let none = [Int64](repeating: 0, count: topic.partitions.count)
        let before = starts[topic.incarnation, default: none][number]
        if start < before { return "\(name)/\(number) starts at \(start), after it had started at \(before)" }
        starts[topic.incarnation, default: none][number] = start
      }
    }
    return nil
  }

  /// Compares what a new start shows with what must and what may be there, and goes on from there.
  func restarted(after end: LogModel.End, found: FoundCleaned, now: Int64) -> String? {
    // What was decided by a state that is lost must be right by what is left of it.
    for count in 0...steps.count { release(count, now) }
    inherit(from: 0)
    let floor: Int
    switch end {
    case .closed: floor = steps.count
    case .killed: floor = (steps.lastIndex { $0.reached.map { $0 >= .os } ?? false } ?? -1) + 1
    case .powerLost: floor = 0
    }
    var nearest: String?
    for count in floor...steps.count {
      let state = state(count)
      if let wrong = state.difference(from: found) {
        // Of the states with the right ends and offsets there is one as a rule: what is wrong with it says most.
        if nearest == nil || (nearest!.contains("expected") && !wrong.contains("expected")) { nearest = wrong }
        continue
      }
      if let wrong = rising(state, found) { return wrong }
      lost = steps.count - count
      durable = state
      steps = []
      answered = 0
      unknown = 0
      return nil
    }
    return "after \(end): \(nearest!)"
  }
}
