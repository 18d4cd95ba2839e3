extension Manifest {
  /// A topic of the log that is not Grape's, and the slot to which its records come as events.
  public struct Source: Hashable, Sendable {
    public var topic: TopicName
    /// A slot of the application.
    public var slot: EventName
    /// Where to begin in a partition of which the application has consumed nothing yet.
    public var start: Start
    /// How the events get their keys.
    public var key: Key
    /// The topic need not be there when the application is deployed.
    public var isOptional: Bool

    public init(
      topic: TopicName, slot: EventName, start: Start = .earliest, key: Key = .record, isOptional: Bool = false
    ) {
      self.topic = topic
      self.slot = slot
      self.start = start
      self.key = key
      self.isOptional = isOptional
    }

    /// Where to begin.
    public enum Start: Hashable, Sendable, CustomStringConvertible {
      /// With the first record that is kept.
      case earliest
      /// With the records that come from now on.
      case latest
      /// With the first record of this time or later, milliseconds since 1970 UTC.
      case time(Int64)

      /// Reads `earliest`, `latest` or a time (`2026-11-01T00:00:00Z`); nil if it is none of them.
      public init?(_ text: String) {
        switch text {
        case "earliest": self = .earliest
        case "latest": self = .latest
        default:
          guard let time = CalendarTime(text) else { return nil }
          self = .time(time.milliseconds)
        }
      }

      public var description: String {
        switch self {
        case .earliest: "earliest"
        case .latest: "latest"
        case .time(let milliseconds): CalendarTime(milliseconds: milliseconds).text
        }
      }
    }

    /// Where an event's key comes from.
    public enum Key: Hashable, Sendable, CustomStringConvertible {
      /// The record's own key; without one the event has none.
      case record
      /// The value of a header, or the record's own key where it is missing.
      case header(String)

      private static let headerPrefix = "header:"

      /// Reads `record` or `header:NAME`; nil if it is neither.
      public init?(_ text: String) {
        if text == "record" {
          self = .record
        } else if text.hasPrefix(Self.headerPrefix), text.utf8.count > Self.headerPrefix.utf8.count {
          self = .header(String(text.dropFirst(Self.headerPrefix.count)))
        } else {
          return nil
        }
      }

      public var description: String {
        switch self {
        case .record: "record"
        case .header(let name): Self.headerPrefix + name
        }
      }
    }
  }

  /// Topics that are not Grape's and that the application writes to, in order.
  public var sinkTopics: [TopicName] { Set(signals.flatMap(\.topics)).sorted() }

  /// What is wrong with the sources, taken alone.
  func sourceProblems(_ problems: inout [FieldProblem]) {
    let root = FieldPath().key("sources")
    if sources.count > Self.maximumSources {
      problems.append(
        FieldProblem(root, "has \(sources.count) topics: at most \(Self.maximumSources) are allowed"))
    }
    var seen: Set<TopicName> = []
    for source in sources {
      let path = root.key(source.topic.text)
      if !seen.insert(source.topic).inserted { problems.append(FieldProblem(path, "is there twice")) }
      if let message = ownership(of: source.topic) { problems.append(FieldProblem(path, message)) }
      guard slot(source.slot) == nil else { continue }
      problems.append(
        FieldProblem(
          path.key("slot"),
          "\(source.slot) is no slot of \(name)"
            + Suggestion.hint(for: source.slot.text, among: slots.map(\.name.text))
            + " (a source leads to a slot of its own application)"))
    }
  }

  /// What is wrong with the topics that a signal is connected to.
  func topicProblems(_ topics: [TopicName], _ path: FieldPath, _ problems: inout [FieldProblem]) {
    if topics.count > Self.maximumEmits {
      problems.append(FieldProblem(path, "has \(topics.count) names: at most \(Self.maximumEmits) are allowed"))
    }
    var seen: Set<TopicName> = []
    for (index, topic) in topics.enumerated() {
      if !seen.insert(topic).inserted {
        problems.append(FieldProblem(path.index(index), "\(topic) is connected twice: once is enough"))
      } else if let message = ownership(of: topic) {
        problems.append(FieldProblem(path.index(index), message))
      }
    }
  }

  /// Why a topic is not one for sources and sinks, as far as this manifest tells.
  private func ownership(of topic: TopicName) -> String? {
    if topic.isSystem { return "\(topic) belongs to Grape's nodes: name a topic that is not Grape's" }
    guard topic.possibleOwner == name else { return nil }
    return "\(topic) belongs to \(name) itself: events for a slot of it are emitted to the slot"
  }
}
