/// What opening a log found.
public struct RecoveryReport: Sendable {
  /// Bytes at the log's end that were not a whole group: the remains of a write that the machine's or the node's death
  /// interrupted, and that was not acknowledged with durability `disk`.
  public struct Cut: Sendable {
    /// Logical position of the first byte cut.
    public var position: Int64
    /// The segment file.
    public var file: String
    /// Bytes cut, zeros at the end not counted.
    public var bytes: Int64
    /// Why they are not a group.
    public var reason: String
    /// File that has a copy of them.
    public var copy: String
  }

  /// Position of the checkpoint that the start went on from; nil if it read the log from its beginning.
  public var checkpoint: Int64?
  /// Of what was read: segment files, groups, record batches in topics that exist, and bytes read.
  public var segments = 0
  public var groups: UInt64 = 0
  public var batches: UInt64 = 0
  public var bytes: Int64 = 0
  /// How long it took.
  public var milliseconds: Int64 = 0
  /// Empty after an orderly stop, and mostly after a disorderly one.
  public var cuts: [Cut] = []

  public init() {}
}
