internal import GrapeLog

/// How to reach a Kafka cluster and how to work with it.
///
/// Its description names settings, never their values, so that no secret gets into a log.
public struct KafkaConfiguration: Sendable, CustomStringConvertible, CustomReflectable {
  /// `host:port`, separated by commas.
  public var bootstrapServers: String
  /// Names this node's transactions: unique among the nodes that run at the same time, the same when the node comes
  /// back. A second log with the same name takes over from the first, whose commits fail from then on.
  public var transactionalID: String
  /// Precedes the names of all topics and groups, and the transactional id, on the cluster. May be empty; then every
  /// topic of the cluster is seen, save those whose name begins with two underscores.
  public var namespace = ""
  /// Tells topics of others by their names; their names on the cluster begin with `externalNamespace` instead.
  public var isExternal: (@Sendable (_ topic: String) -> Bool)?
  public var externalNamespace = ""
  /// Any settings of librdkafka, TLS and SASL included, for all clients. Those in `KafkaConfiguration.reserved` are
  /// refused.
  public var settings: [String: String] = [:]
  /// Copies of each partition of new topics; -1: as the brokers have it.
  public var replicationFactor: Int32 = -1
  /// Settings that new topics get besides cleanup and retention. By default records of 64 MiB fit; clusters that allow
  /// less refuse such topics, and need another value here.
  public var topicSettings = ["max.message.bytes": "68157440"]
  /// How long a question to the cluster may take, milliseconds.
  public var requestTimeout = 30_000
  /// How long a commit may take, milliseconds; from 2,000 to 900,000.
  public var commitTimeout = 60_000
  /// How long a transaction may be open on the cluster before brokers roll it back, milliseconds; from 1,000 to 900,000
  /// (brokers have a limit of their own, 15 minutes by default). So long at most the partitions that a node wrote to when it
  /// died keep back what others write there.
  public var transactionTimeout = 10_000
  /// How long the members of a group may take to finish revocations, milliseconds; what is unfinished then is lost. Less
  /// than `max.poll.interval.ms`, after which the cluster does without this node.
  public var revocationTimeout = 20_000
  /// How long a commit waits for others to go with it, milliseconds. 0: not at all; those that come while another is
  /// under way go together in any case.
  public var commitInterval = 0
  /// Most bytes and transactions that go to the cluster in one commit; one transaction alone may be larger.
  public var commitBytes = 8 << 20
  public var commitTransactions = 10_000
  /// Most bytes and transactions that wait for being committed; beyond, `busy`.
  public var waitingBytes = 256 << 20
  public var waitingTransactions = 100_000
  /// Most bytes read ahead, shared by the partitions that are read; each may have 1 MiB at least.
  public var readAheadBytes = 64 << 20
  /// Most bytes that one record batch may unpack to.
  public var unpackedBatchBytes = 256 << 20
  /// True: appends to a single partition that need no Kafka transaction do without (docs/kafka.md says when that is).
  public var appendsPlainly = true
  /// Gets what librdkafka logs. Called on any thread; must not block.
  public var log: (@Sendable (KafkaLogLine) -> Void)?

  public init(bootstrapServers: String, transactionalID: String) {
    self.bootstrapServers = bootstrapServers
    self.transactionalID = transactionalID
  }

  /// Settings on which correctness rests; they are the log's own.
  public static let reserved: Set<String> = [
    "bootstrap.servers", "metadata.broker.list", "transactional.id", "enable.idempotence", "isolation.level",
    "enable.partition.eof", "auto.offset.reset", "allow.auto.create.topics", "acks", "request.required.acks",
    "linger.ms", "queue.buffering.max.ms", "message.timeout.ms", "delivery.timeout.ms", "transaction.timeout.ms",
    "group.id", "enable.auto.commit", "enable.auto.offset.store", "retries", "message.send.max.retries",
    "queue.buffering.max.messages", "queue.buffering.max.kbytes", "batch.num.messages",
  ]

  /// Settings of the members of groups where none are given.
  var groupDefaults: [(name: String, value: String)] {
    [
      ("partition.assignment.strategy", "cooperative-sticky"), ("session.timeout.ms", "10000"),
      ("heartbeat.interval.ms", "3000"), ("topic.metadata.refresh.interval.ms", "5000"),
      ("max.poll.interval.ms", String(maxPollInterval)),
    ].filter { settings[$0.0] == nil }
  }

  /// How often librdkafka reports on the brokers, where that is not given.
  var reportDefaults: [(name: String, value: String)] {
    settings["statistics.interval.ms"] == nil ? [("statistics.interval.ms", "5000")] : []
  }

  /// How often members of groups must at least be seen to be alive, milliseconds. The cluster also waits for so long for a member that
  /// died while partitions were being given out anew, so it is no more than giving them up takes.
  private var maxPollInterval: Int {
    settings["max.poll.interval.ms"].flatMap { Int($0) }
      ?? max(revocationTimeout + 10_000, settings["session.timeout.ms"].flatMap { Int($0) } ?? 10_000)
  }
  /// How often the thread that serves the groups wakes at least, milliseconds.
  var pollInterval: Int { max(50, maxPollInterval / 4) }

  public var description: String {
    "Kafka at \(bootstrapServers), namespace \"\(namespace)\", transactional id \(transactionalID), settings "
      + settings.keys.sorted().joined(separator: ", ")
  }

  public var customMirror: Mirror { Mirror(self, children: ["description": description]) }

  /// Errors: `invalidArgument`, saying what would be right.
  func check() throws(LogError) {
    for (name, _) in TopicSettings.settings(TopicConfiguration(partitions: 1)) where topicSettings[name] != nil {
      throw LogError(.invalidArgument, "Kafka topic setting \(name) follows from the topic's configuration")
    }
    for name in settings.keys.sorted() where Self.reserved.contains(name) {
      throw LogError(.invalidArgument, "Kafka setting \(name) is the log's own and cannot be given")
    }
    guard !bootstrapServers.isEmpty else { throw LogError(.invalidArgument, "Kafka: no bootstrap servers were given") }
    guard !transactionalID.isEmpty else { throw LogError(.invalidArgument, "Kafka: no transactional id was given") }
    try TopicConfiguration(partitions: 1).check(name: namespace + "x")
    guard (2_000...900_000).contains(commitTimeout) else {
      throw LogError(.invalidArgument, "Kafka: commit timeout of \(commitTimeout) ms; must be 2,000 to 900,000")
    }
    guard (1_000...900_000).contains(transactionTimeout) else {
      throw LogError(
        .invalidArgument, "Kafka: transaction timeout of \(transactionTimeout) ms; must be 1,000 to 900,000")
    }
    guard (1..<maxPollInterval).contains(revocationTimeout) else {
      throw LogError(
        .invalidArgument,
        "Kafka: revocation timeout of \(revocationTimeout) ms; must be 1 to less than max.poll.interval.ms, "
          + "which is \(maxPollInterval)")
    }
    guard (1...900_000).contains(requestTimeout), (0..<commitTimeout).contains(commitInterval) else {
      throw LogError(
        .invalidArgument,
        "Kafka: request timeout of \(requestTimeout) ms, commit interval of \(commitInterval) ms; "
          + "must be 1 to 900,000, and 0 to less than the commit timeout")
    }
    for (name, value) in [
      ("commitBytes", commitBytes), ("commitTransactions", commitTransactions), ("waitingBytes", waitingBytes),
      ("waitingTransactions", waitingTransactions), ("readAheadBytes", readAheadBytes),
      ("unpackedBatchBytes", unpackedBatchBytes),
    ] where value < 1 {
      throw LogError(.invalidArgument, "Kafka: \(name) is \(value); must be positive")
    }
  }
}

/// A line that librdkafka logs.
public struct KafkaLogLine: Sendable {
  /// Severity as of syslog: 0 emergency to 7 debug.
  public var level: Int
  /// What it is about, such as `FAIL`.
  public var facility: String
  public var message: String
}
