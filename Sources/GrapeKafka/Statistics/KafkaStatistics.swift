/// What a log on Kafka has done since it was opened, and how the cluster looks from here.
public struct KafkaStatistics: Sendable {
  /// Rebalances of consumer groups that changed, or might have changed, what this node has.
  public internal(set) var rebalances = 0
  /// Partitions that members of this node were told to have, to give up, and to have lost.
  public internal(set) var partitionsAssigned = 0
  public internal(set) var partitionsRevoked = 0
  public internal(set) var partitionsLost = 0
  /// Commits that a group's coordinator refused because of who this node was in the group.
  public internal(set) var staleMembers = 0
  /// What went wrong last, oldest first; at most `errorLimit`.
  public internal(set) var lastErrors: [String] = []

  /// Most errors that are kept.
  public static let errorLimit = 8
}
