internal import GrapeCore

/// What a data directory says about the log that its node works on. State in it, and unpacked packages, are those of
/// that log: with another one they would be wrong, or the node would start with nothing and nobody would notice.
public enum LogMarker {
  /// In the data directory of a node on Kafka.
  private static let file = "kafka.json"
  /// The embedded log's own folder.
  private static let folder = "log"

  /// The namespace on a cluster that the data directory belongs to; nil: to none.
  public static func namespace(in directory: String) throws(NodeError) -> String? {
    let path = directory + "/" + file
    guard Files.exists(path) else { return nil }
    let content = String(decoding: try Files.read(path), as: UTF8.self)
    guard let json = try? JSONValue(parsing: content), let namespace = json["namespace"]?.string else {
      throw NodeError("\(path) says which log the data is of, and cannot be understood; put it back from a backup")
    }
    return namespace
  }

  /// Checks that the data directory belongs to this log, or to none yet. `namespace` nil: the embedded log.
  static func check(_ directory: String, namespace: String?) throws(NodeError) {
    let owner = try self.namespace(in: directory)
    switch (owner, namespace) {
    case (let owner?, nil):
      throw NodeError(
        "\(directory) is of a node on Kafka (namespace \(owner.quotedForMessage)), and the log now asked for is the "
          + "embedded one: name the cluster (log: in the configuration file, --log), or another data directory")
    case (let owner?, let namespace?) where owner != namespace:
      throw NodeError(
        "\(directory) is of a node in the namespace \(owner.quotedForMessage), and \(namespace.quotedForMessage) is now "
          + "asked for: name the one it had, or another data directory")
    case (nil, .some) where Files.exists(directory + "/" + folder):
      throw NodeError(
        "\(directory) is of a node with the embedded log, and a log on Kafka is now asked for: name another data "
          + "directory")
    default: break
    }
  }

  /// Notes that the data directory belongs to a namespace on a cluster.
  static func write(_ directory: String, namespace: String) throws(NodeError) {
    let content = JSONValue.object([.init("namespace", .string(namespace))]).utf8 + [0x0a]
    var failure: NodeError?
    content.withUnsafeBytes { bytes in
      do throws(NodeError) { try Files.write(bytes, to: directory + "/" + file) } catch { failure = error }
    }
    if let failure { throw failure }
  }
}
