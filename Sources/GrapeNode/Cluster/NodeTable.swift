internal import GrapeCore

/// What is known of the nodes that share a log, by what each says of itself again and again. Pure.
///
/// Times are this node's own: clocks of machines may differ, so what counts is when something was heard, not what time it says.
struct NodeTable {
  /// A node as it described itself last.
  struct Entry: Equatable {
    var description: JSONValue
    /// When it was heard, monotonic, nanoseconds; nil: only in what lay in the log when this node came.
    var heardAt: Int64?
    /// It said that it leaves.
    var hasLeft: Bool
    /// By how much its clock seemed to be ahead of ours each time it was heard lately, milliseconds: less the time that its word was under way.
    fileprivate(set) var clockSamples: [Int64] = []

    /// By how much its clock is ahead of ours, milliseconds, as far as that can be told: at least by so much, and by more only if all that was heard
    /// lately came late. nil: it was not heard.
    var clockAhead: Int64? { clockSamples.max() }
  }

  /// What can be said of a node's state.
  enum Condition: String {
    case up
    /// Nothing was heard of it for `silence`.
    case silent
    /// It was stopped in order.
    case left
  }

  /// Nodes describe themselves so often, nanoseconds.
  static let interval: Int64 = 2_000_000_000
  /// A node that says nothing for so long is taken for gone.
  static let silence: Int64 = 10_000_000_000
  /// Nodes that are remembered; of more, those that were heard of longest ago are forgotten.
  static let limit = 1_000
  /// Clocks that are further apart are worth a warning, milliseconds.
  static let clockTolerance: Int64 = 1_000
  private static let clockSamples = 5

  private(set) var entries: [String: Entry] = [:]
  private let startedAt: Int64

  init(now: Int64) { startedAt = now }

  /// A node has said something of itself.
  ///
  /// - Parameters:
  ///   - time: what time of day it is here, milliseconds since 1970.
  ///   - isOld: it was in the log before this node looked.
  mutating func heard(_ name: String, _ description: JSONValue, now: Int64, time: Int64, isOld: Bool) {
    var samples = entries[name]?.clockSamples ?? []
    if !isOld, let said = description["timeMs"]?.int {
      let (ahead, overflow) = said.subtractingReportingOverflow(time)
      if !overflow { samples.append(ahead) }
    }
    entries[name] = Entry(
      description: description, heardAt: isOld ? nil : now, hasLeft: description["left"]?.bool ?? false,
      clockSamples: samples.suffix(Self.clockSamples))
    guard entries.count > Self.limit else { return }
    if let oldest = entries.min(by: { ($0.value.heardAt ?? 0) < ($1.value.heardAt ?? 0) })?.key {
      entries[oldest] = nil
    }
  }

  func condition(of entry: Entry, now: Int64) -> Condition {
    if entry.hasLeft { return .left }
    return now - (entry.heardAt ?? startedAt) > Self.silence ? .silent : .up
  }

  /// The nodes that are up, other than `name`, with what is known of their clocks, in order of name.
  func clocks(otherThan name: String, now: Int64) -> [(node: String, ahead: Int64)] {
    entries.compactMap { node, entry in
      guard node != name, condition(of: entry, now: now) == .up, let ahead = entry.clockAhead else { return nil }
      return (node, ahead)
    }.sorted { $0.node < $1.node }
  }

  /// The node that said last that it works on a partition, other than `name`; nil: nobody that is up.
  func owner(of partition: Int32, app: String, otherThan name: String, now: Int64) -> String? {
    entries.first { node, entry in
      guard node != name, condition(of: entry, now: now) == .up else { return false }
      return entry.description["apps"]?.array?.contains { found in
        found["name"]?.string == app
          && found["partitions"]?.array?.contains { $0["partition"]?.int == Int64(partition) } == true
      } == true
    }?.key
  }

  /// As in the answer to `cluster`: in order of name.
  func json(now: Int64) -> JSONValue {
    .array(
      entries.sorted { $0.key < $1.key }.map { name, entry in
        var members: [JSONValue.Member] = [
          .init("node", .string(name)), .init("condition", .string(condition(of: entry, now: now).rawValue)),
          .init("heardMsAgo", entry.heardAt.map { .int((now - $0) / 1_000_000) } ?? .null),
          .init("clockAheadMs", entry.clockAhead.map { .int($0) } ?? .null),
        ]
        if case .object(let described) = entry.description {
          members += described.filter { !["node", "left"].contains($0.name) }
        }
        return .object(members)
      })
  }
}
