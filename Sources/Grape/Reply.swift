public import GrapeWire

/// What a handler returns to answer the caller that waits for the event. If nobody waits it is dropped.
public struct Reply: Sendable {
  /// The data; nil is null, which differs from empty.
  public var data: ByteSlice?

  /// Answers with `data`, which is copied unless it is a `ByteSlice`.
  public init(_ data: some EventData) {
    if let slice = data as? ByteSlice {
      self.data = slice
    } else {
      self.data = data.withEventBytes { bytes in bytes.map { ByteSlice(copying: $0) } }
    }
  }

  /// Answers without data.
  public init() { data = nil }
}

/// Thrown by a handler: the event is refused for good. A waiting caller gets code and message, any other event becomes a dead letter.
public struct Reject: Error, Sendable, CustomStringConvertible {
  /// The handler's own code, for the caller.
  public var code: Int32
  public var message: String

  public init(code: Int32 = 1, message: String = "") {
    self.code = code
    self.message = message
  }

  public var description: String { message.isEmpty ? "rejected with code \(code)" : message }
}

/// Thrown by a handler: the event is to be run again later, with all that follow it in its partition.
public struct Retry: Error, Sendable, CustomStringConvertible {
  /// Not before this time has passed; zero leaves it to the profile's backoff. At most 49 days.
  public var after: Duration
  public var message: String

  public init(after: Duration = .zero, message: String = "") {
    self.after = after
    self.message = message
  }

  public var description: String { message.isEmpty ? "to be retried" : message }

  /// Rounded up: never earlier than asked for.
  var milliseconds: UInt32 {
    let (seconds, attoseconds) = after.components
    guard seconds >= 0, attoseconds >= 0 else { return 0 }
    guard seconds < 4_294_967 else { return .max }
    return UInt32(seconds * 1000) + UInt32((attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000)
  }
}

/// Why an event could not be emitted, or a reply not be sent.
public struct EmitError: Error, Sendable, Hashable, CustomStringConvertible {
  /// The kind of failure; new ones may be added.
  public struct Code: Hashable, Sendable, CustomStringConvertible {
    private enum Kind: String { case unknownSignal, tooLarge, hopLimit, outsideEvent, alreadyReplied, reservedHeader }
    private let kind: Kind
    private init(_ kind: Kind) { self.kind = kind }
    /// The application's manifest does not say that it emits an event of that name.
    public static let unknownSignal = Code(.unknownSignal)
    /// The event, or all that the handler emits for one event, is larger than the node takes.
    public static let tooLarge = Code(.tooLarge)
    /// The event has passed through more handlers than the node allows: most likely a loop.
    public static let hopLimit = Code(.hopLimit)
    /// The context is used where no event is being handled: after its handler returned, or in `onStart` or `onStop`.
    public static let outsideEvent = Code(.outsideEvent)
    /// The final reply was sent before.
    public static let alreadyReplied = Code(.alreadyReplied)
    /// Header names that begin with `g.` belong to Grape.
    public static let reservedHeader = Code(.reservedHeader)
    public var description: String { kind.rawValue }
  }

  public var code: Code
  /// What is wrong, and what would be right.
  public var message: String

  init(_ code: Code, _ message: String) {
    self.code = code
    self.message = message
  }

  public var description: String { message }
}
