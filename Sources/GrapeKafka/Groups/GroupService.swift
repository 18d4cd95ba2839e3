internal import GrapeLog
internal import Synchronization

/// Keeps this node's memberships in consumer groups, on a thread of its own, so that neither commits nor reads nor
/// handlers delay what the cluster expects of a member.
///
/// One consumer per group takes part on the cluster; what it is given is shared among the members that this node has in
/// the group. The thread sleeps until librdkafka or somebody has something for it, or until time is over for something;
/// and it wakes now and then because librdkafka takes a member for dead that does not ask for events.
///
/// `@unchecked Sendable`: everything but the inbox, `left` and `ownership` is used by that thread alone.
final class GroupService: @unchecked Sendable {
  enum Request: Sendable {
    case join(UInt64, group: String, topics: [String], onChange: @Sendable (GroupChange) -> Void)
    case leave(UInt64, group: String)
    case finished(UInt64, number: UInt64, group: String)
    /// Something became known of a topic.
    case topic(String)
    case stop(@Sendable () -> Void)
  }

  private struct Inbox {
    var requests: [Request] = []
    var lastMember: UInt64 = 0
    /// Groups of members that have not left.
    var members: [UInt64: String] = [:]
    var closed = false
  }

  private let inbox = Mutex(Inbox())
  let ownership: GroupOwnership
  let wakeup = Wakeup()
  let configuration: KafkaConfiguration
  let directory: TopicDirectory
  let queries: PartitionQueries
  let meters: KafkaMeters

  var groups: [String: NodeGroup] = [:]
  var timers: [RevocationTimer] = []
  var leaving: [LeavingConsumer] = []
  private var last: (@Sendable () -> Void)?

  let memory: OffsetMemory
  private let answers: CommitAnswers
  private let view: ClusterView

  init(
    _ configuration: KafkaConfiguration, _ directory: TopicDirectory, _ queries: PartitionQueries,
    _ ownership: GroupOwnership, _ meters: KafkaMeters, _ memory: OffsetMemory, _ answers: CommitAnswers,
    _ observer: RDKafkaClient
  ) {
    self.configuration = configuration
    self.directory = directory
    self.queries = queries
    self.ownership = ownership
    self.meters = meters
    self.memory = memory
    self.answers = answers
    view = ClusterView(observer, wakeup, meters)
  }

  func start() { BackgroundThread.start("kafka-groups") { self.run() } }

  // MARK: from any thread

  func join(
    group: String, topics: [String], onChange: @escaping @Sendable (GroupChange) -> Void
  ) -> GroupMembership {
    let id = inbox.withLock { inbox -> UInt64 in
      inbox.lastMember += 1
      let id = inbox.lastMember
      if inbox.closed { return id }
      inbox.members[id] = group
      ownership.join(group, topics)
      inbox.requests.append(.join(id, group: group, topics: topics, onChange: onChange))
      return id
    }
    wakeup.signal()
    return GroupMembership(id: id)
  }

  func leave(_ membership: GroupMembership) {
    inbox.withLock { inbox in
      guard let group = inbox.members.removeValue(forKey: membership.id), !inbox.closed else { return }
      inbox.requests.append(.leave(membership.id, group: group))
    }
    wakeup.signal()
  }

  /// True until the member is told nothing more.
  func isMember(_ id: UInt64) -> Bool { inbox.withLock { $0.members[id] != nil } }

  /// Hands a request over. False after `stop`.
  @discardableResult
  func ask(_ request: Request) -> Bool {
    let isOpen = inbox.withLock { inbox in
      if inbox.closed { return false }
      inbox.requests.append(request)
      if case .stop = request { inbox.closed = true }
      return true
    }
    if isOpen { wakeup.signal() }
    return isOpen
  }

  /// Leaves all groups, then calls `last` on the thread. Only the first call counts.
  func stop(last: @escaping @Sendable () -> Void) { ask(.stop(last)) }

  // MARK: the thread

  /// How long leaving a group may take, nanoseconds.
  static let leaveTime: Int64 = 5_000_000_000
  /// How long to wait before a consumer is made anew, nanoseconds.
  static let renewalTime: Int64 = 10_000_000_000

  private func run() {
    while true {
      let requests = inbox.withLock { inbox in
        defer { inbox.requests = [] }
        return inbox.requests
      }
      for request in requests { handle(request) }
      view.serve()
      serveEvents()
      serveTimers()
      if let last, groups.isEmpty, leaving.isEmpty {
        view.end()
        last()
        self.last = nil
        return
      }
      if requests.isEmpty { wakeup.wait(until: nextTime) }
    }
  }

  /// When there is something to do though nobody asks.
  private var nextTime: Int64? {
    var times = timers.map(\.deadline) + leaving.map(\.deadline) + groups.values.compactMap(\.retryAt)
    times += groups.values.compactMap(\.revocationDeadline)
    if groups.values.contains(where: { $0.consumer != nil }) {
      times.append(MonotonicClock.after(milliseconds: configuration.pollInterval))
    }
    // That a consumer is closed is no event.
    if !leaving.isEmpty { times.append(MonotonicClock.after(milliseconds: 20)) }
    return times.min()
  }

  private func handle(_ request: Request) {
    switch request {
    case .join(let id, let name, let topics, let onChange):
      let group = groups[name] ?? NodeGroup(name)
      groups[name] = group
      group.members.join(id, topics: Set(topics))
      group.listeners[id] = onChange
      subscribe(group)
      tell(group)
    case .leave(let id, let name):
      guard let group = groups[name] else { return }
      leave(id, group)
    case .finished(let id, let number, let name):
      timers.removeAll { $0.member == id && $0.number == number }
      guard let group = groups[name] else { return }
      answers.hurry(name, false)
      ownership.remove(group.members.finish(id, number), from: name)
      settle(group)
    case .topic(let name): refresh(directory.clusterName(name))
    case .stop(let last):
      self.last = last
      for group in Array(groups.values) {
        for id in Array(group.listeners.keys) { leave(id, group) }
      }
    }
  }

  private func leave(_ id: UInt64, _ group: NodeGroup) {
    timers.removeAll { $0.member == id && $0.group == group.name }
    group.listeners[id] = nil
    let partitions = group.members.leave(id)
    let isLast = ownership.leave(group.name, partitions)
    if isLast || group.members.isEmpty {
      groups[group.name] = nil
      // A newcomer in the same group may be on its way already: it makes a consumer of its own.
      if let consumer = group.consumer { dismiss(consumer, of: group) }
      group.consumer = nil
    } else {
      subscribe(group)
      settle(group)
    }
  }

  /// A topic's existence is learnt of by and by; asking for all of them makes the client look at once.
  private func refresh(_ topic: String) {
    for group in groups.values where group.subscription.contains(topic) {
      guard let client = group.consumer?.client else { continue }
      _ = queries.lane.add { client.refreshTopics(timeout: 2_000) }
    }
  }

  /// Tells the members what is to be told, and gives back what nobody has any more.
  func settle(_ group: NodeGroup) {
    tell(group)
    if group.revocationDeadline != nil && group.members.isReleased {
      release(group)
      tell(group)
    }
  }

  func tell(_ group: NodeGroup) {
    for telling in group.members.tell() {
      let partitions = telling.assigned + telling.lost
      if !partitions.isEmpty { memory.forget(group.name, partitions, joined: ownership.topics(of: group.name)) }
      if !telling.lost.isEmpty { ownership.remove(telling.lost, from: group.name) }
      if !telling.assigned.isEmpty { ownership.add(telling.assigned, to: group.name) }
      meters.count(telling)
      if !telling.assigned.isEmpty { answers.hurry(group.name, false) }
      if !telling.revoked.isEmpty {
        answers.hurry(group.name, true)
        timers.append(
          RevocationTimer(
            group: group.name, member: telling.member, number: telling.number,
            deadline: MonotonicClock.after(milliseconds: configuration.revocationTimeout)))
      }
      guard isMember(telling.member) else { continue }
      let name = group.name
      group.listeners[telling.member]?(
        GroupChange(assigned: telling.assigned, revoked: telling.revoked, lost: telling.lost) { [weak self] in
          if !telling.revoked.isEmpty {
            self?.ask(.finished(telling.member, number: telling.number, group: name))
          }
        })
    }
  }

  private func serveTimers() {
    let now = MonotonicClock.now
    let due = timers.filter { $0.deadline <= now }
    timers.removeAll { $0.deadline <= now }
    for timer in due {
      guard let group = groups[timer.group] else { continue }
      note(3, "a member of group \(timer.group) has not let go of its partitions in time")
      group.members.expire(timer.member, timer.number)
      settle(group)
    }
    for group in Array(groups.values) {
      if let deadline = group.revocationDeadline, deadline <= now {
        group.members.giveUpLeaving()
        settle(group)
      }
      if let retryAt = group.retryAt, retryAt <= now {
        group.retryAt = nil
        subscribe(group)
      }
    }
  }

  func note(_ level: Int, _ message: String) {
    configuration.log?(KafkaLogLine(level: level, facility: "GROUP", message: message))
  }
}
