/// All deployed applications and how they are connected.
///
/// A value: deploying and removing give a new topology or say why not. Everything it answers is in a fixed order,
/// whatever the order of deployment.
public struct Topology: Sendable {
  /// In order of name.
  public private(set) var manifests: [Manifest]
  private var positions: [AppName: Int]

  /// The topology of applications that are deployed already; nothing is checked. Of two with one name the later counts.
  public init(_ manifests: [Manifest] = []) {
    var latest: [AppName: Manifest] = [:]
    for manifest in manifests { latest[manifest.name] = manifest }
    self.manifests = latest.values.sorted { $0.name < $1.name }
    positions = [:]
    for (index, manifest) in self.manifests.enumerated() { positions[manifest.name] = index }
  }

  /// The manifest of a deployed application.
  public func manifest(of app: AppName) -> Manifest? { positions[app].map { manifests[$0] } }

  /// Whether there is a slot at the address.
  public func hasSlot(_ address: EventAddress) -> Bool { manifest(of: address.app)?.slot(address.event) != nil }

  /// All connections from slot to slot, in order.
  ///
  /// A connection by way of a signal leads from the slot that emits the signal to a slot connected to it.
  public var edges: [Edge] {
    var edges: Set<Edge> = []
    for manifest in manifests {
      for slot in manifest.slots {
        let from = EventAddress(app: manifest.name, event: slot.name)
        for (targets, optional) in [(slot.emits, false), (slot.optional, true)] {
          for target in targets {
            for end in ends(of: target, in: manifest) {
              let isOptional = optional || end.optional
              edges.insert(
                Edge(
                  from: from, to: end.address, signal: end.signal, isOptional: isOptional,
                  isMissing: !hasSlot(end.address)))
            }
          }
        }
      }
    }
    return edges.sorted()
  }

  /// Where the events that handlers of an application emit go: for each name that they may emit, the topics it is
  /// written to, in order of address.
  ///
  /// A name that leads to a required slot which is not there (its application was removed by force) is left out, so
  /// that emitting it fails instead of losing the event. Optional destinations that are not there are left out of
  /// their name's list.
  ///
  /// - Parameter topics: the topics of the log that are not Grape's, with their numbers of partitions. A name that leads to
  ///   one that is not among them is left out like one that leads to a missing slot.
  public func routes(
    of app: AppName, topics: [TopicName: Int32] = [:]
  ) -> [Manifest.Target: [RouteDestination]] {
    guard let manifest = manifest(of: app) else { return [:] }
    var routes: [Manifest.Target: [RouteDestination]] = [:]
    // An optional mention first: a required one of the same name overrules it.
    for (targets, optional) in [
      (manifest.slots.flatMap(\.optional), true), (manifest.slots.flatMap(\.emits), false),
    ] {
      for target in targets {
        let ends = ends(of: target, in: manifest)
        let sinks = sinks(of: target, in: manifest)
        if !optional, ends.contains(where: { !$0.optional && !hasSlot($0.address) }) {
          routes[target] = nil
        } else if sinks.contains(where: { topics[$0] == nil }) {
          // Also where the name itself is optional: the signal is there, and says that the topic must be.
          routes[target] = nil
        } else {
          routes[target] =
            ends.compactMap { destination($0.address) }.sorted()
            + sinks.sorted().map { RouteDestination(externalTopic: $0, partitions: topics[$0] ?? 1) }
        }
      }
    }
    return routes
  }

  /// Applications that have a required connection to `app`, in order; not `app` itself.
  public func dependents(on app: AppName) -> [AppName] {
    Set(edges.filter { $0.to.app == app && $0.from.app != app && !$0.isOptional }.map(\.from.app)).sorted()
  }

  private func destination(_ address: EventAddress) -> RouteDestination? {
    guard let manifest = manifest(of: address.app), manifest.slot(address.event) != nil else { return nil }
    return RouteDestination(
      address: address, topic: address.app.eventsTopic, partitions: Int32(clamping: manifest.partitions))
  }

  /// Topics that are not Grape's and that a name leads to.
  private func sinks(of target: Manifest.Target, in manifest: Manifest) -> [TopicName] {
    guard case .local(let name) = target else { return [] }
    return manifest.signal(name)?.topics ?? []
  }

  /// A slot that a name leads to.
  private struct End {
    var address: EventAddress
    var signal: EventName?
    var optional: Bool
  }

  private func ends(of target: Manifest.Target, in manifest: Manifest) -> [End] {
    if case .local(let name) = target, let signal = manifest.signal(name) {
      return signal.slots.map { End(address: manifest.address(of: $0), signal: name, optional: false) }
        + signal.optional.map { End(address: manifest.address(of: $0), signal: name, optional: true) }
    }
    return [End(address: manifest.address(of: target), signal: nil, optional: false)]
  }

  /// A connection between two slots.
  public struct Edge: Hashable, Comparable, Sendable {
    public var from: EventAddress
    public var to: EventAddress
    /// The signal it goes by; nil if the slot is emitted to directly.
    public var signal: EventName?
    /// Not being there is no error.
    public var isOptional: Bool
    /// There is no slot at its end.
    public var isMissing: Bool

    public init(
      from: EventAddress, to: EventAddress, signal: EventName? = nil, isOptional: Bool = false, isMissing: Bool = false
    ) {
      self.from = from
      self.to = to
      self.signal = signal
      self.isOptional = isOptional
      self.isMissing = isMissing
    }

    public static func < (left: Edge, right: Edge) -> Bool {
      if left.from != right.from { return left.from < right.from }
      if left.to != right.to { return left.to < right.to }
      if left.signal != right.signal { return (left.signal?.text ?? "") < (right.signal?.text ?? "") }
      return !left.isOptional && right.isOptional
    }
  }
}

/// Where one copy of an emitted event is written.
public struct RouteDestination: Hashable, Comparable, Sendable {
  /// The slot it is for; nil: the topic is not Grape's, and gets plain records.
  public var address: EventAddress?
  /// The input topic of the slot's application, or the topic that is not Grape's.
  public var topic: String
  /// The topic's number of partitions.
  public var partitions: Int32

  public init(address: EventAddress, topic: String, partitions: Int32) {
    self.address = address
    self.topic = topic
    self.partitions = partitions
  }

  /// A topic that is not Grape's.
  public init(externalTopic topic: TopicName, partitions: Int32) {
    address = nil
    self.topic = topic.text
    self.partitions = partitions
  }

  /// The topic is not Grape's.
  public var isExternal: Bool { address == nil }

  /// Slots in order of address, then topics in order of name.
  public static func < (left: RouteDestination, right: RouteDestination) -> Bool {
    switch (left.address, right.address) {
    case (let left?, let right?): left < right
    case (_?, nil): true
    case (nil, _?): false
    case (nil, nil): left.topic < right.topic
    }
  }
}
