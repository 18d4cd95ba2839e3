internal import GrapeLog

/// One consumer group that this node has members in. Confined to the thread that serves the groups.
final class NodeGroup {
  let name: String
  var members = LocalMembers()
  /// Whom to tell, by member.
  var listeners: [UInt64: @Sendable (GroupChange) -> Void] = [:]
  var consumer: GroupConsumer?
  /// What the consumer has subscribed to, by names on the cluster.
  var subscription: Set<String> = []
  /// When time is over for giving back what the cluster wants back, nanoseconds of the monotonic clock; nil: it wants
  /// nothing.
  var revocationDeadline: Int64?
  /// When to try again to make a consumer.
  var retryAt: Int64?

  init(_ name: String) { self.name = name }
}

/// Time that members have to finish revocations.
struct RevocationTimer {
  let group: String
  let member: UInt64
  let number: UInt64
  /// Nanoseconds of the monotonic clock.
  let deadline: Int64
}

/// A consumer that is leaving its group.
struct LeavingConsumer {
  let consumer: GroupConsumer
  let group: String
  /// Nanoseconds of the monotonic clock; then it is let go of, and the cluster notices by the session timeout.
  let deadline: Int64
}
