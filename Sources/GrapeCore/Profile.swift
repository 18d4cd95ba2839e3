/// How an application runs: its pool of workers, its timeouts, its retries.
///
/// The text form is `profile.yaml`, or the section `profile` of `grape.yaml` (docs/manifest.md). A `Profile` may be
/// built in any state; `problems()` says what is wrong with it.
public struct Profile: Hashable, Sendable {
  /// Size of the pool.
  public var workers: Workers
  /// Waiting events per worker before another one is started.
  public var growThreshold: Int
  /// Most deliveries a worker holds unanswered.
  public var credits: Int
  /// Most bytes of record batches in one delivery; one batch is delivered whatever its size.
  public var batchBytes: Int
  /// Workers beyond the minimum stop after having had nothing to do for so long; zero: never.
  public var idleTimeout: Duration
  /// From a worker's start to its HELLO.
  public var startupTimeout: Duration
  /// The longest that a handler may work on one event.
  public var requestTimeout: Duration
  /// From being told to stop to being killed.
  public var terminationTimeout: Duration
  /// Interval at which a worker says that it lives; three missed ones and it is killed.
  public var heartbeat: Duration
  /// What happens to events whose handler failed.
  public var retry: Retry
  /// Most events that may wait in the input topic; 0: no limit.
  public var queueLimit: Int
  /// Consumed events older than this may be dropped from the input topic; zero: never by age.
  public var retentionAge: Duration
  /// A partition of the input topic larger than this may lose its oldest consumed events, bytes; 0: never by size.
  public var retentionSize: Int
  /// For how long requests with an idempotency key are remembered.
  public var idempotency: Idempotency
  /// For events that do not ask for one.
  public var durability: Durability
  /// What a crash may do to the effects of an event.
  public var guarantee: Guarantee
  /// With `atLeastOnce`: how long the log may not know how far the application is.
  public var commitInterval: Duration
  /// How workers pack the batches of what they emit.
  public var compression: BatchCompression
  /// Set for the workers. In order of name.
  public var environment: [Variable]
  /// Names of the node's own environment variables that workers get too.
  public var inheritEnvironment: [String]
  /// Most bytes kept of what the application logged.
  public var logBytes: Int

  /// The defaults.
  public init() {
    workers = Workers()
    growThreshold = 1000
    credits = 4
    batchBytes = 256 << 10
    idleTimeout = .seconds(60)
    startupTimeout = .seconds(10)
    requestTimeout = .seconds(30)
    terminationTimeout = .seconds(5)
    heartbeat = .seconds(2)
    retry = Retry()
    queueLimit = 0
    retentionAge = .zero
    retentionSize = 0
    idempotency = Idempotency()
    durability = .disk
    guarantee = .exactlyOnce
    commitInterval = .milliseconds(100)
    compression = .none
    environment = []
    inheritEnvironment = Self.defaultInheritedEnvironment
    logBytes = 10 << 20
  }

  /// Variables that programs need to find each other and to speak the user's language, and that carry no secrets.
  public static let defaultInheritedEnvironment = [
    "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ",
  ]

  /// Bounds of the pool.
  public struct Workers: Hashable, Sendable {
    /// Kept running even with nothing to do.
    public var min: Int
    /// Never more.
    public var max: Int

    public init(min: Int = 0, max: Int = 2) {
      self.min = min
      self.max = max
    }
  }

  /// How failed events are tried again.
  public struct Retry: Hashable, Sendable {
    /// Times an event is tried in all, before it becomes a dead letter.
    public var attempts: Int
    /// Wait before the second attempt; doubled before each further one.
    public var backoff: Duration
    /// The longest wait.
    public var maxBackoff: Duration

    public init(attempts: Int = 3, backoff: Duration = .milliseconds(200), maxBackoff: Duration = .seconds(30)) {
      self.attempts = attempts
      self.backoff = backoff
      self.maxBackoff = maxBackoff
    }
  }

  /// The window in which a request with an idempotency key is not run again: it ends with whichever bound comes first.
  public struct Idempotency: Hashable, Sendable {
    /// Age of the first request, at most.
    public var window: Duration
    /// Keys remembered, at most: the newest ones.
    public var keys: Int

    public init(window: Duration = .seconds(86400), keys: Int = 100_000) {
      self.window = window
      self.keys = keys
    }
  }

  /// How safe an event must be before it is acknowledged. The raw values are those of the protocol.
  public enum Durability: UInt8, Hashable, Sendable, CaseIterable, CustomStringConvertible {
    case memory = 1
    case os = 2
    case disk = 3

    /// Reads `memory`, `os` or `disk`.
    public init?(name: String) {
      guard let found = Self.allCases.first(where: { $0.description == name }) else { return nil }
      self = found
    }

    public var description: String {
      switch self {
      case .memory: "memory"
      case .os: "os"
      case .disk: "disk"
      }
    }
  }

  /// How often an event's effects (state, emitted events, replies) may come about.
  public enum Guarantee: String, Hashable, Sendable, CaseIterable, CustomStringConvertible {
    /// Once, whatever crashes: they and the progress are one commit.
    case exactlyOnce = "exactly-once"
    /// Once, but again after a crash for the events since progress was last committed.
    case atLeastOnce = "at-least-once"

    public var description: String { rawValue }
  }

  /// An environment variable.
  public struct Variable: Hashable, Sendable {
    public var name: String
    public var value: String

    public init(_ name: String, _ value: String) {
      self.name = name
      self.value = value
    }
  }
}
