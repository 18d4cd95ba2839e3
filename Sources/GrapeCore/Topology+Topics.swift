/// Topics that are not Grape's, as sources and sinks.
extension Topology {
  /// A connection between a slot and a topic that is not Grape's.
  public struct TopicEdge: Hashable, Comparable, Sendable {
    /// Which way events go.
    public enum Direction: Hashable, Comparable, Sendable {
      /// The topic's records come to the slot.
      case source
      /// The slot's handler writes to the topic.
      case sink
    }

    public var direction: Direction
    public var topic: TopicName
    public var slot: EventAddress
    /// The signal by which a sink is reached; nil for sources.
    public var signal: EventName?
    /// Not being there is no error.
    public var isOptional: Bool
    /// There is no such topic.
    public var isMissing: Bool

    public init(
      _ direction: Direction, topic: TopicName, slot: EventAddress, signal: EventName? = nil,
      isOptional: Bool = false, isMissing: Bool = false
    ) {
      self.direction = direction
      self.topic = topic
      self.slot = slot
      self.signal = signal
      self.isOptional = isOptional
      self.isMissing = isMissing
    }

    public static func < (left: TopicEdge, right: TopicEdge) -> Bool {
      if left.direction != right.direction { return left.direction < right.direction }
      if left.topic != right.topic { return left.topic < right.topic }
      if left.slot != right.slot { return left.slot < right.slot }
      return (left.signal?.text ?? "") < (right.signal?.text ?? "")
    }
  }

  /// All connections to topics that are not Grape's, sources first, in order.
  ///
  /// - Parameter topics: all topics of the log; nil: unknown, none is said to be missing.
  public func topicEdges(topics: Set<String>? = nil) -> [TopicEdge] {
    var edges: Set<TopicEdge> = []
    func isMissing(_ topic: TopicName) -> Bool { topics.map { !$0.contains(topic.text) } ?? false }
    for manifest in manifests {
      for source in manifest.sources {
        edges.insert(
          TopicEdge(
            .source, topic: source.topic, slot: EventAddress(app: manifest.name, event: source.slot),
            isOptional: source.isOptional, isMissing: isMissing(source.topic)))
      }
      for slot in manifest.slots {
        for case .local(let name) in slot.emits + slot.optional {
          for topic in manifest.signal(name)?.topics ?? [] {
            edges.insert(
              TopicEdge(
                .sink, topic: topic, slot: EventAddress(app: manifest.name, event: slot.name), signal: name,
                isMissing: isMissing(topic)))
          }
        }
      }
    }
    return edges.sorted()
  }

  /// The ways from slot to slot that lead through topics.
  static func edges(through topics: [TopicEdge]) -> [Edge] {
    let sources = Dictionary(grouping: topics.filter { $0.direction == .source }, by: \.topic)
    return topics.filter { $0.direction == .sink }.flatMap { sink in
      (sources[sink.topic] ?? []).map { Edge(from: sink.slot, to: $0.slot, signal: sink.signal) }
    }
  }

  /// Whether any application has a source or a sink.
  public var usesExternalTopics: Bool {
    manifests.contains { !$0.sources.isEmpty || $0.signals.contains { !$0.topics.isEmpty } }
  }

  /// Why `topic` is not one for sources, sinks and plain records: it belongs to Grape. nil if it does not.
  public func ownership(of topic: TopicName) -> String? {
    if topic.isSystem { return "\(topic) belongs to Grape's nodes" }
    guard let owner = topic.possibleOwner, manifest(of: owner) != nil else { return nil }
    return "\(topic) belongs to the application \(owner)"
  }

  /// What stands against a manifest's sources and sinks, and against its own topics where others have taken them for
  /// topics that are not Grape's.
  func topicProblems(of manifest: Manifest, topics: Set<String>?) -> [TopologyProblem] {
    var problems: [TopologyProblem] = []
    func check(_ topic: TopicName, _ path: FieldPath, isOptional: Bool, remedy: String) {
      if let message = ownership(of: topic) {
        problems.append(
          TopologyProblem(
            .topicOfApp, app: manifest.name, path: path,
            "\(message): connect slots and signals with its slots instead, or name a topic that is not Grape's"))
      } else if !isOptional, let topics, !topics.contains(topic.text) {
        let near = Suggestion.nearest(to: topic.text, among: topics.sorted())
        problems.append(
          TopologyProblem(
            .missingTopic, app: manifest.name, path: path,
            "there is no topic \(topic): " + (near.map { "did you mean \($0)? Otherwise " } ?? "") + remedy))
      }
    }
    for source in manifest.sources {
      check(
        source.topic, FieldPath().key("sources").key(source.topic.text), isOptional: source.isOptional,
        remedy: "create it first, or write \"optional: true\", and records come once it is there")
    }
    for signal in manifest.signals {
      let path = FieldPath().key("signals").key(signal.name.text).key("topics")
      for (index, topic) in signal.topics.enumerated() {
        check(topic, path.index(index), isOptional: false, remedy: "create it first")
      }
    }
    let own = Set(manifest.name.topics)
    for other in manifests where other.name != manifest.name {
      for topic in other.sources.map(\.topic) + other.sinkTopics where own.contains(topic.text) {
        problems.append(
          TopologyProblem(
            .topicOfApp, app: manifest.name,
            "needs the topic \(topic), which \(other.name) uses as one that is not Grape's: deploy under another name"))
      }
    }
    return problems
  }
}
