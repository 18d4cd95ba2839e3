public import GrapeCore

/// Which log a node works on, as people write it: `embedded`, or `kafka://host:port,host:port/namespace`.
public enum LogAddress: Hashable, Sendable, CustomStringConvertible {
  /// The node's own.
  case embedded
  /// A cluster's: `host:port`, separated by commas.
  case kafka(brokers: String)

  /// Reads an address, and the namespace if it names one. Errors say what would be right.
  public static func parse(_ text: String) throws(QuantityError) -> (address: LogAddress, namespace: String?) {
    if text == "embedded" { return (.embedded, nil) }
    let prefix = "kafka://"
    guard text.hasPrefix(prefix) else {
      throw QuantityError(
        "\(text.quotedForMessage) is no log: write embedded, or kafka://host:9092,host:9092/namespace")
    }
    let parts = text.dropFirst(prefix.count).split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    let brokers = String(parts.first ?? "")
    for broker in brokers.split(separator: ",", omittingEmptySubsequences: false) { try check(broker: String(broker)) }
    guard parts.count > 1, !parts[1].isEmpty else { return (.kafka(brokers: brokers), nil) }
    let namespace = String(parts[1])
    try check(namespace: namespace)
    return (.kafka(brokers: brokers), namespace)
  }

  /// The longest namespace: names of topics of applications have room behind it.
  private static let namespaceLimit = 100

  /// Checks that topics may begin with this.
  static func check(namespace: String) throws(QuantityError) {
    let allowed = namespace.utf8.allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
        true
      default: false
      }
    }
    guard allowed, (1...namespaceLimit).contains(namespace.utf8.count) else {
      throw QuantityError(
        "\(namespace.quotedForMessage) is no namespace: names of topics begin with it, so it has 1 to \(namespaceLimit) "
          + "letters, digits, \".\", \"_\" or \"-\"")
    }
  }

  private static func check(broker: String) throws(QuantityError) {
    guard !broker.isEmpty else {
      throw QuantityError(
        "a broker's name is empty: kafka:// is followed by brokers, as in kafka://host:9092,host:9092")
    }
    // Names and passwords do not belong into an address, which is shown and logged.
    if broker.contains("@") {
      throw QuantityError(
        "a broker is a host and a port; a user's name is the setting sasl.username, a password the secret sasl.password"
      )
    }
    guard broker.utf8.allSatisfy({ 0x21...0x7e ~= $0 }) else {
      throw QuantityError("\(broker.quotedForMessage) is no broker: write host:port, without spaces")
    }
    // An IPv6 address stands in brackets.
    let host = broker.hasPrefix("[") ? broker.drop { $0 != "]" }.dropFirst() : broker.drop { $0 != ":" }
    guard broker.first != ":", !broker.hasPrefix("[") || broker.contains("]") else {
      throw QuantityError("\(broker.quotedForMessage) is no broker: write host:port, for instance kafka-1:9092")
    }
    if host.isEmpty { return }
    guard host.first == ":", let port = Int(host.dropFirst()), (1...65_535).contains(port) else {
      throw QuantityError(
        "\(broker.quotedForMessage) is no broker: write host:port with a port from 1 to 65535, for instance kafka-1:9092"
      )
    }
  }

  public var description: String {
    switch self {
    case .embedded: "embedded"
    case .kafka(let brokers): "kafka://\(brokers)"
    }
  }
}
