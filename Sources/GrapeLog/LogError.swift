/// Why the log refused or failed.
public struct LogError: Error, Sendable, CustomStringConvertible {
  /// The kind of failure; new ones may be added.
  public struct Code: Hashable, Sendable, CustomStringConvertible {
    private enum Kind: String {
      case topicExists, noSuchTopic, noSuchPartition, offsetOutOfRange, invalidArgument, tooLarge, busy, noSpace,
        failed,
        corrupt, locked, unsupportedFormat, closed, partitionLost, outOfSequence, unauthorized, unknown
    }
    private let kind: Kind
    private init(_ kind: Kind) { self.kind = kind }
    public static let topicExists = Code(.topicExists)
    public static let noSuchTopic = Code(.noSuchTopic)
    public static let noSuchPartition = Code(.noSuchPartition)
    public static let offsetOutOfRange = Code(.offsetOutOfRange)
    public static let invalidArgument = Code(.invalidArgument)
    /// The transaction is larger than the log takes at once.
    public static let tooLarge = Code(.tooLarge)
    /// The queue of commits is full: try later.
    public static let busy = Code(.busy)
    /// The disk is nearly full: new records are refused while those there can still be worked on. Lasts until space is
    /// free again.
    public static let noSpace = Code(.noSpace)
    /// A write failed; the log takes no more commits until it is opened anew.
    public static let failed = Code(.failed)
    /// Bytes on the disk are not what was written.
    public static let corrupt = Code(.corrupt)
    /// Another process owns the data.
    public static let locked = Code(.locked)
    /// Written by a newer version.
    public static let unsupportedFormat = Code(.unsupportedFormat)
    public static let closed = Code(.closed)
    /// The partition has gone to another member of the consumer group; nothing was written.
    public static let partitionLost = Code(.partitionLost)
    /// A commit that this one builds on has failed; nothing was written.
    public static let outOfSequence = Code(.outOfSequence)
    /// The log's rules do not let this node create, change or describe a topic.
    public static let unauthorized = Code(.unauthorized)
    /// The commit was made or it was not; nobody can tell. The log goes on. What is committed of a consumer group's offsets says what became of
    /// those that had some.
    public static let unknown = Code(.unknown)
    public var description: String { kind.rawValue }
  }

  public var code: Code
  /// What, where, and what would be right.
  public var message: String

  public init(_ code: Code, _ message: String) {
    self.code = code
    self.message = message
  }

  public var description: String { "\(code): \(message)" }
}
