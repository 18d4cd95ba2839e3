/// Why bytes could not be taken as what they were given for.
public struct WireError: Error, Sendable, CustomStringConvertible {
  /// The kind of failure; new ones may be added.
  public struct Code: Hashable, Sendable, CustomStringConvertible {
    private enum Kind: String { case truncated, malformed, tooLarge, checksum, unsupported, outOfMemory }
    private let kind: Kind
    private init(_ kind: Kind) { self.kind = kind }
    /// The bytes end before the value does.
    public static let truncated = Code(.truncated)
    /// The bytes break a rule of the format.
    public static let malformed = Code(.malformed)
    /// A length passes its limit.
    public static let tooLarge = Code(.tooLarge)
    /// The CRC does not fit the bytes.
    public static let checksum = Code(.checksum)
    /// Legal in the format, not taken here (a codec, a batch of transaction markers).
    public static let unsupported = Code(.unsupported)
    public var description: String { kind.rawValue }
  }

  public var code: Code
  /// What is wrong, where, and what would be right.
  public var message: String

  public init(_ code: Code, _ message: String) {
    self.code = code
    self.message = message
  }

  public var description: String { "\(code): \(message)" }
}
