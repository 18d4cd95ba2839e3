public import GrapeCore
public import Logging

/// How a node is set up.
public struct NodeConfiguration: Sendable {
  /// Everything that the node keeps lies here; created if missing.
  public var dataDirectory: String
  /// The socket that clients and workers connect to; nil: `node.sock` in the data directory.
  public var socketPath: String?
  /// Names the node in a cluster, and its reply topic.
  public var name: NodeName
  /// Where the node says what it does.
  public var logger: Logger
  /// The log that it works on. The next three are of the embedded one.
  public var log: NodeLogChoice
  /// Bytes of one segment file of the log.
  public var segmentBytes: Int
  /// Bytes of recent batches kept in memory for readers that keep up.
  public var cacheBytes: Int
  /// With fewer bytes free on the disk new events are refused, while work on those that are there goes on; nil: two
  /// segments.
  public var lowSpaceBytes: Int64?
  /// Bytes of key + value + headers of one event.
  public var eventLimit: Int
  /// Handlers that a chain of events may pass through.
  public var hopLimit: Int
  /// Once stopping, the node waits this long for workers to finish what they hold.
  public var shutdownTimeout: Duration

  public init(
    dataDirectory: String, socketPath: String? = nil, name: NodeName, logger: Logger,
    log: NodeLogChoice = .embedded, segmentBytes: Int = 64 * 1024 * 1024, cacheBytes: Int = 32 * 1024 * 1024,
    lowSpaceBytes: Int64? = nil,
    eventLimit: Int = 8 * 1024 * 1024,
    hopLimit: Int = 64, shutdownTimeout: Duration = .seconds(20)
  ) {
    self.dataDirectory = dataDirectory
    self.socketPath = socketPath
    self.name = name
    self.logger = logger
    self.log = log
    self.segmentBytes = segmentBytes
    self.cacheBytes = cacheBytes
    self.lowSpaceBytes = lowSpaceBytes
    self.eventLimit = eventLimit
    self.hopLimit = hopLimit
    self.shutdownTimeout = shutdownTimeout
  }

  /// Where the socket is.
  public var socket: String { socketPath ?? dataDirectory + "/node.sock" }
}

/// Why a node could not be started, or ended.
public struct NodeError: Error, Sendable, CustomStringConvertible {
  public var message: String
  public init(_ message: String) { self.message = message }
  public var description: String { message }
}
