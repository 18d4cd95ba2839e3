public import GrapeCore

/// What the node told the worker when it began.
public struct WorkerInfo: Sendable {
  /// One slot, or one topic that is not Grape's, that a signal goes to.
  public struct Route: Sendable, Hashable {
    /// Topic of the application that has the slot, or the topic that is not Grape's.
    public var topic: String
    /// The event's name there; empty for a topic that is not Grape's.
    public var event: String
    /// Number of the topic's partitions.
    public var partitions: Int32
    /// The topic is not Grape's: it gets plain records.
    public var isExternal: Bool

    public init(topic: String, event: String, partitions: Int32, isExternal: Bool = false) {
      self.topic = topic
      self.event = event
      self.partitions = partitions
      self.isExternal = isExternal
    }
  }

  /// The worker's name, `flights-3`.
  public var worker: String
  /// The application's name.
  public var app: String
  /// The application's version: the hash of its package.
  public var version: String
  /// The node's name.
  public var node: String
  /// The application's configuration from its manifest and profile.
  public var config: JSONValue
  /// For each name that handlers may emit, where it goes.
  public var routes: [String: [Route]]
  /// The slots, in the order in which frames number them.
  var slots: [String]
  var limits: Limits
  /// How batches of emitted events are to be packed.
  var compression = BatchCompression.none
  /// Where the application's state is; nil: the node keeps none.
  var state: State?

  /// Bounds that the node sets.
  struct Limits: Sendable {
    var heartbeatMilliseconds: Int64 = 2000
    /// Bytes of one frame.
    var maxFrame = 67_174_400
    /// Bytes of key, value and headers of one event.
    var maxEvent = 8_388_608
    /// Handlers that an event and its descendants may pass through.
    var maxHops = 64
    /// Deliveries that may be unanswered.
    var credits = 4
  }
}

/// A frame of the node's that breaks the protocol.
struct ProtocolError: Error, CustomStringConvertible {
  var message: String
  var description: String { message }
}

extension WorkerInfo {
  /// Reads WELCOME's body.
  init(welcome: JSONValue) throws(ProtocolError) {
    func member<Value>(_ name: String, _ get: (JSONValue) -> Value?) throws(ProtocolError) -> Value {
      guard let member = welcome[name], let value = get(member) else {
        throw ProtocolError(message: "WELCOME lacks a usable \"\(name)\"")
      }
      return value
    }
    func bounded(_ name: String, default fallback: Int, _ range: ClosedRange<Int64>) throws(ProtocolError) -> Int {
      guard let member = welcome[name] else { return fallback }
      guard let value = member.int, range.contains(value) else {
        throw ProtocolError(message: "\"\(name)\" in WELCOME is \(member.text); \(range) is legal")
      }
      return Int(value)
    }
    let version: Int64 = try member("protocol", \.int)
    guard version == 1 else { throw ProtocolError(message: "the node speaks protocol \(version), this worker 1") }
    node = welcome["node"]?.string ?? ""
    app = try member("app", \.string)
    self.version = welcome["version"]?.string ?? ""
    worker = try member("worker", \.string)
    config = welcome["config"] ?? .object([])
    slots = []
    for slot in try member("slots", \.array) {
      guard let name = slot.string else { throw ProtocolError(message: "a slot in WELCOME is not a string") }
      slots.append(name)
    }
    guard slots.count <= 65_535 else { throw ProtocolError(message: "WELCOME has \(slots.count) slots") }
    routes = [:]
    for signal in try member("routes", \.object) {
      guard let list = signal.value.array else {
        throw ProtocolError(message: "the route of \"\(signal.name)\" in WELCOME is not a list")
      }
      routes[signal.name] = try list.map { (route) throws(ProtocolError) in
        let isExternal = route["external"]?.bool ?? false
        guard let topic = route["topic"]?.string, let event = isExternal ? "" : route["event"]?.string,
          let partitions = route["partitions"]?.int, (1...65_536).contains(partitions)
        else { throw ProtocolError(message: "the route of \"\(signal.name)\" in WELCOME is incomplete: \(route.text)") }
        return Route(topic: topic, event: event, partitions: Int32(partitions), isExternal: isExternal)
      }
    }
    if let text = welcome["compression"]?.string {
      guard let compression = BatchCompression(text) else {
        throw ProtocolError(message: "WELCOME asks for compression \(text), which this worker does not know")
      }
      self.compression = compression
    }
    if let value = welcome["state"], !value.isNull { state = try State(value) }
    let defaults = Limits()
    limits = Limits(
      heartbeatMilliseconds: Int64(
        try bounded("heartbeatMs", default: Int(defaults.heartbeatMilliseconds), 10...3_600_000)),
      maxFrame: try bounded("maxFrame", default: defaults.maxFrame, 65_536...Int64(Int32.max)),
      maxEvent: try bounded("maxEvent", default: defaults.maxEvent, 1...Int64(Int32.max / 2)),
      maxHops: try bounded("maxHops", default: defaults.maxHops, 1...255),
      credits: try bounded("credits", default: defaults.credits, 1...65_536))
  }
}
