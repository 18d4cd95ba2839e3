internal import CGrapeLinux
internal import GrapeCore
internal import GrapeLog
internal import GrapeReactor
internal import GrapeWire
internal import Logging

/// Says what this node is and does in the topic `_grape.nodes`, where all nodes of a log look, and keeps what the others say. Lives on the
/// reactor's thread.
final class ClusterView {
  private let name: String
  private let log: any EventLog
  private let reactor: Reactor
  private let logger: Logger
  /// What this node says of itself.
  private let describe: () -> JSONValue
  private(set) var table: NodeTable
  private var follower: TopicFollower?
  private var isSpeaking = false
  private var isClosed = false
  /// Nodes whose clocks differ too much.
  private var apart: Set<String> = []
  /// What lies before it was there when this node came.
  private var beginning: Int64 = 0

  private static let place = TopicPartition(SystemTopic.nodes, 0)
  /// What was said longer ago is not looked at, milliseconds.
  private static let memory: Int64 = 60_000

  init(
    name: String, log: any EventLog, reactor: Reactor, logger: Logger, describe: @escaping () -> JSONValue
  ) {
    self.name = name
    self.log = log
    self.reactor = reactor
    self.logger = logger
    self.describe = describe
    table = NodeTable(now: reactor.now)
  }

  /// Begins to speak and to listen.
  func start() {
    speak()
    log.bounds(
      of: Self.place,
      completion: reactor.completion { [self] result in
        guard case .success(let bounds) = result else { return follow(from: 0) }
        beginning = bounds.end
        log.offset(
          of: Self.place, at: grape_realtime_ms() - Self.memory,
          completion: reactor.completion { [self] result in
            follow(from: (try? result.get()) ?? bounds.end)
          })
      })
  }

  private func follow(from offset: Int64) {
    guard !isClosed else { return }
    let follower = TopicFollower(Self.place, log: log, reactor: reactor, logger: logger) { [unowned self] in take($0) }
    self.follower = follower
    follower.start(at: offset)
  }

  private func take(_ placed: PlacedRecord) {
    guard let key = placed.record.key, let value = placed.record.value else { return }
    let node = String(decoding: key, as: UTF8.self)
    // What somebody else wrote there is no node.
    guard (try? NodeName(node)) != nil, let description = try? JSONValue(parsing: value) else { return }
    table.heard(node, description, now: reactor.now, time: reactor.clock.wall, isOld: placed.offset < beginning)
    if node != name { noteClock(of: node) }
  }

  /// Says once that another's clock differs, and once that it does not any more.
  private func noteClock(of node: String) {
    guard let ahead = table.entries[node]?.clockAhead else { return }
    let isApart = abs(ahead) >= NodeTable.clockTolerance
    guard isApart != apart.contains(node) else { return }
    if isApart {
      apart.insert(node)
      logger.warning(
        "the clock of another node differs from this one's: events with a deadline that one accepts and the other runs expire early or late; set the clocks (NTP)",
        metadata: ["node": "\(node)", "ahead.ms": "\(ahead)"])
    } else {
      apart.remove(node)
      logger.info("the clock of another node agrees with this one's again", metadata: ["node": "\(node)"])
    }
  }

  /// Says how things are, now and then again and again. One statement is under way at a time: while the log is away there are no more.
  private func speak() {
    guard !isClosed, !isSpeaking else { return }
    isSpeaking = true
    say(describe()) { [weak self] in
      guard let self else { return }
      isSpeaking = false
      reactor.schedule(after: NodeTable.interval) { [weak self] in self?.speak() }
    }
  }

  /// Says that this node leaves, and nothing more. `completion` when that is in the log, or cannot be.
  func close(completion: @escaping () -> Void) {
    guard !isClosed else { return completion() }
    isClosed = true
    follower?.close()
    say(["node": .string(name), "left": true, "timeMs": .int(grape_realtime_ms())], completion)
  }

  private func say(_ description: JSONValue, _ done: @escaping () -> Void) {
    var builder = RecordBatchBuilder(capacity: 1024)
    builder.append(
      key: ByteSlice(name), value: ByteSlice(description.utf8), headerSection: HeaderSection.empty,
      timestamp: grape_realtime_ms())
    let batch: FinishedBatch
    do throws(WireError) { batch = try builder.take() } catch {
      preconditionFailure("a batch without compression cannot fail: \(error)")
    }
    let append = Transaction.Append(
      Self.place, batch: batch.bytes, maxTimestamp: batch.maxTimestamp, recordCount: batch.recordCount)
    log.commit(
      Transaction(durability: .memory, appends: [append]),
      completion: reactor.completion { [logger] result in
        if case .failure(let error) = result, error.code != .closed {
          logger.warning("the other nodes cannot be told how this one is", metadata: ["error": "\(error)"])
        }
        done()
      })
  }
}
