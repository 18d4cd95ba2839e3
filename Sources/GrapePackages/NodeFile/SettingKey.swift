public import GrapeCore

/// A setting with a single value: the same name and meaning in the file, in the environment and as an option.
public struct SettingKey: Sendable {
  /// The place in the file: `["kafka", "commit-interval"]`.
  public let path: [String]
  /// A value that would be right, for messages.
  let example: String
  private let apply: @Sendable (inout NodeSettings, Placed<String>) throws(QuantityError) -> Void

  /// `kafka.commit-interval`
  public var name: String { path.joined(separator: ".") }

  /// The variable of the environment: `GRAPE_SERVE_KAFKA_COMMIT_INTERVAL`.
  public var variable: String {
    Self.variablePrefix + path.joined(separator: "_").uppercased().map { $0 == "-" ? "_" : String($0) }.joined()
  }

  /// What the names of all variables begin with.
  public static let variablePrefix = "GRAPE_SERVE_"

  /// Gives the setting a value. Errors say what would be right.
  public func set(_ text: String, at place: String, in settings: inout NodeSettings) throws(QuantityError) {
    try apply(&settings, Placed(text, place))
  }

  /// All of them, in the order of the documentation.
  public static let all: [SettingKey] = [
    text("data", "/var/lib/grape", \.data),
    text("socket", "/run/grape/node.sock", \.socket),
    key("name", "n1", \.name) { text throws(QuantityError) in
      do throws(NameError) { return try NodeName(text).text } catch { throw QuantityError(error.message) }
    },
    SettingKey(path: ["log"], example: "kafka://kafka-1:9092,kafka-2:9092") { settings, given throws(QuantityError) in
      let (address, namespace) = try LogAddress.parse(given.value)
      settings.log = Placed(address, given.place)
      if let namespace { try settings.setNamespace(Placed(namespace, given.place)) }
    },
    key("log-level", "info", \.logLevel) { text throws(QuantityError) in try oneOf(levels, text) },
    key("log-format", "json", \.logFormat) { text throws(QuantityError) in
      LogFormat(rawValue: try oneOf(LogFormat.allCases.map(\.rawValue), text)) ?? .text
    },
    key("segment-size", "256MiB", \.segmentSize) { text throws(QuantityError) in
      try bytes(text, 1 << 20...8 << 30)
    },
    key("low-space", "1GiB", \.lowSpace) { text throws(QuantityError) in try bytes(text, 0...1 << 50) },
    SettingKey(path: ["kafka", "namespace"], example: "shop.") { settings, given throws(QuantityError) in
      try LogAddress.check(namespace: given.value)
      try settings.setNamespace(given)
    },
    key("kafka.external-namespace", "team.", \.kafka.externalNamespace) { text throws(QuantityError) in
      try LogAddress.check(namespace: text)
      return text
    },
    key("kafka.replication", "3", \.kafka.replication) { text throws(QuantityError) in
      guard let copies = Int(text), (1...1_000).contains(copies) else {
        throw QuantityError(
          "\(text.quotedForMessage) is no number of copies: write 1 to 1000, or leave it out for what the brokers do")
      }
      return copies
    },
    duration("kafka.request-timeout", \.kafka.requestTimeout, .milliseconds(100) ... .seconds(900)),
    duration("kafka.commit-timeout", \.kafka.commitTimeout, .seconds(2) ... .seconds(900)),
    duration("kafka.commit-interval", \.kafka.commitInterval, .zero ... .seconds(30)),
    key("kafka.commit-size", "8MiB", \.kafka.commitSize) { text throws(QuantityError) in
      try bytes(text, 1 << 10...1 << 30)
    },
    duration("kafka.transaction-timeout", \.kafka.transactionTimeout, .seconds(1) ... .seconds(900)),
    duration("kafka.session-timeout", \.kafka.sessionTimeout, .seconds(1) ... .seconds(1_800)),
    duration("kafka.revocation-timeout", \.kafka.revocationTimeout, .milliseconds(100) ... .seconds(900)),
  ]

  /// The setting of this name.
  public static func named(_ name: String) -> SettingKey? { all.first { $0.name == name } }

  private static let levels = ["trace", "debug", "info", "notice", "warning", "error", "critical"]
}

extension SettingKey {
  private typealias Field<Value: Hashable & Sendable> = any WritableKeyPath<NodeSettings, Placed<Value>?> & Sendable

  private static func key<Value: Hashable & Sendable>(
    _ name: String, _ example: String, _ field: Field<Value>,
    _ read: @escaping @Sendable (String) throws(QuantityError) -> Value
  ) -> SettingKey {
    SettingKey(path: name.split(separator: ".").map(String.init), example: example) {
      settings, given throws(QuantityError) in
      settings[keyPath: field] = Placed(try read(given.value), given.place)
    }
  }

  private static func text(
    _ name: String, _ example: String, _ field: Field<String>
  ) -> SettingKey {
    key(name, example, field) { text throws(QuantityError) in
      guard !text.isEmpty else { throw QuantityError("is empty: write a path, for instance \(example)") }
      return text
    }
  }

  private static func duration(
    _ name: String, _ field: Field<Duration>, _ range: ClosedRange<Duration>
  ) -> SettingKey {
    key(name, DurationText.format(range.upperBound), field) { text throws(QuantityError) in
      let duration = try DurationText.parse(text)
      guard range.contains(duration), duration.wholeNanoseconds % 1_000_000 == 0 else {
        throw QuantityError(
          "\(text.quotedForMessage) is not possible: use \(DurationText.format(range.lowerBound)) to "
            + "\(DurationText.format(range.upperBound)), in whole milliseconds")
      }
      return duration
    }
  }

  private static func bytes(_ text: String, _ range: ClosedRange<Int>) throws(QuantityError) -> Int {
    let count = try ByteCountText.parse(text)
    guard range.contains(count) else {
      throw QuantityError(
        "\(text.quotedForMessage) is not possible: use \(ByteCountText.format(range.lowerBound)) to "
          + ByteCountText.format(range.upperBound))
    }
    return count
  }

  private static func oneOf(_ choices: [String], _ text: String) throws(QuantityError) -> String {
    guard choices.contains(text) else {
      throw QuantityError("\(text.quotedForMessage) is not known\(Suggestion.hint(for: text, among: choices))")
    }
    return text
  }
}

extension NodeSettings {
  /// The address of the log may name the namespace, too; two different ones at once are a mistake.
  fileprivate mutating func setNamespace(_ namespace: Placed<String>) throws(QuantityError) {
    if let other = kafka.namespace, other.value != namespace.value {
      throw QuantityError(
        "the namespace is \(namespace.value.quotedForMessage) here and \(other.value.quotedForMessage) at "
          + "\(other.place): keep one of them")
    }
    kafka.namespace = namespace
  }
}
