/// What somebody has said about how a node is to be set up: in a file, in the environment, on the command line. What
/// nobody has said is nil or empty, and the node's defaults hold (docs/configuration.md).
public struct NodeSettings: Hashable, Sendable {
  /// The data directory.
  public var data: Placed<String>?
  /// The socket's path.
  public var socket: Placed<String>?
  /// The node's name.
  public var name: Placed<String>?
  /// `trace` to `critical`.
  public var logLevel: Placed<String>?
  /// How the node writes what it logs.
  public var logFormat: Placed<LogFormat>?
  /// Bytes of one segment of the embedded log.
  public var segmentSize: Placed<Int>?
  /// Bytes free on the disk below which new events are refused.
  public var lowSpace: Placed<Int>?
  /// Which log the node works on.
  public var log: Placed<LogAddress>?
  /// The log on Kafka.
  public var kafka = Kafka()

  public init() {}

  /// True if the log is a cluster's.
  public var isOnKafka: Bool { if case .kafka = log?.value { true } else { false } }

  /// What is only of use with a log on Kafka.
  public struct Kafka: Hashable, Sendable {
    /// Precedes the names of topics, groups and transactions.
    public var namespace: Placed<String>?
    /// Precedes the names of topics that are not Grape's.
    public var externalNamespace: Placed<String>?
    /// Copies of each partition of new topics.
    public var replication: Placed<Int>?
    public var requestTimeout: Placed<Duration>?
    public var commitTimeout: Placed<Duration>?
    public var commitInterval: Placed<Duration>?
    /// Bytes.
    public var commitSize: Placed<Int>?
    public var sessionTimeout: Placed<Duration>?
    public var transactionTimeout: Placed<Duration>?
    public var revocationTimeout: Placed<Duration>?
    /// Settings of librdkafka by name.
    public var settings: [String: Placed<String>] = [:]
    /// Settings of librdkafka whose values stand elsewhere. A name is not in `settings`, too.
    public var secrets: [String: Placed<SecretSource>] = [:]
    /// Settings of new topics.
    public var topicSettings: [String: Placed<String>] = [:]

    public init() {}

    /// True if nothing was said.
    public var isEmpty: Bool { self == Kafka() }
  }
}

/// A value, and where it was given: `node.yaml:3:7`, a variable of the environment, an option.
public struct Placed<Value: Hashable & Sendable>: Hashable, Sendable {
  public var value: Value
  public var place: String

  public init(_ value: Value, _ place: String) {
    self.value = value
    self.place = place
  }
}

/// How a node writes what it logs.
public enum LogFormat: String, Hashable, Sendable, CaseIterable {
  case text
  /// One object a line.
  case json
}

/// Where a secret's value stands.
public enum SecretSource: Hashable, Sendable, CustomStringConvertible {
  /// In a file, by its path; an end of line at its end does not count.
  case file(String)
  /// In a variable of the environment.
  case environment(String)

  public var description: String {
    switch self {
    case .file(let path): "file \(path)"
    case .environment(let name): "environment variable \(name)"
    }
  }
}

extension NodeSettings {
  /// These settings where they say something, else the others. Maps are merged name by name.
  public func over(_ weaker: NodeSettings) -> NodeSettings {
    var result = self
    result.data = data ?? weaker.data
    result.socket = socket ?? weaker.socket
    result.name = name ?? weaker.name
    result.logLevel = logLevel ?? weaker.logLevel
    result.logFormat = logFormat ?? weaker.logFormat
    result.segmentSize = segmentSize ?? weaker.segmentSize
    result.lowSpace = lowSpace ?? weaker.lowSpace
    result.log = log ?? weaker.log
    result.kafka = kafka.over(weaker.kafka)
    return result
  }
}

extension NodeSettings.Kafka {
  func over(_ weaker: Self) -> Self {
    var result = self
    result.namespace = namespace ?? weaker.namespace
    result.externalNamespace = externalNamespace ?? weaker.externalNamespace
    result.replication = replication ?? weaker.replication
    result.requestTimeout = requestTimeout ?? weaker.requestTimeout
    result.commitTimeout = commitTimeout ?? weaker.commitTimeout
    result.commitInterval = commitInterval ?? weaker.commitInterval
    result.commitSize = commitSize ?? weaker.commitSize
    result.sessionTimeout = sessionTimeout ?? weaker.sessionTimeout
    result.transactionTimeout = transactionTimeout ?? weaker.transactionTimeout
    result.revocationTimeout = revocationTimeout ?? weaker.revocationTimeout
    // A name has one value, whether it is given openly or as a secret.
    result.settings.merge(weaker.settings.filter { secrets[$0.key] == nil }) { stronger, _ in stronger }
    result.secrets.merge(weaker.secrets.filter { settings[$0.key] == nil }) { stronger, _ in stronger }
    result.topicSettings.merge(weaker.topicSettings) { stronger, _ in stronger }
    return result
  }
}
