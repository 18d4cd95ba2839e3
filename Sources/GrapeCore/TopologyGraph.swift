/// A topology as it is drawn: applications with their slots, and the connections between them.
public struct TopologyGraph: Hashable, Sendable {
  /// In order of name.
  public var apps: [App]
  /// In order.
  public var edges: [Topology.Edge]
  /// Connections to topics that are not Grape's, in order.
  public var topics: [Topology.TopicEdge]

  public init(apps: [App], edges: [Topology.Edge], topics: [Topology.TopicEdge] = []) {
    self.apps = apps.sorted { $0.name < $1.name }
    self.edges = Set(edges).sorted()
    self.topics = Set(topics).sorted()
  }

  /// A deployed application.
  public struct App: Hashable, Sendable {
    public var name: AppName
    /// What to show besides the name, for instance its version and state.
    public var notes: [String]
    /// In the order to draw them.
    public var slots: [EventName]

    public init(name: AppName, notes: [String] = [], slots: [EventName]) {
      self.name = name
      self.notes = notes
      self.slots = slots
    }
  }

  /// Events per second.
  public struct Rates: Sendable {
    /// Handled by a slot.
    public var slots: [EventAddress: Double]
    /// Going over a connection.
    public var edges: [Topology.Edge: Double]

    public init(slots: [EventAddress: Double] = [:], edges: [Topology.Edge: Double] = [:]) {
      self.slots = slots
      self.edges = edges
    }

    /// `1,204/s`, `12.5/s`, `0.25/s`.
    static func format(_ rate: Double) -> String {
      guard rate.isFinite, rate >= 0, rate < 1e15 else { return "?/s" }
      let decimals = rate >= 100 || rate == rate.rounded() ? 0 : rate >= 10 ? 1 : 2
      let scale = [1.0, 10, 100][decimals]
      let number = Int64((rate * scale).rounded())
      let (whole, rest) = number.quotientAndRemainder(dividingBy: Int64(scale))
      var text = ""
      for (index, digit) in String(whole).reversed().enumerated() {
        if index > 0, index % 3 == 0 { text.append(",") }
        text.append(digit)
      }
      text = String(text.reversed())
      guard decimals > 0 else { return text + "/s" }
      let fraction = String(rest)
      return text + "." + String(repeating: "0", count: decimals - fraction.count) + fraction + "/s"
    }
  }

  /// All addresses: slots, and what connections lead to though it is not there.
  var addresses: [EventAddress] {
    let slots = apps.flatMap { app in app.slots.map { EventAddress(app: app.name, event: $0) } }
    let known = Set(slots)
    return slots + Set(edges.flatMap { [$0.from, $0.to] }).filter { !known.contains($0) }.sorted()
  }

  /// Loops among the slots; see `Topology.cycles`.
  public var cycles: [[EventAddress]] {
    CycleFinder(edges.filter { !$0.isMissing } + Topology.edges(through: topics)).cycles()
  }
}

extension Topology {
  /// The topology as it is drawn. `notes` are shown with the applications.
  public func graph(notes: [AppName: [String]] = [:]) -> TopologyGraph {
    TopologyGraph(
      apps: manifests.map {
        TopologyGraph.App(name: $0.name, notes: notes[$0.name] ?? [], slots: $0.slots.map(\.name))
      },
      edges: edges, topics: topicEdges())
  }
}
