internal import GrapeLog
internal import Synchronization

/// Commits that the cluster has taken and that are not answered, because readers may not see all of them: brokers acknowledge a transaction before the
/// markers that make it visible are written everywhere, and while another's transaction is open in a partition nothing behind it is visible. Pure.
///
/// What appended to the same partition, or committed offsets of a group in the same partition, is answered in the order in which it was committed.
struct UnseenCommits {
  struct Place: Hashable {
    var partition: TopicPartition
    /// Whose offsets; nil: records.
    var group: String?
  }

  struct Commit {
    /// All that it wrote to.
    var touched: Set<Place>
    /// The last offsets that are to be seen, by partitions' names on the cluster.
    var unseen: [TopicPartition: Int64]
    /// When it is answered all the same, nanoseconds of the monotonic clock.
    var deadline: Int64
    var answer: @Sendable () -> Void
  }

  private var commits: [Commit] = []
  /// Groups whose commits wait for nobody: partitions are being taken from this node, and whoever gets them sees to it by himself that all is seen.
  var leaving: Set<String> = []

  var isEmpty: Bool { commits.isEmpty }
  var count: Int { commits.count }
  /// Where readers must come to see more.
  var partitions: Set<TopicPartition> { commits.reduce(into: []) { $0.formUnion($1.unseen.keys) } }

  mutating func add(_ commit: Commit) { commits.append(commit) }

  /// Readers see what is below these offsets.
  mutating func seen(_ ends: [TopicPartition: Int64]) {
    for place in commits.indices where !commits[place].unseen.isEmpty {
      commits[place].unseen = commits[place].unseen.filter { partition, last in
        ends[partition].map { $0 <= last } ?? true
      }
    }
  }

  /// Takes out what can be answered, in its order; `late`: how many of these were not seen in time.
  ///
  /// - Parameter end: nothing waits for longer than until then.
  mutating func takeAnswers(now: Int64, end: Int64 = .max) -> (answers: [@Sendable () -> Void], late: Int) {
    var answers: [@Sendable () -> Void] = []
    var late = 0
    var blocked: Set<Place> = []
    commits.removeAll { commit in
      let isLate = min(commit.deadline, end) <= now
      let isLeaving = !leaving.isEmpty && commit.touched.contains { $0.group.map(leaving.contains) ?? false }
      guard commit.unseen.isEmpty || isLate || isLeaving, commit.touched.isDisjoint(with: blocked) else {
        blocked.formUnion(commit.touched)
        return false
      }
      if isLate, !commit.unseen.isEmpty { late += 1 }
      answers.append(commit.answer)
      return true
    }
    return (answers, late)
  }
}

/// Answers commits when readers see them, on a thread of its own, so that others can be made meanwhile.
final class CommitAnswers: Sendable {
  private struct State {
    var unseen = UnseenCommits()
    /// The thread calls answers that it has taken out.
    var isAnswering = false
    /// What to call in the end, and until when to wait before that.
    var last: (call: @Sendable () -> Void, end: Int64)?
  }

  private let state = Mutex(State())
  private let wakeup = Wakeup()
  private let room = Wakeup()
  private let queries: PartitionQueries
  private let limit: Int
  private let log: (@Sendable (KafkaLogLine) -> Void)?
  private static let firstPause = 1
  private static let longestPause = 100

  /// - Parameter limit: so many wait at most; then whoever has more waits.
  init(_ queries: PartitionQueries, limit: Int, log: (@Sendable (KafkaLogLine) -> Void)?) {
    self.queries = queries
    self.limit = limit
    self.log = log
  }

  func start() { BackgroundThread.start("kafka-answer") { self.run() } }

  /// Answers at once if nothing is to be waited for, else when it can be. `mayWait`: blocks while too many wait.
  func add(_ commit: UnseenCommits.Commit, mayWait: Bool = true) {
    let isFirst = state.withLock { state in
      let isFirst = commit.unseen.isEmpty && state.unseen.isEmpty && !state.isAnswering
      if !isFirst { state.unseen.add(commit) }
      return isFirst
    }
    if isFirst { return commit.answer() }
    wakeup.signal()
    while mayWait, state.withLock({ $0.unseen.count > limit }) { room.wait() }
  }

  /// From now on, or no longer, commits with offsets of this group are answered as soon as they are made: its partitions are to go, which takes no longer
  /// than it must.
  func hurry(_ group: String, _ isLeaving: Bool) {
    state.withLock { state in
      if isLeaving { state.unseen.leaving.insert(group) } else { state.unseen.leaving.remove(group) }
    }
    wakeup.signal()
  }

  /// When all are answered, which takes two seconds at most, calls `last` on the thread, which ends. Nothing may be added any more.
  func stop(last: @escaping @Sendable () -> Void) {
    state.withLock { $0.last = (last, MonotonicClock.now + Committer.closeTime) }
    wakeup.signal()
  }

  private func run() {
    var pause = Self.firstPause
    while true {
      let partitions = state.withLock { $0.unseen.partitions }
      let ends = partitions.isEmpty ? [:] : queries.ends(of: partitions)
      let (answers, late, isEmpty, last) = state.withLock { state in
        state.unseen.seen(ends)
        let (answers, late) = state.unseen.takeAnswers(now: MonotonicClock.now, end: state.last?.end ?? .max)
        state.isAnswering = !answers.isEmpty
        return (answers, late, state.unseen.isEmpty, state.last?.call)
      }
      if late > 0 {
        // They are committed all the same; only readers may be late.
        log?(
          KafkaLogLine(level: 4, facility: "COMMIT", message: "\(late) commits are made, but were not visible in time"))
      }
      for answer in answers { answer() }
      if !answers.isEmpty {
        state.withLock { $0.isAnswering = false }
        room.signal()
        pause = Self.firstPause
        continue
      }
      if isEmpty {
        if let last { return last() }
        wakeup.wait()
        pause = Self.firstPause
      } else {
        wakeup.wait(until: MonotonicClock.after(milliseconds: pause))
        pause = min(2 * pause, Self.longestPause)
      }
    }
  }
}
