public import GrapeLog
internal import GrapeWire
internal import Synchronization

/// An event log on Apache Kafka. docs/kafka.md says how the contract of `EventLog` is kept, and where Kafka sets limits
/// to it.
///
/// Threads: one commits, one reads, one asks for offsets, one administers; each blocks in librdkafka or sleeps.
/// Completions are called on these, and sometimes before the call returns.
public final class KafkaEventLog: EventLog {
  let configuration: KafkaConfiguration
  let directory: TopicDirectory
  private let committer: Committer
  private let reader: Reader
  private let queries: PartitionQueries
  private let openTransactions: OpenTransactions
  let admin: KafkaAdmin
  let adminLane: Lane
  private let groups: GroupService
  private let closing = Mutex<Closing>(.open)

  private enum Closing {
    case open
    case closing([@Sendable () -> Void])
    case closed
  }

  /// Connects, and takes over from an older log with the same transactional id. Blocks, at most twice the request
  /// timeout. Errors: `invalidArgument` for the configuration; `busy` if the cluster does not answer; `failed` if it
  /// refuses.
  public convenience init(_ configuration: KafkaConfiguration) throws(LogError) {
    try configuration.check()
    let client = try RDKafkaClient(.observer, configuration, own: Reader.settings + configuration.reportDefaults)
    let directory = TopicDirectory(client, configuration)
    let meters = KafkaMeters()
    let ownership = GroupOwnership()
    let memory = OffsetMemory()
    let queryLane = Lane("kafka-query")
    let adminLane = Lane("kafka-admin")
    do throws(LogError) {
      let queries = PartitionQueries(
        client: client, directory: directory, lane: queryLane, timeout: configuration.requestTimeout)
      _ = try directory.all()
      let committer = try Committer(configuration, directory, queries, ownership, memory, meters)
      self.init(
        configuration, directory, committer,
        try Reader(configuration, directory, queries, meters), queries,
        OpenTransactions(configuration, directory, committed: client),
        KafkaAdmin(client: client, timeout: configuration.requestTimeout), adminLane,
        GroupService(configuration, directory, queries, ownership, meters, memory, committer.answers, client))
    } catch {
      queryLane.stop {}
      adminLane.stop {}
      throw error
    }
  }

  private init(
    _ configuration: KafkaConfiguration, _ directory: TopicDirectory, _ committer: Committer, _ reader: Reader,
    _ queries: PartitionQueries, _ openTransactions: OpenTransactions, _ admin: KafkaAdmin, _ adminLane: Lane,
    _ groups: GroupService
  ) {
    self.configuration = configuration
    self.directory = directory
    self.committer = committer
    self.reader = reader
    self.queries = queries
    self.openTransactions = openTransactions
    self.admin = admin
    self.adminLane = adminLane
    self.groups = groups
    committer.whenWritten = { [reader] in reader.offer($0, $1, at: $2) }
    committer.start()
    reader.start()
    openTransactions.start()
    groups.start()
    directory.onChange { [weak groups, weak reader, weak directory] topic in
      groups?.ask(.topic(topic))
      // Who waits for something to come there would not hear of it from brokers for a while.
      if let reader, directory?.knows(TopicPartition(topic, 0)) == false { reader.ask(.deleted(topic: topic)) }
    }
  }

  deinit {
    // Threads hold what they work with, so that nothing is left behind by a log that nobody closed.
    Self.stop(groups, committer, reader, openTransactions, queries.lane, adminLane) {}
  }

  // MARK: topics

  public func createTopic(
    _ name: String, configuration topic: TopicConfiguration,
    completion: @escaping @Sendable (Result<Void, LogError>) -> Void
  ) {
    adminLane.answer(completion) { [self] () throws(LogError) in
      try topic.check(name: name)
      do throws(LogError) {
        try admin.createTopic(
          directory.clusterName(name), partitions: topic.partitions,
          replicationFactor: configuration.replicationFactor,
          settings: TopicSettings.settings(topic) + configuration.topicSettings.map { ($0.key, $0.value) })
      } catch {
        guard error.code == .topicExists else { throw error }
        let existing = try describe(name)
        guard existing == topic else {
          throw LogError(
            .topicExists, "topic \(name) is there with another configuration: \(existing), asked for \(topic)")
        }
        directory.set(name, partitions: topic.partitions)
        return
      }
      committer.forget(topic: name)
      try settle(name, partitions: topic.partitions)
    }
  }

  public func deleteTopic(_ name: String, completion: @escaping @Sendable (Result<Void, LogError>) -> Void) {
    adminLane.answer(completion) { [self] () throws(LogError) in
      try admin.deleteTopic(directory.clusterName(name))
      try settle(name, partitions: nil)
      try forgetOffsets(of: directory.clusterName(name))
      committer.forget(topic: name)
      reader.ask(.deleted(topic: name))
    }
  }

  /// Returns when the cluster tells that the topic is as it should be. It learns of such things by and by.
  private func settle(_ name: String, partitions: Int32?) throws(LogError) {
    let deadline = MonotonicClock.after(milliseconds: configuration.requestTimeout)
    let doing = "waiting until topic \(name) is \(partitions == nil ? "gone" : "there")"
    try adminLane.retrying(until: deadline, doing) { (left) throws(LogError) -> Void? in
      let found = try directory.refresh(name, timeout: left)
      guard let partitions else { return found == nil ? () : nil }
      return found?.partitions == partitions && found?.isReady == true ? () : nil
    }
  }

  /// Apache Kafka does this by itself, later; not every broker does.
  private func forgetOffsets(of clusterName: String) throws(LogError) {
    for group in try admin.groups() where group.hasPrefix(configuration.namespace) {
      let offsets = try groupOffsets(group).get().filter { $0.topic == clusterName }
      if !offsets.isEmpty { try groupOffsets(group).delete(offsets) }
    }
  }

  public func alterTopic(
    _ name: String, configuration topic: TopicConfiguration,
    completion: @escaping @Sendable (Result<Void, LogError>) -> Void
  ) {
    adminLane.answer(completion) { [self] () throws(LogError) in
      try topic.check(name: name)
      try describe(name).checkChange(to: topic, of: name)
      // The call replaces all settings, so those that are not the log's are given again.
      let clusterName = directory.clusterName(name)
      var settings = try admin.topicSettings([clusterName], ownOnly: true)[clusterName] ?? [:]
      for (name, value) in TopicSettings.settings(topic) { settings[name] = value }
      try admin.replaceSettings(of: clusterName, settings.map { ($0.key, $0.value) })
    }
  }

  /// Blocks. Errors: `noSuchTopic`.
  private func describe(_ name: String) throws(LogError) -> TopicConfiguration {
    let clusterName = directory.clusterName(name)
    guard let found = try directory.refresh(name, timeout: configuration.requestTimeout),
      let settings = try admin.topicSettings([clusterName])[clusterName]
    else { throw LogError(.noSuchTopic, "there is no topic \"\(name)\"") }
    return TopicSettings.configuration(settings, partitions: found.partitions)
  }

  public func topics(completion: @escaping @Sendable (Result<[TopicDescription], LogError>) -> Void) {
    adminLane.answer(completion) { [self] () throws(LogError) in
      let found = try directory.all()
      let settings = try admin.topicSettings(found.keys.map(directory.clusterName), isLenient: true)
      var topics: [TopicDescription] = []
      for (name, partitions) in found.sorted(by: { $0.key < $1.key }) {
        guard let settings = settings[directory.clusterName(name)] else { continue }
        topics.append(
          TopicDescription(name: name, configuration: TopicSettings.configuration(settings, partitions: partitions)))
      }
      return topics
    }
  }

  public func deleteRecords(
    of partition: TopicPartition, before offset: Int64,
    completion: @escaping @Sendable (Result<Void, LogError>) -> Void
  ) {
    adminLane.answer(completion) { [self] () throws(LogError) in
      let bounds = try queries.bounds(of: partition)
      try bounds.checkTrim(to: offset, of: partition)
      if offset <= bounds.start { return }
      try admin.deleteRecords(directory.clusterName(partition.topic), partition.partition, before: offset)
      reader.ask(.trim(partition, offset))
    }
  }

  // MARK: records

  public func commit(
    _ transaction: Transaction, completion: @escaping @Sendable (Result<CommitReceipt, LogError>) -> Void
  ) { committer.commit(transaction, completion: completion) }

  public func read(
    _ partition: TopicPartition, from offset: Int64, maxBytes: Int,
    completion: @escaping @Sendable (Result<ReadResult, LogError>) -> Void
  ) {
    if let found = reader.readNow(partition, offset, maxBytes) { return completion(.success(found)) }
    let request = Reader.Request.read(partition, offset: offset, maxBytes: maxBytes, completion: completion)
    if let refusal = reader.ask(request) { completion(.failure(refusal)) }
  }

  public func whenAvailable(
    _ partition: TopicPartition, after offset: Int64, notify: @escaping @Sendable () -> Void
  ) -> WatchToken {
    let token = reader.watches.makeToken()
    let watch = Reader.Watch(id: token.id, offset: offset, notify: notify)
    if reader.watchNow(partition, watch) { return token }
    if reader.ask(.watch(partition, watch)) != nil { reader.watches.notify(watch) }
    return token
  }

  public func cancelWatch(_ token: WatchToken) { reader.watches.cancel(token.id) }

  public func bounds(
    of partition: TopicPartition, completion: @escaping @Sendable (Result<PartitionBounds, LogError>) -> Void
  ) {
    queries.lane.answer(completion) { [queries] () throws(LogError) in try queries.bounds(of: partition) }
  }

  public func offset(
    of partition: TopicPartition, at timestamp: Int64, completion: @escaping @Sendable (Result<Int64, LogError>) -> Void
  ) {
    queries.lane.answer(completion) { [queries] () throws(LogError) in
      try queries.offset(of: partition, at: timestamp)
    }
  }

  public func settled(
    _ partitions: [TopicPartition], completion: @escaping @Sendable (Result<Void, LogError>) -> Void
  ) {
    openTransactions.wait(
      OpenTransactions.Request(
        partitions: partitions,
        deadline: MonotonicClock.after(milliseconds: configuration.transactionTimeout + 15_000),
        completion: completion))
  }

  /// What the log has done since it was opened.
  public var statistics: KafkaStatistics { groups.meters.statistics }

  // MARK: groups

  public func committedOffsets(
    group: String, completion: @escaping @Sendable (Result<[TopicPartition: CommittedOffset], LogError>) -> Void
  ) {
    adminLane.answer(completion) { [self] () throws(LogError) in
      let reading = committer.memory.reading(group)
      var offsets: [TopicPartition: CommittedOffset] = [:]
      for found in try groupOffsets(configuration.namespace + group).get() {
        guard let topic = directory.ownName(found.topic) else { continue }
        offsets[TopicPartition(topic, found.partition)] = CommittedOffset(
          offset: found.offset, metadata: OffsetMetadata.decode(found.metadata))
      }
      committer.memory.read(group, offsets, since: reading, horizon: committer.queue.lastNumber)
      return offsets
    }
  }

  private func groupOffsets(_ clusterName: String) throws(LogError) -> GroupOffsets {
    try GroupOffsets(configuration, of: clusterName, timeout: configuration.requestTimeout)
  }

  public func deleteGroup(_ group: String, completion: @escaping @Sendable (Result<Void, LogError>) -> Void) {
    adminLane.answer(completion) { [self] () throws(LogError) in
      try groupOffsets(configuration.namespace + group).deleteGroup()
      committer.memory.forget(group: group)
    }
  }

  public func join(
    group: String, topics: [String], onChange: @escaping @Sendable (GroupChange) -> Void
  ) -> GroupMembership { groups.join(group: group, topics: topics, onChange: onChange) }

  public func leave(_ membership: GroupMembership) { groups.leave(membership) }

  // MARK: the end

  public func close(completion: @escaping @Sendable () -> Void) {
    let isFirst = closing.withLock { closing -> Bool? in
      switch closing {
      case .open:
        closing = .closing([completion])
        return true
      case .closing(let waiting):
        closing = .closing(waiting + [completion])
        return false
      case .closed: return nil
      }
    }
    guard let isFirst else { return completion() }
    guard isFirst else { return }
    Self.stop(groups, committer, reader, openTransactions, queries.lane, adminLane) { [self] in
      let waiting = closing.withLock { closing -> [@Sendable () -> Void] in
        defer { closing = .closed }
        if case .closing(let waiting) = closing { return waiting }
        return []
      }
      for completion in waiting { completion() }
    }
  }

  /// One after the other, since each may need the next: administration, commits, questions, reads.
  private static func stop(
    _ groups: GroupService, _ committer: Committer, _ reader: Reader, _ openTransactions: OpenTransactions,
    _ queryLane: Lane,
    _ adminLane: Lane, last: @escaping @Sendable () -> Void
  ) {
    adminLane.stop {
      committer.stop {
        groups.stop {
          openTransactions.stop {
            queryLane.stop {
              if reader.ask(.stop(last)) != nil { last() }
            }
          }
        }
      }
    }
  }
}
