/// Why applications cannot be deployed or removed.
public struct TopologyError: Error, Hashable, Sendable, CustomStringConvertible {
  /// At least one.
  public var problems: [TopologyProblem]

  public init(_ problems: [TopologyProblem]) { self.problems = problems }

  /// One problem a line.
  public var description: String { problems.map(\.description).joined(separator: "\n") }
}

/// One thing that would be wrong afterwards.
public struct TopologyProblem: Hashable, Sendable, CustomStringConvertible {
  /// What kind of thing.
  public enum Kind: Hashable, Sendable {
    /// An emit or a signal leads to an application or slot that is not there.
    case missingTarget
    /// A slot that others emit to would be gone.
    case slotInUse
    /// The number of partitions would change.
    case partitionsChanged
    /// Others emit to the application that is to be removed.
    case appInUse
    /// There is no such application.
    case noSuchApp
    /// One application is in the set twice.
    case deployedTwice
    /// A source or a sink is a topic that is not in the log.
    case missingTopic
    /// A source or a sink is a topic of a deployed application.
    case topicOfApp
  }

  public var kind: Kind
  /// The application whose manifest would have to change.
  public var app: AppName
  /// Where in that manifest; empty if it is about the application as a whole.
  public var path: FieldPath
  /// What is wrong and what would be right.
  public var message: String

  public init(_ kind: Kind, app: AppName, path: FieldPath = FieldPath(), _ message: String) {
    self.kind = kind
    self.app = app
    self.path = path
    self.message = message
  }

  public var description: String { path.steps.isEmpty ? "\(app): \(message)" : "\(app): \(path): \(message)" }
}

extension Topology {
  /// The topology with `added` deployed, new or in place of their older versions, all at once: they may emit to each
  /// other.
  ///
  /// Refused if one of them emits to a slot that would not be there, if a slot would be gone that others emit to, or
  /// if a number of partitions would change, or if a source or a sink is no topic that it could be.
  ///
  /// - Parameter topics: all topics of the log; nil: whether sources and sinks are there is not looked at.
  public func deploying(_ added: [Manifest], topics: Set<String>? = nil) throws(TopologyError) -> Topology {
    let next = Topology(manifests + added)
    let names = Set(added.map(\.name))
    var problems: [TopologyProblem] = []
    if names.count < added.count {
      let counts = Dictionary(grouping: added, by: \.name).filter { $0.value.count > 1 }
      problems += counts.keys.sorted().map {
        TopologyProblem(.deployedTwice, app: $0, "is to be deployed twice at once")
      }
    }
    for name in names.sorted() {
      guard let manifest = next.manifest(of: name) else { continue }
      problems += next.missingTargets(of: manifest)
      problems += next.topicProblems(of: manifest, topics: topics)
      if let old = self.manifest(of: name) {
        problems += next.lostSlots(from: old, excluding: names)
        if old.partitions != manifest.partitions {
          problems.append(
            TopologyProblem(
              .partitionsChanged, app: name, path: FieldPath().key("partitions"),
              "is \(manifest.partitions), but \(name) is deployed with \(old.partitions): the number is "
                + "fixed once deployed, "
                + "because keys would move between partitions; write \(old.partitions), or deploy under a new name"))
        }
      }
    }
    if !problems.isEmpty { throw TopologyError(problems) }
    return next
  }

  /// The topology without `app`. Refused while others have a required connection to it, unless forced; what they emit
  /// to it then fails.
  public func removing(_ app: AppName, force: Bool = false) throws(TopologyError) -> Topology {
    guard manifest(of: app) != nil else {
      let hint = Suggestion.hint(for: app.text, among: manifests.map(\.name.text))
      throw TopologyError([TopologyProblem(.noSuchApp, app: app, "is not deployed\(hint)")])
    }
    if !force {
      let problems = edges.filter { $0.to.app == app && $0.from.app != app && !$0.isOptional }.map { edge in
        TopologyProblem(.appInUse, app: app, "cannot be removed: \(edge.from) emits to \(edge.to)\(edge.way)")
      }
      if !problems.isEmpty { throw TopologyError(problems) }
    }
    return Topology(manifests.filter { $0.name != app })
  }

  /// Required connections of a manifest whose end is not there.
  private func missingTargets(of manifest: Manifest) -> [TopologyProblem] {
    var problems: [TopologyProblem] = []
    func check(_ targets: [Manifest.Target], _ path: FieldPath) {
      for (index, target) in targets.enumerated() {
        guard case .address(let address) = target, let message = absence(of: address) else { continue }
        problems.append(TopologyProblem(.missingTarget, app: manifest.name, path: path.index(index), message))
      }
    }
    for slot in manifest.slots { check(slot.emits, FieldPath().key("slots").key(slot.name.text).key("emits")) }
    for signal in manifest.signals {
      check(signal.slots, FieldPath().key("signals").key(signal.name.text).key("slots"))
    }
    return problems
  }

  /// Why there is no slot at an address; nil if there is one.
  private func absence(of address: EventAddress) -> String? {
    let remedy = "deploy it before or together with this one, or list \(address) under \"optional\""
    guard let target = manifest(of: address.app) else {
      if let near = Suggestion.nearest(to: address.app.text, among: manifests.map(\.name.text)) {
        return "there is no application \(address.app): did you mean \(near)? Otherwise \(remedy)"
      }
      return "there is no application \(address.app): \(remedy)"
    }
    if target.slot(address.event) != nil { return nil }
    if target.signal(address.event) != nil {
      return "\(address.event) is a signal of \(address.app), and only its own handlers emit it: name one of its slots"
    }
    return "\(address.app) has no slot \(address.event)"
      + Suggestion.hint(for: address.event.text, among: target.slots.map(\.name.text))
  }

  /// Slots of an older version that are gone though applications outside of the deployed set emit to them.
  private func lostSlots(from old: Manifest, excluding deployed: Set<AppName>) -> [TopologyProblem] {
    let lost = old.slots.map { EventAddress(app: old.name, event: $0.name) }.filter { !hasSlot($0) }
    guard !lost.isEmpty else { return [] }
    let edges = edges
    return lost.flatMap { slot in
      edges.filter { $0.to == slot && !$0.isOptional && !deployed.contains($0.from.app) }.map { edge in
        TopologyProblem(
          .slotInUse, app: old.name, path: FieldPath().key("slots").key(slot.event.text),
          "is gone in this version, but \(edge.from) emits to it\(edge.way): keep the slot, or deploy "
            + "\(edge.from.app) first "
            + "without that connection")
      }
    }
  }
}

extension Topology.Edge {
  /// ` by the signal x`, or nothing.
  fileprivate var way: String { signal.map { " by the signal \($0)" } ?? "" }
}
