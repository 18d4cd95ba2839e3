import GrapeLog
import Synchronization
import Testing

@testable import GrapeKafka

@Suite("Commits that wait to be seen")
struct UnseenCommitsTests {
  private let a = TopicPartition("a", 0)
  private let b = TopicPartition("b", 0)
  private let c = TopicPartition("c", 0)

  /// Names of commits, in the order in which they were answered.
  private final class Answered: Sendable {
    let names = Mutex<[String]>([])
  }

  private func commit(
    _ name: String, _ touched: Set<TopicPartition>, offsets: TopicPartition? = nil,
    unseen: [TopicPartition: Int64] = [:], deadline: Int64 = 100,
    _ answered: Answered
  ) -> UnseenCommits.Commit {
    var places = Set(touched.map { UnseenCommits.Place(partition: $0, group: nil) })
    if let offsets { places.insert(UnseenCommits.Place(partition: offsets, group: "g")) }
    return UnseenCommits.Commit(touched: places, unseen: unseen, deadline: deadline) {
      answered.names.withLock { $0.append(name) }
    }
  }

  private func answer(_ commits: inout UnseenCommits, now: Int64 = 0, end: Int64 = .max) -> Int {
    let (answers, late) = commits.takeAnswers(now: now, end: end)
    for answer in answers { answer() }
    return late
  }

  @Test("a commit is answered when all its partitions are seen up to its last offsets")
  func seen() {
    let answered = Answered()
    var commits = UnseenCommits()
    commits.add(commit("1", [a, b], unseen: [a: 5, b: 7], answered))
    commits.seen([a: 6, b: 7])
    #expect(answer(&commits) == 0)
    #expect(answered.names.withLock { $0 } == [])
    #expect(commits.partitions == [b])
    commits.seen([b: 8])
    #expect(answer(&commits) == 0)
    #expect(answered.names.withLock { $0 } == ["1"])
    #expect(commits.isEmpty)
  }

  @Test("what has a partition in common keeps its order, the rest does not wait")
  func order() {
    let answered = Answered()
    var commits = UnseenCommits()
    commits.add(commit("stuck", [a, b], offsets: TopicPartition("c", 1), unseen: [a: 5], answered))
    commits.add(commit("behind", [b, c], answered))
    commits.add(commit("behind that", [c], answered))
    commits.add(commit("beside", [TopicPartition("c", 1)], answered))
    #expect(answer(&commits) == 0)
    #expect(answered.names.withLock { $0 } == ["beside"])
    commits.seen([a: 6])
    _ = answer(&commits)
    #expect(answered.names.withLock { $0 } == ["beside", "stuck", "behind", "behind that"])
  }

  @Test("nothing waits beyond its deadline, or beyond the end")
  func late() {
    for (now, end) in [(Int64(100), Int64.max), (50, 50)] {
      let answered = Answered()
      var commits = UnseenCommits()
      commits.add(commit("late", [a], unseen: [a: 5], deadline: 100, answered))
      commits.add(commit("next", [a], unseen: [a: 6], deadline: 200, answered))
      #expect(answer(&commits, now: 49, end: end) == 0)
      #expect(answer(&commits, now: now, end: end) == (end == .max ? 1 : 2))
      #expect(answered.names.withLock { $0 } == (end == .max ? ["late"] : ["late", "next"]))
    }
  }

  @Test("a group whose partitions are to go does not wait, but for what comes before")
  func leaving() {
    let answered = Answered()
    var commits = UnseenCommits()
    commits.add(commit("first", [b], unseen: [b: 5], answered))
    commits.add(commit("group", [a], offsets: c, unseen: [a: 5], answered))
    commits.add(commit("behind the first", [b], offsets: c, unseen: [b: 6], answered))
    commits.leaving = ["another"]
    _ = answer(&commits)
    #expect(answered.names.withLock { $0 } == [])
    commits.leaving = ["g"]
    _ = answer(&commits)
    #expect(answered.names.withLock { $0 } == ["group"])
    commits.seen([b: 6])
    _ = answer(&commits)
    #expect(answered.names.withLock { $0 } == ["group", "first", "behind the first"])
  }
}
