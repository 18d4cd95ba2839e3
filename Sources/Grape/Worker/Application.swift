internal import Synchronization

/// An application's handlers, and the worker process that runs them.
///
/// ```swift
/// import Grape
///
/// let app = Application()
/// app.on("received") { event, context in
///   try context.emit("greeted", "Hello, \(event.text)", key: event.key)
/// }
/// try await app.run()
/// ```
///
/// Handlers run one at a time on one thread of the worker. An `async` handler gives way to events of *other*
/// partitions while it is suspended; events of one partition never overlap. State that handlers share between
/// events is best kept in a `Mutex` of the standard library's `Synchronization` module.
public final class Application: Sendable {
  struct Registry {
    var handlers: [(name: String, handler: Handler)] = []
    var signals: [Signal] = []
    var start: [LifecycleHandler] = []
    var stop: [LifecycleHandler] = []
    var isRunning = false
  }

  typealias LifecycleHandler = @Sendable (Context) async throws -> Void

  let registry = Mutex(Registry())

  /// Creates an application without handlers.
  public init() {}

  /// Handles the events called `name` with a closure that does not suspend: the fastest way.
  ///
  /// What it returns answers the caller that waits for the event, if there is one: a `Reply`, or anything that is
  /// `EventData` (text, bytes). A closure that returns nothing answers with an empty reply, unless it replied by way of the
  /// context or emitted an event, which then may answer. To refuse an event throw `Reject`, to have it run again
  /// later throw `Retry`; any other error counts as an unexpected failure, which is retried as the profile says.
  ///
  /// - Precondition: `name` is a legal event name that has no handler yet, and `Output` is one of the above.
  @inlinable
  public func on<Output>(_ name: String, _ handler: @escaping @Sendable (Event, Context) throws -> Output) {
    add(name, Handler(handler))
  }

  /// Handles the events called `name` with a closure that may suspend. See the other `on`.
  @inlinable
  public func on<Output>(_ name: String, _ handler: @escaping @Sendable (Event, Context) async throws -> Output) {
    add(name, Handler(handler))
  }

  /// Handles the events called `name` with a closure that answers some of them: nil is no answer of its own.
  @_disfavoredOverload
  @inlinable
  public func on(_ name: String, _ handler: @escaping @Sendable (Event, Context) throws -> Reply?) {
    add(name, Handler(handler))
  }

  /// Handles the events called `name` with a closure that may suspend and answers some of them.
  @_disfavoredOverload
  @inlinable
  public func on(_ name: String, _ handler: @escaping @Sendable (Event, Context) async throws -> Reply?) {
    add(name, Handler(handler))
  }

  /// A handle for emitting events called `name`, which spares looking the name up for each of them.
  public func signal(_ name: String) -> Signal {
    registry.withLock { registry in
      if let known = registry.signals.first(where: { $0.name == name }) { return known }
      let signal = Signal(name: name, index: registry.signals.count)
      registry.signals.append(signal)
      return signal
    }
  }

  /// Runs `handler` once before the first event, in order of registration. If it throws, the worker ends with status 1.
  public func onStart(_ handler: @escaping @Sendable (Context) async throws -> Void) {
    registry.withLock { $0.start.append(handler) }
  }

  /// Runs `handler` once after the last event, when the node asks the worker to end. An error is reported, no more.
  public func onStop(_ handler: @escaping @Sendable (Context) async throws -> Void) {
    registry.withLock { $0.stop.append(handler) }
  }

  @usableFromInline
  func add(_ name: String, _ handler: Handler) {
    precondition(
      EventName.isLegal(name),
      "\"\(name)\" is no event name: a small letter, then up to 126 small letters, digits, '_', '.' or '-'")
    registry.withLock { registry in
      precondition(!registry.handlers.contains { $0.name == name }, "the event \"\(name)\" has a handler already")
      registry.handlers.append((name, handler))
    }
  }
}

/// The rule for names of events.
enum EventName {
  static func isLegal(_ name: String) -> Bool {
    let bytes = name.utf8
    guard let first = bytes.first, bytes.count <= 127, isSmallLetter(first) else { return false }
    return bytes.allSatisfy { byte in
      isSmallLetter(byte) || (0x30...0x39).contains(byte) || byte == UInt8(ascii: "_") || byte == UInt8(ascii: ".")
        || byte == UInt8(ascii: "-")
    }
  }

  private static func isSmallLetter(_ byte: UInt8) -> Bool { (0x61...0x7a).contains(byte) }
}
