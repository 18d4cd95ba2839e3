internal import GrapeCore
internal import GrapeWire
internal import Synchronization

/// What a worker knows from WELCOME on, made fit for looking up. Used on the worker's thread alone.
final class Session {
  let info: WorkerInfo
  let slots: [Slot]
  let log: LogQueue
  /// nil: the node keeps none.
  let state: StateSpace?
  /// Time of day in milliseconds since 1970 UTC.
  let now: @Sendable () -> Int64
  private let slotsByName: [ByteSlice: Slot]
  /// By index of the application's handle; the handle itself guards against one of another application.
  private let bySignal: [(signal: Signal, resolved: ResolvedSignal?)]
  private var byName: [String: ResolvedSignal]
  /// Makes up a destination for any name: only where handlers are tested without a manifest.
  private let hasOpenRoutes: Bool
  private(set) var destinationCount = 0
  private(set) var outputCount = 0

  init(
    info: WorkerInfo, application: Application, log: LogQueue, state: StateSpace? = nil, hasOpenRoutes: Bool = false,
    now: @escaping @Sendable () -> Int64 = wallClockMilliseconds
  ) throws(ProtocolError) {
    self.info = info
    self.now = now
    self.state = state
    self.log = log
    self.hasOpenRoutes = hasOpenRoutes
    let (handlers, signals) = application.registry.withLock { ($0.handlers, $0.signals) }
    var slots: [Slot] = []
    for (index, name) in info.slots.enumerated() {
      guard let handler = handlers.first(where: { $0.name == name })?.handler else {
        throw ProtocolError(message: "the node wants a handler for \"\(name)\", which this worker lacks")
      }
      slots.append(Slot(name: name, index: index, handler: handler))
    }
    self.slots = slots
    slotsByName = Dictionary(slots.map { (ByteSlice($0.name), $0) }, uniquingKeysWith: { first, _ in first })
    var byName: [String: ResolvedSignal] = [:]
    var destinations = 0
    var outputs = 0
    for (name, routes) in info.routes.sorted(by: { $0.key < $1.key }) {
      byName[name] = ResolvedSignal(
        name: name,
        destinations: routes.map { route in
          defer {
            destinations += 1
            outputs += Int(route.partitions)
          }
          return Destination(
            topic: route.topic, event: route.event, partitions: route.partitions, isExternal: route.isExternal,
            index: destinations, firstOutput: outputs)
        })
    }
    bySignal = signals.map { ($0, byName[$0.name]) }
    self.byName = byName
    destinationCount = destinations
    outputCount = outputs
  }

  /// The slot for the event name in a record's headers.
  func slot(named name: ByteSlice) -> Slot? { slotsByName[name] }

  /// Number of the application's handles.
  var signalCount: Int { bySignal.count }

  /// Whether the handle is one of this application's.
  func owns(_ signal: Signal) -> Bool { signal.index < bySignal.count && bySignal[signal.index].signal === signal }

  func resolve(_ signal: Signal) throws(EmitError) -> ResolvedSignal {
    if signal.index < bySignal.count {
      let entry = bySignal[signal.index]
      if entry.signal === signal, let resolved = entry.resolved { return resolved }
    }
    return try resolve(signal.name)
  }

  func resolve(_ name: String) throws(EmitError) -> ResolvedSignal {
    if let resolved = byName[name] { return resolved }
    guard hasOpenRoutes else {
      throw EmitError(
        .unknownSignal,
        "\"\(name)\" may not be emitted: the manifest of \(info.app) does not list it under \"emits\"")
    }
    let at = name.firstIndex(of: "@")
    let app = at.map { String(name[..<$0]) } ?? info.app
    let event = at.map { String(name[name.index(after: $0)...]) } ?? name
    let destination = Destination(
      topic: "\(app).events", event: event, partitions: 1, isExternal: false, index: destinationCount,
      firstOutput: outputCount)
    destinationCount += 1
    outputCount += 1
    let resolved = ResolvedSignal(name: name, destinations: [destination])
    byName[name] = resolved
    return resolved
  }
}
