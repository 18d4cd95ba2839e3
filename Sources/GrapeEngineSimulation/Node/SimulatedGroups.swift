import GrapeCommitLogSimulation
import GrapeLog

/// Consumer groups of a log that other nodes work on, too, as one node sees them: partitions are taken from it, in order or without warning, and
/// given back. Commits fail singly: those for partitions that are gone, some without a reason, and all that build on one that failed. Of others nobody
/// learns whether they were made.
final class SimulatedGroups: @unchecked Sendable {
  // A simulation lives on one thread.
  private struct Member {
    var group: String
    var topic: String
    var onChange: @Sendable (GroupChange) -> Void
    var tenures: [Tenure]
  }

  private enum Tenure {
    case here
    /// Taken in order, and not finished with.
    case finishing
    case away
  }

  private enum Doom: CaseIterable {
    case fails
    /// It is made, or not, and nobody learns which.
    case made, lost
  }

  private struct Lane: Hashable {
    var group: String
    var partition: Int32
  }

  private struct Progress: Hashable {
    var group: String
    var place: TopicPartition
  }

  private let partitions: Int
  private var members: [Member] = []
  /// What was taken by the log last.
  private var told: [Progress: Int64] = [:]
  /// What becomes of their next commit.
  private var doomed: [Lane: Doom] = [:]
  /// Where it is not known what was committed last: nothing goes behind that until the offsets are read.
  private var doubtful: Set<Progress> = []
  /// Commits that are not answered.
  private var underWay: [Lane: Int] = [:]
  /// Nothing is taken any more.
  private var isCalm = false
  private(set) var taken = 0
  private(set) var refused = 0

  init(partitions: Int) { self.partitions = partitions }

  func join(_ group: String, _ topics: [String], _ onChange: @escaping @Sendable (GroupChange) -> Void) {
    members.append(
      Member(
        group: group, topic: topics[0], onChange: onChange, tenures: .init(repeating: .away, count: partitions)))
    for partition in 0..<partitions { give(members.count - 1, partition) }
  }

  /// Something happens to a partition.
  func stir(_ random: inout SimulationRandom, note: (String) -> Void) {
    guard !members.isEmpty, !isCalm else { return }
    let (member, partition) = (random.below(members.count), random.below(partitions))
    let what = "\(members[member].topic)/\(partition)"
    switch members[member].tenures[partition] {
    case .away:
      note("  \(what) comes back")
      give(member, partition)
    case .finishing:
      note("  \(what) is lost while it was to be finished")
      lose(member, partition)
    case .here:
      switch random.below(3) {
      case 0:
        note("  \(what) is taken")
        taken += 1
        members[member].tenures[partition] = .finishing
        members[member].onChange(
          GroupChange(revoked: [place(member, partition)]) { [weak self] in self?.finished(member, partition) })
      case 1:
        note("  \(what) is lost")
        taken += 1
        lose(member, partition)
      default:
        let doom = random.pick(Doom.allCases)
        note("  the next commit of \(what): \(doom)")
        doomed[Lane(group: members[member].group, partition: Int32(partition))] = doom
      }
    }
  }

  /// Nothing more is taken, and everything comes back.
  func calmDown() {
    isCalm = true
    doomed = [:]
    for member in members.indices {
      for partition in 0..<partitions where members[member].tenures[partition] == .away { give(member, partition) }
    }
  }

  /// The process is gone: breaks the circle of references between members and log.
  func discard() { members = [] }

  private func place(_ member: Int, _ partition: Int) -> TopicPartition {
    TopicPartition(members[member].topic, Int32(partition))
  }

  private func give(_ member: Int, _ partition: Int) {
    members[member].tenures[partition] = .here
    told = told.filter { $0.key.group != members[member].group || $0.key.place.partition != Int32(partition) }
    members[member].onChange(GroupChange(assigned: [place(member, partition)]))
  }

  private func lose(_ member: Int, _ partition: Int) {
    members[member].tenures[partition] = .away
    members[member].onChange(GroupChange(lost: [place(member, partition)]))
  }

  private func finished(_ member: Int, _ partition: Int) {
    guard members.indices.contains(member), members[member].tenures[partition] == .finishing else { return }
    members[member].tenures[partition] = .away
    if isCalm { give(member, partition) }
  }

  // MARK: Commits

  /// Why the log refuses a transaction; nil: it takes it.
  func refusal(of transaction: Transaction) -> LogError? {
    for commit in transaction.offsets {
      guard let member = members.first(where: { $0.group == commit.group }) else { continue }
      let error: LogError?
      if member.tenures[Int(commit.partition.partition)] == .away {
        error = LogError(.partitionLost, "\(commit.partition) is another node's")
      } else if let doom = doomed[lane(of: commit)], doom != .made {
        doomed[lane(of: commit)] = nil
        error = LogError(doom == .lost ? .unknown : .busy, "\(commit.partition): it just fails")
      } else if commit.previous != nil, doubtful.contains(Progress(group: commit.group, place: commit.partition)) {
        error = LogError(.outOfSequence, "\(commit.partition): it is not known what was committed last")
      } else if let previous = commit.previous,
        let last = told[Progress(group: commit.group, place: commit.partition)], last != previous
      {
        error = LogError(.outOfSequence, "\(commit.partition) stands at \(last), not at \(previous)")
      } else {
        error = nil
      }
      if let error {
        refused += 1
        return error
      }
    }
    for commit in transaction.offsets {
      told[Progress(group: commit.group, place: commit.partition)] = commit.committed.offset
      underWay[lane(of: commit), default: 0] += 1
    }
    return nil
  }

  private func lane(of commit: Transaction.OffsetCommit) -> Lane {
    Lane(group: commit.group, partition: commit.partition.partition)
  }

  /// Whether nobody learns that the log takes a transaction. To be asked once.
  func forgets(_ transaction: Transaction) -> Bool {
    var isForgotten = false
    for commit in transaction.offsets where doomed[lane(of: commit)] == .made {
      doomed[lane(of: commit)] = nil
      isForgotten = true
    }
    if isForgotten {
      refused += 1
      for commit in transaction.offsets { doubtful.insert(Progress(group: commit.group, place: commit.partition)) }
    }
    return isForgotten
  }

  /// A transaction that was not refused is answered.
  func answered(_ transaction: Transaction) {
    for commit in transaction.offsets { underWay[lane(of: commit), default: 1] -= 1 }
  }

  /// The offsets of a group are read.
  func read(_ group: String) {
    doubtful = doubtful.filter {
      $0.group != group || underWay[Lane(group: group, partition: $0.place.partition), default: 0] > 0
    }
  }
}
