public import GrapeCore
public import GrapeLog
public import GrapeReactor
public import GrapeWorkers
public import Logging

/// A version of an application, as an engine runs it.
public struct Deployment: Sendable {
  public var manifest: Manifest
  /// Content hash of the package.
  public var version: String
  /// Where the package is unpacked.
  public var directory: String
  /// What each name that its handlers may emit leads to.
  public var routes: [Manifest.Target: [RouteDestination]] {
    didSet { externalTopics = Self.externalTopics(in: routes) }
  }
  /// Topics that are not Grape's and that the handlers may write to, with their numbers of partitions.
  public private(set) var externalTopics: [String: Int32]

  public init(manifest: Manifest, version: String, directory: String, routes: [Manifest.Target: [RouteDestination]]) {
    self.manifest = manifest
    self.version = version
    self.directory = directory
    self.routes = routes
    externalTopics = Self.externalTopics(in: routes)
  }

  private static func externalTopics(in routes: [Manifest.Target: [RouteDestination]]) -> [String: Int32] {
    var topics: [String: Int32] = [:]
    for destination in routes.values.joined() where destination.isExternal {
      topics[destination.topic] = destination.partitions
    }
    return topics
  }

  public var profile: Profile { manifest.profile }
}

/// What a topic is to one who sends a reply there.
public enum ReplyTopic: Sendable, Hashable {
  /// It takes replies, in so many partitions.
  case open(partitions: Int32)
  /// It took replies, and nobody can ask for them any more: the application that was called was removed.
  case abandoned
  /// It takes none.
  case none
}

/// Records of a partition, one after the other.
public struct LogRange: Sendable, Hashable {
  public var partition: TopicPartition
  public var offsets: Range<Int64>

  public init(_ partition: TopicPartition, _ offsets: Range<Int64>) {
    self.partition = partition
    self.offsets = offsets
  }
}

/// What engines share: the node around them. Lives on the reactor's thread.
public struct EngineEnvironment {
  public var reactor: Reactor
  public var gate: CommitGate
  public var flusher: ConnectionFlusher
  public var state: StateKeeper
  /// The node's name.
  public var node: String
  /// Which topics take replies.
  public var replies: (_ topic: String) -> ReplyTopic
  /// Bytes of key + value + headers of one event.
  public var eventLimit: Int
  /// Bytes of one frame.
  public var frameLimit: Int
  /// Bytes of a batch's records, unpacked.
  public var batchLimit: Int
  /// Handlers a chain of events may pass through.
  public var hopLimit: Int
  public var logger: Logger
  /// Other nodes may work on the log. Partitions come and go then; and a commit can fail while others after it succeed: its
  /// partition begins again from the last one that did not.
  public var sharesLog = false
  /// Told when a commit was refused because some topic is not there: the reply topics in it.
  public var repliesRefused: (_ topics: [String]) -> Void = { _ in }
  /// Told of replies, before they are committed, that come of certain events and of which nothing else depends: whoever waits here for one
  /// of these events may have them now. True: nobody waits for any of them any more.
  public var repliesAhead: (_ replies: Transaction.Append, _ events: LogRange) -> Bool = { _, _ in false }
  /// What is too long for a view of state that goes on meanwhile.
  var longViews = LongViews.Limit()
  /// The engine whose input topic this is, if any.
  public var engine: (_ topic: String) -> ApplicationEngine?
  /// How to start a worker: program, environment, folder.
  public var launch: (Deployment, _ worker: String, _ token: String) throws(StatusError) -> WorkerLaunch
  /// Starts it.
  public var start: WorkerStarter
  /// Each engine takes its random numbers from a copy.
  public var random: any RandomNumberGenerator

  public init(
    reactor: Reactor, gate: CommitGate, flusher: ConnectionFlusher, state: StateKeeper, node: String,
    replies: @escaping (_ topic: String) -> ReplyTopic, eventLimit: Int, frameLimit: Int, batchLimit: Int,
    hopLimit: Int, logger: Logger,
    engine: @escaping (_ topic: String) -> ApplicationEngine?,
    launch: @escaping (Deployment, _ worker: String, _ token: String) throws(StatusError) -> WorkerLaunch,
    start: @escaping WorkerStarter = { (launch, reactor, onLine, onExit) throws(SystemError) in
      try WorkerProcess(launch, reactor: reactor, onLine: onLine, onExit: onExit)
    }, random: any RandomNumberGenerator = SystemRandomNumberGenerator()
  ) {
    self.reactor = reactor
    self.gate = gate
    self.flusher = flusher
    self.state = state
    self.node = node
    self.replies = replies
    self.eventLimit = eventLimit
    self.frameLimit = frameLimit
    self.batchLimit = batchLimit
    self.hopLimit = hopLimit
    self.logger = logger
    self.engine = engine
    self.launch = launch
    self.start = start
    self.random = random
  }
}
