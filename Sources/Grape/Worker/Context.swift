public import GrapeCore
internal import GrapeState
internal import GrapeWire

/// What a handler acts through while it handles one event. Not to be used after the handler has returned.
///
/// What is emitted is sent when the delivery the event came in is done, all of it or, if the handler fails, none.
public final class Context {
  let session: Session
  let outputs: OutputSet
  @usableFromInline let runState: RunState
  /// The stores that were asked for, by name.
  private var stores: [String: StoreAccess] = [:]
  /// The store without a name.
  @usableFromInline let defaultStore: StoreAccess
  /// That of the event being handled, or of the last one.
  private var current: EventGroup?
  /// Numbers the groups as they come.
  private var generation: UInt64 = 0
  /// An event is being handled.
  private var isOpen = false
  /// By index of the application's handles.
  private let plans: UnsafeMutableBufferPointer<EmitPlan>
  /// The event being handled; nil outside.
  var group: EventGroup? { isOpen ? current : nil }
  /// The caller has a final reply.
  private(set) var hasReplied = false
  /// What was emitted carries the origin on, so a later stage may reply.
  private(set) var hasPassedOriginOn = false
  /// Not all that the handler emits fits into this delivery's result.
  private(set) var hasOverflowed = false

  init(session: Session) {
    self.session = session
    outputs = OutputSet(session: session)
    runState = RunState(space: session.state, outputs: outputs, now: session.now)
    defaultStore = StoreAccess(run: runState)
    plans = .allocate(capacity: session.signalCount)
    plans.initialize(repeating: EmitPlan())
  }

  deinit { plans.deallocate() }

  /// The events to come are of `group`.
  func enter(_ group: EventGroup) {
    guard group !== current else { return }
    current = group
    generation &+= 1
  }

  /// An event of the group that was entered is handled now.
  @inline(__always)
  func begin() {
    isOpen = true
    runState.isOpen = true
    hasReplied = false
    hasPassedOriginOn = false
    hasOverflowed = false
    outputs.beginEvent()
  }

  @inline(__always)
  func end() {
    isOpen = false
    runState.isOpen = false
  }

  /// Keeps no delivery's memory.
  func leave() {
    isOpen = false
    runState.leave()
    current = nil
    generation &+= 1
  }

  /// The store called `name`.
  func access(_ name: String) throws(StateError) -> StoreAccess {
    if name.isEmpty { return defaultStore }
    if let known = stores[name] { return known }
    let access = try StoreAccess(run: runState, name: name)
    stores[name] = access
    return access
  }

  /// What the node told this worker.
  public var info: WorkerInfo { session.info }
  /// The worker's name, `flights-3`.
  public var worker: String { session.info.worker }
  /// The application's name.
  public var app: String { session.info.app }
  /// The application's version: the hash of its package.
  public var version: String { session.info.version }
  /// The application's configuration.
  public var config: JSONValue { session.info.config }
  /// For each name that may be emitted, where it goes.
  public var routes: [String: [WorkerInfo.Route]] { session.info.routes }

  /// Emits an event without key to all slots that `signal` is connected to.
  ///
  /// A value that is nil is null: in a topic that is not Grape's, a tombstone.
  /// It takes along the caller that waits for the present event, so that a later stage can reply.
  @inlinable
  public func emit(_ signal: Signal, _ value: some EventData) throws(EmitError) {
    try value.withEventBytes { (value) throws(EmitError) in try emitBytes(signal, key: nil, value: value) }
  }

  /// Emits an event to all slots that `signal` is connected to. Events of one key keep their order.
  @inlinable
  public func emit(_ signal: Signal, _ value: some EventData, key: some EventData) throws(EmitError) {
    try value.withEventBytes { (value) throws(EmitError) in
      try key.withEventBytes { (key) throws(EmitError) in try emitBytes(signal, key: key, value: value) }
    }
  }

  /// Emits an event to all slots that the signal called `name` is connected to.
  public func emit(_ name: String, _ value: some EventData) throws(EmitError) {
    try value.withEventBytes { (value) throws(EmitError) in
      try emit(session.resolve(name), key: nil, value: value, headers: [], detached: false)
    }
  }

  /// Emits an event to all slots that the signal called `name` is connected to. Events of one key keep their order.
  public func emit(_ name: String, _ value: some EventData, key: some EventData) throws(EmitError) {
    try emit(name, value, key: key, headers: [], detached: false)
  }

  /// Emits an event with headers of its own, or one that leaves the waiting caller behind.
  ///
  /// - Parameters:
  ///   - headers: must not begin with `g.`; `traceparent` replaces the one that is handed on.
  ///   - detached: the event takes neither the waiting caller nor the deadline of the present event along.
  public func emit(
    _ name: String, _ value: some EventData, key: some EventData, headers: [Event.Header], detached: Bool = false
  ) throws(EmitError) {
    let signal = try session.resolve(name)
    try value.withEventBytes { (value) throws(EmitError) in
      try key.withEventBytes { (key) throws(EmitError) in
        try emit(signal, key: key, value: value, headers: headers, detached: detached)
      }
    }
  }

  /// Emits an event that leaves the waiting caller and the deadline behind.
  public func emit(
    _ name: String, _ value: some EventData, key: some EventData, detached: Bool
  ) throws(EmitError) {
    try emit(name, value, key: key, headers: [], detached: detached)
  }

  /// The same by a handle.
  public func emit(
    _ signal: Signal, _ value: some EventData, key: some EventData, headers: [Event.Header] = [], detached: Bool
  ) throws(EmitError) {
    let signal = try session.resolve(signal)
    try value.withEventBytes { (value) throws(EmitError) in
      try key.withEventBytes { (key) throws(EmitError) in
        try emit(signal, key: key, value: value, headers: headers, detached: detached)
      }
    }
  }

  /// The fast path: nothing but key and value.
  @usableFromInline
  func emitBytes(
    _ signal: Signal, key: UnsafeRawBufferPointer?, value: UnsafeRawBufferPointer?
  ) throws(EmitError) {
    let index = signal.index
    guard isOpen, index < plans.count, plans[index].fits(signal, generation) else {
      return try emitSlowly(signal, key: key, value: value)
    }
    let plan = plans.baseAddress.unsafelyUnwrapped + index
    let size = (key?.count ?? 0) + (value?.count ?? 0) + plan.pointee.section.count
    guard size <= plan.pointee.sizeLimit else { throw tooLarge("the event \(signal.name)", size) }
    do throws(EmitError) {
      try outputs.emit(
        to: plan.pointee.target.unsafelyUnwrapped, key: key, value: value, section: plan.pointee.section)
    } catch {
      hasOverflowed = true
      throw error
    }
    hasPassedOriginOn = true
  }

  /// Any case; prepares the fast path for the next event if it is the simple one: one destination, plain headers.
  @inline(never)
  private func emitSlowly(
    _ signal: Signal, key: UnsafeRawBufferPointer?, value: UnsafeRawBufferPointer?
  ) throws(EmitError) {
    let resolved = try session.resolve(signal)
    try emit(resolved, key: key, value: value, headers: [], detached: false)
    guard let current, current.headers.isPlain, resolved.destinations.count == 1, signal.index < plans.count,
      session.owns(signal)
    else { return }
    plans[signal.index] = EmitPlan(
      signal: signal, generation: generation, destination: resolved.destinations[0],
      section: resolved.destinations[0].plainSection(hops: current.headers.hops).unsafeBytes,
      sizeLimit: session.info.limits.maxEvent)
  }

  @inline(__always)
  private func emit(
    _ signal: ResolvedSignal, key: UnsafeRawBufferPointer?, value: UnsafeRawBufferPointer?,
    headers: [Event.Header], detached: Bool
  ) throws(EmitError) {
    guard let group else { throw Context.outsideEvent() }
    let origin = group.headers
    guard Int(origin.hops) < session.info.limits.maxHops else { throw hopLimit(signal.name, origin.hops) }
    let plain = headers.isEmpty && (origin.isPlain || (detached && origin.traceparent == nil))
    for destination in signal.destinations {
      let section =
        plain
        ? destination.plainSection(hops: origin.hops)
        : try special(destination, origin, headers: headers, detached: detached)
      let size = (key?.count ?? 0) + (value?.count ?? 0) + section.count
      guard size <= session.info.limits.maxEvent else { throw tooLarge("the event \(signal.name)", size) }
      do throws(EmitError) {
        try outputs.emit(to: destination.target, key: key, value: value, section: section.unsafeBytes)
      } catch {
        hasOverflowed = true
        throw error
      }
      if !detached, !destination.isExternal { hasPassedOriginOn = true }
    }
  }

  @inline(never)
  private func special(
    _ destination: Destination, _ origin: OriginHeaders, headers: [Event.Header], detached: Bool
  ) throws(EmitError) -> ByteSlice {
    if let reserved = headers.first(where: { $0.name.hasPrefix("g.") }) {
      throw EmitError(.reservedHeader, "the header \"\(reserved.name)\" begins with \"g.\", which is Grape's")
    }
    let ownTrace = headers.contains { $0.name == "traceparent" }
    return destination.makeSection(
      hops: origin.hops, deadline: detached ? nil : origin.deadline, reply: detached ? nil : origin.reply?.encoded,
      traceparent: ownTrace ? nil : origin.traceparent, headers: headers)
  }

  /// Answers the caller that waits for the present event. Without a caller the reply is dropped.
  ///
  /// - Parameter isFinal: false announces further replies, by this handler or a later stage.
  public func reply(_ data: some EventData, isFinal: Bool = true) throws(EmitError) {
    try data.withEventBytes { (bytes) throws(EmitError) in try replyBytes(bytes, isFinal: isFinal) }
  }

  private func replyBytes(_ bytes: UnsafeRawBufferPointer?, isFinal: Bool) throws(EmitError) {
    guard let group else { throw Context.outsideEvent() }
    guard !hasReplied else {
      throw EmitError(.alreadyReplied, "\(group.name) has sent its final reply; nothing may follow it")
    }
    guard let target = group.headers.reply else {
      hasReplied = isFinal
      return
    }
    let size = bytes?.count ?? 0
    guard size <= session.info.limits.maxEvent else { throw tooLarge("the reply to \(group.name)", size) }
    do throws(EmitError) {
      try outputs.reply(to: target, ReplyStatus(.ok, ran: .yes, isFinal: isFinal), data: bytes)
    } catch {
      hasOverflowed = true
      throw error
    }
    hasReplied = isFinal
  }

  @inline(never)
  private func hopLimit(_ name: String, _ hops: UInt8) -> EmitError {
    EmitError(
      .hopLimit,
      "\(name) is not emitted: its chain passed through \(Int(hops) + 1) handlers, "
        + "\(session.info.limits.maxHops) are allowed; most likely it is a loop")
  }

  @inline(never)
  private func tooLarge(_ what: String, _ size: Int) -> EmitError {
    EmitError(.tooLarge, "\(what) has \(size) bytes, \(session.info.limits.maxEvent) are allowed")
  }

  @inline(never)
  private static func outsideEvent() -> EmitError {
    EmitError(.outsideEvent, "the context is used while no event of its own is being handled")
  }
}

/// What there is to know for emitting by a handle while events of one group are handled, where that is simple.
private struct EmitPlan {
  private unowned(unsafe) var signal: Signal?
  private var generation: UInt64 = 0
  private(set) var target: Destination.Target?
  /// Encoded headers, kept alive by the destination.
  private(set) var section = UnsafeRawBufferPointer(start: nil, count: 0)
  private(set) var sizeLimit = 0

  init() {}

  init(
    signal: Signal, generation: UInt64, destination: Destination, section: UnsafeRawBufferPointer, sizeLimit: Int
  ) {
    self.signal = signal
    self.generation = generation
    target = destination.target
    self.section = section
    self.sizeLimit = sizeLimit
  }

  @inline(__always)
  func fits(_ signal: Signal, _ generation: UInt64) -> Bool {
    target != nil && self.signal === signal && self.generation == generation
  }
}
