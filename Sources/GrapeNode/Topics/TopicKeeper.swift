internal import GrapeCore
internal import GrapeKafka
internal import GrapeLog
internal import Logging

/// Sees to it that topics are there and are as they must be.
struct TopicKeeper: Sendable {
  let log: any EventLog
  /// Of a log on Kafka: names and commands there.
  let cluster: ClusterTopics?
  /// Asks a log on Kafka for what it has of its topics beyond the contract.
  var details: (@Sendable () async throws(LogError) -> [String: KafkaTopicDetails])?
  let logger: Logger

  /// Creates what is missing and mends what differs. Where the log does not let this node do so, it goes on if nobody
  /// would notice: the topic is there and keeps at least what it must.
  ///
  /// Errors: everything that is in the way, in one message: `invalidArgument` for topics that nobody can mend,
  /// `unauthorized` for what an administrator can; else what the log says.
  func ensure(_ planned: [PlannedTopic]) async throws(LogError) {
    var existing: [String: TopicConfiguration] = [:]
    for topic in try await log.topics() { existing[topic.name] = topic.configuration }
    var problems: [LogError] = []
    for topic in planned {
      do throws(LogError) {
        if let found = existing[topic.name] {
          try await mend(topic, found)
        } else {
          try await create(topic)
        }
      } catch {
        guard error.code == .unauthorized || error.code == .invalidArgument else { throw error }
        problems.append(error)
      }
    }
    guard let first = problems.first else { return try await lookAtDetails(of: planned) }
    let code = problems.contains { $0.code == .invalidArgument } ? LogError.Code.invalidArgument : first.code
    throw LogError(code, problems.map(\.message).joined(separator: "\n"))
  }

  /// Warns of topics that are not as the configuration wants new ones. A node works on them all the same, and does not
  /// undo what an administrator may have wanted so.
  private func lookAtDetails(of planned: [PlannedTopic]) async throws(LogError) {
    guard let details, let cluster else { return }
    let found = try await details()
    for topic in planned {
      let differences = found[topic.name].map { cluster.differences(of: $0) } ?? []
      if differences.isEmpty { continue }
      logger.warning(
        "a topic is not as the configuration wants new ones",
        metadata: [
          "topic": "\(shown(topic))", "difference": "it \(differences.map(\.text).joined(separator: ", "))",
          "mended by": "\(cluster.alterCommand(topic, differences) ?? "kafka-reassign-partitions.sh")",
        ])
    }
  }

  private func create(_ topic: PlannedTopic) async throws(LogError) {
    do throws(LogError) {
      try await log.createTopic(topic.name, configuration: topic.configuration)
    } catch {
      switch error.code {
      case .topicExists:
        // Somebody else was quicker.
        guard let found = try await log.topics().first(where: { $0.name == topic.name }) else {
          return try await checkWhatCannotBeDescribed(topic, error)
        }
        try await mend(topic, found.configuration)
      case .unauthorized: try await checkWhatCannotBeDescribed(topic, error)
      default: throw LogError(error.code, "topic \(shown(topic)) cannot be created: \(error.message)")
      }
    }
  }

  /// The topic may not be created, or is there and may not be described. If it is there its partitions can be counted at
  /// least.
  private func checkWhatCannotBeDescribed(_ topic: PlannedTopic, _ refusal: LogError) async throws(LogError) {
    let count = topic.configuration.partitions
    guard try await isThere(TopicPartition(topic.name, 0)) else {
      throw LogError(
        .unauthorized,
        "topic \(shown(topic)) is not there, and this node may not create it (\(refusal.message)): `grape log topics "
          + "--plan` prints what an administrator must create")
    }
    let hasEnough = try await isThere(TopicPartition(topic.name, count - 1))
    let hasMore = try await isThere(TopicPartition(topic.name, count))
    guard hasEnough, !hasMore else {
      throw LogError(
        .invalidArgument,
        "topic \(shown(topic)) has \(hasMore ? "more" : "fewer") than \(count) partitions. \(remedyOfPartitions(topic))"
      )
    }
    logger.warning(
      "a topic is there, but its settings cannot be checked",
      metadata: ["topic": "\(shown(topic))", "reason": "\(refusal.message)"])
  }

  private func isThere(_ partition: TopicPartition) async throws(LogError) -> Bool {
    do throws(LogError) {
      _ = try await log.bounds(of: partition)
      return true
    } catch {
      switch error.code {
      case .noSuchTopic, .noSuchPartition, .unauthorized, .failed: return false
      default: throw error
      }
    }
  }

  private func mend(_ topic: PlannedTopic, _ existing: TopicConfiguration) async throws(LogError) {
    let differences = topic.differences(from: existing)
    if differences.isEmpty { return }
    let text = differences.map(\.text).joined(separator: ", ")
    if differences.contains(where: { if case .partitions = $0 { true } else { false } }) {
      throw LogError(.invalidArgument, "topic \(shown(topic)) \(text). \(remedyOfPartitions(topic))")
    }
    var wanted = topic.configuration
    if topic.isRetentionFree {
      wanted.retentionMilliseconds = existing.retentionMilliseconds
      wanted.retentionBytes = existing.retentionBytes
    }
    do throws(LogError) {
      try await log.alterTopic(topic.name, configuration: wanted)
      logger.info("a topic was changed", metadata: ["topic": "\(shown(topic))", "change": "it \(text)"])
    } catch {
      guard error.code == .unauthorized else {
        throw LogError(error.code, "topic \(shown(topic)) \(text) and cannot be changed: \(error.message)")
      }
      let remedy = cluster?.alterCommand(topic, differences).map { ": \($0)" } ?? ""
      guard differences.allSatisfy(\.isHarmless) else {
        throw LogError(
          .unauthorized,
          "topic \(shown(topic)) \(text), and this node may not change it (\(error.message)). An administrator "
            + "must\(remedy)")
      }
      logger.warning(
        "a topic keeps more than it must, and this node may not change it",
        metadata: ["topic": "\(shown(topic))", "difference": "\(text)", "mended by": "\(remedy.dropFirst(2))"])
    }
  }

  private func remedyOfPartitions(_ topic: PlannedTopic) -> String {
    let reason = "The number of partitions of a topic cannot be changed: the order of keys would be lost. "
    guard let app = topic.app, topic.configuration.partitions != 1 else {
      return reason + "Delete the topic, if it holds nothing that is needed, or use another namespace"
    }
    return reason
      + "Give \(app) as many partitions as it has (partitions: in grape.yaml), or delete the topic if it holds nothing that is needed"
  }

  /// The topic's name as an administrator knows it.
  private func shown(_ topic: PlannedTopic) -> String { cluster?.name(of: topic.name) ?? topic.name }
}
