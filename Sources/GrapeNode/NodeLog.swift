internal import GrapeCommitLog
internal import GrapeCore
public import GrapeKafka
internal import GrapeLog
internal import Logging

/// Which log a node works on.
public enum NodeLogChoice: Sendable {
  /// Its own, in the data directory.
  case embedded
  /// A cluster's. The transactional id is the node's name, whatever the configuration says.
  case kafka(KafkaConfiguration)

  /// How long a node may take between claiming an idempotency key and having the event in the log, milliseconds; nil: no other node takes requests.
  var claimTime: Int64? {
    guard case .kafka(let kafka) = self else { return nil }
    // The last: until the cluster has decided what nobody was told the outcome of.
    return RequestTable.appendTime + Int64(kafka.commitTimeout) + Int64(kafka.transactionTimeout) + 15_000
  }
}

/// The log that a node has opened, and what the node must do for one kind of log and not for another.
struct NodeLog: Sendable {
  var log: any EventLog
  /// "embedded" or "kafka", as in answers to clients.
  var kind: String
  /// Other nodes may work on it, and commits can fail one by one while others succeed.
  var isShared = false
  /// What topics are on the cluster; nil: there is none.
  var cluster: ClusterTopics?
  /// What the cluster has of its topics beyond the contract of logs; nil: there is none.
  var topicDetails: (@Sendable () async throws(LogError) -> [String: KafkaTopicDetails])?
  /// Runs the reactor on the thread that it is called on.
  var run: @Sendable (_ reactor: () -> Void) -> Void = { $0() }
  /// To be called by the reactor at the end of each turn.
  var endTurn: @Sendable () -> Void = {}
  var statistics: @Sendable () -> JSONValue
  /// Kept for as long as the log is open.
  private var lock: DirectoryStorage?

  /// Errors: what is wrong with the data directory or the cluster.
  static func open(_ configuration: NodeConfiguration, logger: Logger) throws(NodeError) -> NodeLog {
    switch configuration.log {
    case .embedded: try openEmbedded(configuration, logger)
    case .kafka(let kafka): try openKafka(kafka, configuration, logger)
    }
  }

  private static func openEmbedded(_ configuration: NodeConfiguration, _ logger: Logger) throws(NodeError) -> NodeLog {
    try LogMarker.check(configuration.dataDirectory, namespace: nil)
    var options = CommitLogOptions()
    options.segmentBytes = configuration.segmentBytes
    options.tailCacheBytes = configuration.cacheBytes
    options.lowSpaceBytes = configuration.lowSpaceBytes
    // A lone call's commits are written on the reactor's thread; what gathers under load goes to the writer's, beside which
    // the reactor goes on gathering.
    options.assistBytes = 1536
    // Never reached: the gate holds clients and workers back long before.
    options.queueBytes = 1 << 30
    let (log, report): (CommitLog, RecoveryReport)
    do throws(LogError) {
      (log, report) = try CommitLog.open(directory: configuration.dataDirectory, options: options)
    } catch {
      throw NodeError("the log in \(configuration.dataDirectory) cannot be opened: \(error.message)")
    }
    for cut in report.cuts {
      logger.warning(
        "the log's torn tail was cut off; nothing acknowledged as on disk was in it",
        metadata: [
          "file": "\(cut.file)", "position": "\(cut.position)", "bytes": "\(cut.bytes)", "reason": "\(cut.reason)",
          "copy": "\(cut.copy)",
        ])
    }
    return NodeLog(
      log: log, kind: "embedded",
      run: { reactor in
        log.becomeDeputy()
        reactor()
        log.resignDeputy()
      },
      endTurn: { log.assist() }, statistics: { log.statistics.json })
  }

  private static func openKafka(
    _ kafka: KafkaConfiguration, _ configuration: NodeConfiguration, _ logger: Logger
  ) throws(NodeError) -> NodeLog {
    let lock: DirectoryStorage
    do throws(LogError) { lock = try DirectoryStorage(owning: configuration.dataDirectory) } catch {
      throw NodeError(error.message)
    }
    try LogMarker.check(configuration.dataDirectory, namespace: kafka.namespace)
    let brokers = kafka.bootstrapServers
    var kafka = kafka
    kafka.transactionalID = configuration.name.text
    kafka.log = { line in
      // syslog's levels: up to 4 is a warning or worse.
      let level: Logger.Level = line.level <= 3 ? .error : line.level == 4 ? .warning : line.level <= 6 ? .info : .debug
      logger.log(level: level, "librdkafka: \(line.message)", metadata: ["facility": "\(line.facility)"])
    }
    do throws(LogError) {
      let log = try KafkaEventLog(kafka)
      do throws(NodeError) {
        try LogMarker.write(configuration.dataDirectory, namespace: kafka.namespace)
      } catch {
        log.close {}
        throw LogError(.failed, error.message)
      }
      return NodeLog(
        log: log, kind: "kafka", isShared: true, cluster: ClusterTopics(kafka),
        topicDetails: { () async throws(LogError) in
          let result: Result<[String: KafkaTopicDetails], LogError> = await withCheckedContinuation { continuation in
            log.topicDetails { continuation.resume(returning: $0) }
          }
          return try result.get()
        },
        statistics: { log.statistics.json(brokers) },
        lock: lock)
    } catch {
      throw NodeError("the log on Kafka (\(kafka.bootstrapServers)) cannot be opened: \(error.message)")
    }
  }
}

extension CommitLogStatistics {
  /// As in the answer to `stats`.
  var json: JSONValue {
    [
      "commits": JSONValue(commits), "groups": JSONValue(groups), "bytes": JSONValue(bytes), "syncs": JSONValue(syncs),
      "assisted": JSONValue(assisted),
      "syncMicros": [
        "p50": .int(syncTime.percentile(0.5) / 1000), "p99": .int(syncTime.percentile(0.99) / 1000),
      ],
    ]
  }
}

extension KafkaStatistics {
  /// As in the answer to `stats`.
  fileprivate func json(_ bootstrapServers: String) -> JSONValue {
    [
      "kind": "kafka", "bootstrap": .string(bootstrapServers), "commits": JSONValue(commits),
      "refused": JSONValue(commitsRefused), "plain": JSONValue(plainCommits),
      "transactions": [
        "begun": JSONValue(transactionsBegun), "committed": JSONValue(transactionsCommitted),
        "aborted": JSONValue(transactionsAborted),
      ],
      "bytes": JSONValue(bytesWritten), "records": JSONValue(recordsWritten), "bytesRead": JSONValue(bytesRead),
      "recordsRead": JSONValue(recordsRead),
      "commitMicros": [
        "p50": JSONValue(commitLatency.percentile(0.5)), "p99": JSONValue(commitLatency.percentile(0.99)),
      ],
      "groups": [
        "rebalances": JSONValue(rebalances), "assigned": JSONValue(partitionsAssigned),
        "revoked": JSONValue(partitionsRevoked), "lost": JSONValue(partitionsLost), "stale": JSONValue(staleMembers),
      ],
      "brokers": .array(
        brokers.map {
          [
            "name": .string($0.name), "up": .bool($0.isUp), "roundTripMicros": JSONValue($0.roundTripMean),
            "roundTripMicros99": JSONValue($0.roundTrip99),
          ]
        }),
      "errors": JSONValue(strings: lastErrors),
    ]
  }
}
