public import GrapeCore
public import GrapeLog

/// A topic that Grape needs: what it is for, and how it must be.
public struct PlannedTopic: Hashable, Sendable {
  public var name: String
  public var configuration: TopicConfiguration
  /// For people.
  public var purpose: String
  /// The application that it belongs to.
  public var app: String?
  /// True: how long records are kept is the operator's business, once the topic is there.
  public var isRetentionFree: Bool

  public init(
    _ name: String, _ configuration: TopicConfiguration, purpose: String, app: String? = nil,
    isRetentionFree: Bool = false
  ) {
    self.name = name
    self.configuration = configuration
    self.purpose = purpose
    self.app = app
    self.isRetentionFree = isRetentionFree
  }
}

/// Which topics there are: the one place that says so.
public enum TopicPlan {
  /// How long a reply is kept for its caller, milliseconds.
  private static let repliesAge: Int64 = 3_600_000
  /// How long writes of state from outside are kept once they are done, milliseconds.
  private static let writesAge: Int64 = 3_600_000

  /// How long what nodes say of themselves is kept, milliseconds. It is of no use after a while.
  private static let nodesAge: Int64 = 600_000

  /// What belongs to the log as a whole.
  ///
  /// - Parameter byNodes: true: several nodes may work on it, and tell each other of themselves.
  public static func shared(byNodes isShared: Bool) -> [PlannedTopic] {
    let registry = PlannedTopic(
      SystemTopic.registry, TopicConfiguration(partitions: 1, cleanup: .compact), purpose: "deployed applications")
    guard isShared else { return [registry] }
    return [
      registry,
      PlannedTopic(
        SystemTopic.nodes, TopicConfiguration(partitions: 1, retentionMilliseconds: nodesAge),
        purpose: "what nodes say of themselves"),
    ]
  }

  /// What a node has for itself.
  public static func node(_ name: NodeName) -> [PlannedTopic] {
    [
      PlannedTopic(
        name.repliesTopic, TopicConfiguration(partitions: 1, retentionMilliseconds: repliesAge),
        purpose: "replies to callers at node \(name.text)")
    ]
  }

  /// What an application has.
  public static func application(_ manifest: Manifest) -> [PlannedTopic] {
    let (name, profile, partitions) = (manifest.name, manifest.profile, Int32(manifest.partitions))
    func topic(
      _ topic: String, _ configuration: TopicConfiguration, _ purpose: String, isRetentionFree: Bool = false
    ) -> PlannedTopic {
      PlannedTopic(topic, configuration, purpose: purpose, app: name.text, isRetentionFree: isRetentionFree)
    }
    let age = profile.retentionAge.wholeMilliseconds
    return [
      topic(
        name.eventsTopic,
        TopicConfiguration(
          partitions: partitions, retentionMilliseconds: age == 0 ? nil : age,
          retentionBytes: profile.retentionSize == 0 ? nil : Int64(profile.retentionSize)),
        "events"),
      topic(name.deadLettersTopic, TopicConfiguration(partitions: 1), "dead letters", isRetentionFree: true),
      topic(name.stateTopic, TopicConfiguration(partitions: partitions, cleanup: .compact), "changes of state"),
      topic(
        name.writesTopic, TopicConfiguration(partitions: partitions, retentionMilliseconds: writesAge),
        "writes of state from outside"),
      topic(
        name.requestsTopic,
        TopicConfiguration(
          partitions: 1, retentionMilliseconds: profile.idempotency.window.wholeMilliseconds),
        "requests with an idempotency key"),
    ]
  }
}
