/// Why state could not be read or written.
public struct StateError: Error, Hashable, Sendable, CustomStringConvertible {
  public enum Code: String, Sendable {
    /// A name, key, value, tag or time that is not allowed.
    case invalidArgument
    /// Larger than the limits allow.
    case tooLarge
    /// Bytes that are not what docs/data-format.md says.
    case corrupt
    /// A newer format than this program knows.
    case unsupported
    /// The system refused: a file, memory, space.
    case system
    /// The map must be taken over in its new size first.
    case mapResized
    /// The map must grow first.
    case mapFull
    /// There is no such file.
    case notFound
    /// The value cannot be read as the type that was asked for, or written from it.
    case typeMismatch
    /// Not possible here or now: no event is being handled, or the store is closed.
    case unavailable
  }

  public var code: Code
  /// What was wrong, where, and what would be right.
  public var message: String

  public init(_ code: Code, _ message: String) {
    self.code = code
    self.message = message
  }

  public var description: String { "\(message) (\(code.rawValue))" }
}
