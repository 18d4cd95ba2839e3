/// Name of a topic of the log that Grape has not made for itself: 1 to 249 of `[a-zA-Z0-9._-]`.
///
/// Names are those of Kafka, so that every topic there can be named. Whether a name is one of Grape's own is a
/// question of what is deployed: `orders.events` belongs to the application `orders` if there is one.
public struct TopicName: Hashable, Comparable, Sendable, CustomStringConvertible {
  /// Longest name, in bytes.
  public static let maximumLength = 249
  /// How the names of topics begin that belong to no application.
  public static let systemPrefix = "_grape."

  public let text: String

  /// Checks the name; a `NameError` says what is wrong with it.
  public init(_ text: String) throws(NameError) {
    guard !text.isEmpty else {
      throw NameError(text: text, message: "the topic's name is empty: write a name such as orders")
    }
    guard text.utf8.count <= Self.maximumLength else {
      throw NameError(
        text: text,
        message: "topic name \(text.quotedForMessage) has \(text.utf8.count) characters: at most "
          + "\(Self.maximumLength) are allowed")
    }
    guard text.utf8.allSatisfy(Self.allows), text != ".", text != ".." else {
      throw NameError(
        text: text,
        message: "topic name \(text.quotedForMessage): use letters, digits, \".\", \"_\" and \"-\", for instance orders"
      )
    }
    self.text = text
  }

  private static func allows(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
      true
    default: false
    }
  }

  /// Whether the topic belongs to the nodes themselves.
  public var isSystem: Bool { text.hasPrefix(Self.systemPrefix) }

  /// Whether topics of this name are never made by Grape, whatever is deployed, in this or in another namespace.
  public static func isExternal(_ name: String) -> Bool {
    !name.contains(systemPrefix) && !AppName.topicSuffixes.contains { name.hasSuffix($0) }
  }

  /// The application whose topic this would be; nil: that of none, whatever is deployed.
  public var possibleOwner: AppName? {
    for suffix in AppName.topicSuffixes where text.hasSuffix(suffix) {
      return try? AppName(String(text.dropLast(suffix.count)))
    }
    return nil
  }

  public var description: String { text }
  public static func < (left: TopicName, right: TopicName) -> Bool { left.text < right.text }
}

extension AppName {
  /// How the names of an application's topics end.
  static let topicSuffixes = [".events", ".dead", ".state", ".writes", requestsSuffix]

  /// Every topic of the application.
  public var topics: [String] { Self.topicSuffixes.map { text + $0 } }

  /// The consumer group in which the application reads its sources: topics that are not Grape's.
  public var sourcesGroup: String { text + ".sources" }
}
