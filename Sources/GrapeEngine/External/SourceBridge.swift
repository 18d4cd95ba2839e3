public import GrapeCore
internal import GrapeLog
internal import GrapeReactor

/// Brings the records of topics that are not Grape's to the slots of one application: joins the consumer group
/// `APP.sources`, and runs a `SourceLane` for each partition that this node has in it.
///
/// The records are copied into the application's input, where everything that holds for events holds for them: order by
/// key, retries, dead letters, state. Copy and offset are one commit. Lives on the reactor's thread.
public final class SourceBridge {
  public let manifest: Manifest
  private let version: String
  private let environment: SourceEnvironment
  private let group: String
  private let offsets: SourceOffsets
  private let sources: [String: Manifest.Source]
  private var lanes: [TopicPartition: SourceLane] = [:]
  /// Figures of lanes that have ended, by topic.
  private var past: [String: (events: Int, unusable: Int)] = [:]
  private var membership: GroupMembership?
  private var isStopped = false

  /// Creates the bridge of an application that has sources. `start` makes it run.
  public init(_ deployment: Deployment, environment: SourceEnvironment) {
    manifest = deployment.manifest
    version = deployment.version
    self.environment = environment
    group = deployment.manifest.name.sourcesGroup
    let input = deployment.manifest.name.eventsTopic
    offsets = SourceOffsets(
      group: group, outputs: (0..<Int32(deployment.manifest.partitions)).map { TopicPartition(input, $0) },
      log: environment.gate.log, reactor: environment.reactor)
    sources = Dictionary(manifest.sources.map { ($0.topic.text, $0) }, uniquingKeysWith: { first, _ in first })
  }

  /// Joins the group.
  public func start() {
    precondition(membership == nil && !isStopped, "a bridge starts once")
    let changed = environment.reactor.completion { [weak self] (change: GroupChange) in
      guard let self else { return change.finish() }
      take(change)
    }
    membership = environment.gate.log.join(group: group, topics: sources.keys.sorted(), onChange: changed)
  }

  /// Finishes what is under way and leaves the group; `completion` then.
  public func stop(completion: @escaping () -> Void) {
    guard !isStopped else { return completion() }
    isStopped = true
    end(Array(lanes.keys)) { [self] in
      if let membership { environment.gate.log.leave(membership) }
      completion()
    }
  }

  /// Leaves the group with everything under way, as the death of the process does in the end.
  package func leaveGroup() {
    if let membership { environment.gate.log.leave(membership) }
    membership = nil
  }

  private func take(_ change: GroupChange) {
    for place in change.lost {
      lanes[place]?.abandon()
      forget(place)
    }
    end(change.revoked) { change.finish() }
    guard !isStopped else { return }
    for place in change.assigned {
      guard lanes[place] == nil, let source = sources[place.topic] else { continue }
      let lane = SourceLane(
        place, source: source, rules: rules(place, source), group: group,
        durability: Durability(manifest.profile.durability), offsets: offsets, environment: environment)
      lanes[place] = lane
      lane.start()
    }
  }

  private func rules(_ place: TopicPartition, _ source: Manifest.Source) -> SourceRules {
    var keyHeader: [UInt8]?
    if case .header(let name) = source.key { keyHeader = Array(name.utf8) }
    return SourceRules(
      place: place, slot: Array(source.slot.text.utf8), keyHeader: keyHeader, eventsTopic: manifest.name.eventsTopic,
      partitions: Int32(manifest.partitions), deadLettersTopic: manifest.name.deadLettersTopic, version: version,
      eventLimit: environment.eventLimit, batchLimit: environment.batchLimit,
      compression: manifest.profile.compression)
  }

  /// Ends the lanes of these partitions in order.
  private func end(_ places: [TopicPartition], completion: @escaping () -> Void) {
    let ending = places.filter { lanes[$0] != nil }
    var missing = ending.count
    if missing == 0 { return completion() }
    for place in ending {
      lanes[place]?.finish { [self] in
        forget(place)
        missing -= 1
        if missing == 0 { completion() }
      }
    }
  }

  private func forget(_ place: TopicPartition) {
    guard let lane = lanes.removeValue(forKey: place) else { return }
    var sum = past[place.topic] ?? (0, 0)
    sum.events += lane.events
    sum.unusable += lane.unusable
    past[place.topic] = sum
  }

  // MARK: Figures

  /// Nothing is left to be copied, as far as is known here.
  public var isIdle: Bool { lanes.values.allSatisfy(\.machine.isIdle) }

  /// As in the answer to `stats`.
  ///
  /// - Parameter topics: all topics of the log; nil: not known.
  public func statisticsJSON(topics: Set<String>?) -> JSONValue {
    .array(
      manifest.sources.map { source in json(source, isMissing: topics.map { !$0.contains(source.topic.text) } ?? false)
      })
  }

  private func json(_ source: Manifest.Source, isMissing: Bool) -> JSONValue {
    let topic = source.topic.text
    let mine = lanes.filter { $0.key.topic == topic }.sorted { $0.key.partition < $1.key.partition }.map(\.value)
    let sum = mine.reduce(past[topic] ?? (0, 0)) { ($0.events + $1.events, $0.unusable + $1.unusable) }
    let failing = mine.filter { $0.problem != nil }
    let problem =
      isMissing
      ? "there is no topic \(topic): its records come once it is there"
      : failing.first.map { "\($0.place): \($0.problem ?? "")" }
    let state = isStopped ? "stopped" : isMissing ? "waiting" : failing.isEmpty ? "running" : "failed"
    let partitions: [JSONValue] = mine.map { lane in
      [
        "partition": JSONValue(lane.place.partition), "position": lane.machine.position.map { .int($0) } ?? .null,
        "end": lane.machine.end.map { .int($0) } ?? .null, "lag": .int(lane.machine.lag),
        "problem": JSONValue(lane.problem),
      ]
    }
    return [
      "topic": .string(topic), "slot": .string(source.slot.text), "start": .string(source.start.description),
      "optional": .bool(source.isOptional), "state": .string(state), "problem": JSONValue(problem),
      "events": JSONValue(sum.0), "unusable": JSONValue(sum.1),
      "lag": .int(mine.reduce(0) { $0 + $1.machine.lag }), "partitions": .array(partitions),
    ]
  }
}
