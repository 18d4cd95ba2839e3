/// Why a client and its node do not understand each other, as opposed to an answer with a status (`StatusError`).
public struct ClientError: Error, Sendable, CustomStringConvertible {
  /// The kind of failure; new ones may be added.
  public struct Code: Hashable, Sendable, CustomStringConvertible {
    private enum Kind: String {
      case unreachable, disconnected, protocolViolation, refused, fenced, deadlineExceeded, interrupted, closed
    }
    private let kind: Kind
    private init(_ kind: Kind) { self.kind = kind }
    /// Nothing answers at the node's path.
    public static let unreachable = Code(.unreachable)
    /// The connection ended while something was outstanding.
    public static let disconnected = Code(.disconnected)
    /// The node sent what docs/protocol.md does not allow.
    public static let protocolViolation = Code(.protocolViolation)
    /// The node said why it closes the connection.
    public static let refused = Code(.refused)
    /// Another connection of the same source has taken over.
    public static let fenced = Code(.fenced)
    /// The time ran out at the client's side.
    public static let deadlineExceeded = Code(.deadlineExceeded)
    /// The interrupt descriptor became readable.
    public static let interrupted = Code(.interrupted)
    /// The client was closed by its owner.
    public static let closed = Code(.closed)
    public var description: String { kind.rawValue }
  }

  public var code: Code
  /// What happened, where, and what to do.
  public var message: String

  public init(_ code: Code, _ message: String) {
    self.code = code
    self.message = message
  }

  public var description: String { message }
}
