/// Who sends, across connections: a source numbers its connections, and the node lets only the one with the highest number
/// send (docs/protocol.md, "Sources").
public struct SourceEpoch: Hashable, Sendable, CustomStringConvertible {
  /// 1 to 64 bytes of UTF-8, unlike all others: random, as a rule.
  public var id: String
  /// Greater with every connection.
  public var epoch: Int64

  /// Bytes that an id may have.
  public static let idLimit = 64

  public init(id: String, epoch: Int64) {
    self.id = id
    self.epoch = epoch
  }

  public var description: String { "\(id), epoch \(epoch)" }
}
