/// How a request or an event ended: the status codes of docs/protocol.md.
public struct Status: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
  public var rawValue: UInt16
  public init(rawValue: UInt16) { self.rawValue = rawValue }

  public static let ok = Status(rawValue: 0)
  /// The handler ran and failed; code and message are its own.
  public static let handlerError = Status(rawValue: 1)
  public static let noSuchApp = Status(rawValue: 2)
  public static let noSuchSlot = Status(rawValue: 3)
  public static let queueFull = Status(rawValue: 4)
  public static let deadlineExceeded = Status(rawValue: 5)
  public static let tooLarge = Status(rawValue: 6)
  /// Tried as often as the profile allows.
  public static let gaveUp = Status(rawValue: 7)
  public static let unavailable = Status(rawValue: 8)
  public static let badRequest = Status(rawValue: 9)
  public static let unauthorized = Status(rawValue: 10)
  public static let `internal` = Status(rawValue: 11)
  public static let conflict = Status(rawValue: 12)
  public static let unsupportedVersion = Status(rawValue: 13)
  public static let missingSlot = Status(rawValue: 14)
  public static let notFound = Status(rawValue: 15)
  public static let offsetOutOfRange = Status(rawValue: 16)
  public static let hopLimit = Status(rawValue: 17)
  /// A later connection of the same source has taken over.
  public static let fenced = Status(rawValue: 18)

  private static let names = [
    "ok", "handler-error", "no-such-app", "no-such-slot", "queue-full", "deadline-exceeded", "too-large", "gave-up",
    "unavailable", "bad-request", "unauthorized", "internal", "conflict", "unsupported-version", "missing-slot",
    "not-found", "offset-out-of-range", "hop-limit", "fenced",
  ]

  /// The status's name, as in docs/protocol.md; `status-N` for one that this version does not know.
  public var name: String {
    Int(rawValue) < Self.names.count ? Self.names[Int(rawValue)] : "status-\(rawValue)"
  }

  public var description: String { name }
}

/// Whether the handler of an event ran: what a caller must know before it repeats one.
public enum Ran: UInt8, Sendable {
  /// It never was and never will be started.
  case never = 0
  case yes = 1
  /// It may have run.
  case unknown = 2

  /// As in JSON output.
  public var name: String {
    switch self {
    case .never: "never"
    case .yes: "yes"
    case .unknown: "unknown"
    }
  }
}

/// A request that ended with another status than ok.
public struct StatusError: Error, Sendable, Hashable, CustomStringConvertible {
  public var status: Status
  /// The handler's own code; 0 where no handler was involved.
  public var code: Int32
  /// What, where, and what would be right.
  public var message: String
  public var ran: Ran

  public init(_ status: Status, _ message: String, code: Int32 = 0, ran: Ran = .never) {
    self.status = status
    self.code = code
    self.message = message
    self.ran = ran
  }

  public var description: String {
    message.isEmpty ? status.name : "\(status.name): \(message)"
  }
}
