/// Why a text is not a name.
public struct NameError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The text that was given.
  public var text: String
  /// What is wrong, where, and what would be right.
  public var message: String

  public init(text: String, message: String) {
    self.text = text
    self.message = message
  }

  public var description: String { message }
}

/// Name of an application: `[a-z][a-z0-9-]{0,62}`.
public struct AppName: Hashable, Comparable, Sendable, CustomStringConvertible {
  /// Longest name, in bytes.
  public static let maximumLength = 63

  public let text: String

  /// Checks the name; a `NameError` says what is wrong with it.
  public init(_ text: String) throws(NameError) {
    try NameRule.application.check(text)
    self.text = text
  }

  /// The topic that holds the application's events, its input.
  public var eventsTopic: String { text + ".events" }

  /// The topic that takes the events which the application gave up on.
  public var deadLettersTopic: String { text + ".dead" }

  /// The changelog of the application's state.
  public var stateTopic: String { text + ".state" }

  /// The topic that takes writes of the application's state from outside.
  public var writesTopic: String { text + ".writes" }

  /// The topic that remembers requests with an idempotency key, and takes their replies.
  public var requestsTopic: String { text + Self.requestsSuffix }

  /// How the names of such topics end.
  public static let requestsSuffix = ".requests"

  /// The application whose input `topic` is; nil if it is no input topic.
  public init?(eventsTopic topic: String) {
    guard topic.hasSuffix(".events"), let name = try? AppName(String(topic.dropLast(7))) else { return nil }
    self = name
  }

  public var description: String { text }
  public static func < (left: AppName, right: AppName) -> Bool { left.text < right.text }
}

/// Name of an event, which is that of the slot or signal it is meant for: `[a-z][a-z0-9_.-]{0,126}`.
public struct EventName: Hashable, Comparable, Sendable, CustomStringConvertible {
  /// Longest name, in bytes.
  public static let maximumLength = 127

  public let text: String

  /// Checks the name; a `NameError` says what is wrong with it.
  public init(_ text: String) throws(NameError) {
    try NameRule.event.check(text)
    self.text = text
  }

  public var description: String { text }
  public static func < (left: EventName, right: EventName) -> Bool { left.text < right.text }
}

/// Where an event goes: `app@event`.
public struct EventAddress: Hashable, Comparable, Sendable, CustomStringConvertible {
  public let app: AppName
  public let event: EventName

  public init(app: AppName, event: EventName) {
    self.app = app
    self.event = event
  }

  /// Takes `app@event` apart; a `NameError` says which half is wrong.
  public init(_ text: String) throws(NameError) {
    guard let at = text.utf8.firstIndex(of: UInt8(ascii: "@")) else {
      throw NameError(
        text: text,
        message: "\(text.quotedForMessage) is no event address: write APPLICATION@EVENT, for instance flights@raw")
    }
    do throws(NameError) {
      app = try AppName(String(text[..<at]))
      event = try EventName(String(text[text.utf8.index(after: at)...]))
    } catch {
      throw NameError(text: text, message: "event address \(text.quotedForMessage): \(error.message)")
    }
  }

  public var text: String { "\(app.text)@\(event.text)" }
  public var description: String { text }

  public static func < (left: EventAddress, right: EventAddress) -> Bool {
    (left.app, left.event) < (right.app, right.event)
  }
}

/// Name of a node: `[a-z0-9][a-z0-9-]{0,62}`.
public struct NodeName: Hashable, Comparable, Sendable, CustomStringConvertible {
  /// Longest name, in bytes.
  public static let maximumLength = 63

  public let text: String

  /// Checks the name; a `NameError` says what is wrong with it.
  public init(_ text: String) throws(NameError) {
    try NameRule.node.check(text)
    self.text = text
  }

  /// The topic in which the node receives the replies its clients wait for.
  public var repliesTopic: String { Self.repliesPrefix + text }

  private static let repliesPrefix = "_grape.replies."

  /// The node whose reply topic this is.
  public init?(repliesTopic topic: String) {
    guard topic.hasPrefix(Self.repliesPrefix),
      let name = try? NodeName(String(topic.dropFirst(Self.repliesPrefix.count)))
    else { return nil }
    self = name
  }

  public var description: String { text }
  public static func < (left: NodeName, right: NodeName) -> Bool { left.text < right.text }
}

/// Topics that belong to no application.
public enum SystemTopic {
  /// Deployed packages, manifests and profiles.
  public static let registry = "_grape.registry"
  /// What the nodes that share the log say of themselves.
  public static let nodes = "_grape.nodes"
}
