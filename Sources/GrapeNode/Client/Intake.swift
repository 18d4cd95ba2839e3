internal import CGrapeLinux
internal import GrapeCore
internal import GrapeEngine
internal import GrapeLog
internal import GrapeReactor
internal import GrapeWire

/// Single events on their way into the log: those that come in during one turn of the reactor are appended together, one record batch per
/// partition, one transaction per durability.
final class Intake {
  /// An event as EXEC brings it.
  struct Event {
    var slot: Int
    var key: UnsafeRawBufferPointer?
    var value: UnsafeRawBufferPointer?
    /// Grape's headers and the event's own, encoded.
    var headerSection: ByteSlice
  }

  /// A record for another topic that goes into the log with an event, or not at all.
  struct Companion {
    /// Of one partition.
    var topic: String
    var key: ByteSlice
    var value: ByteSlice
  }

  /// Where an event ended up, or why it did not.
  typealias Outcome = Result<Place, StatusError>

  struct Place {
    var topic: String
    var partition: Int32
    var offset: Int64
    var durability: Durability
    /// Of the record that came with it, if one did.
    var companionOffset: Int64?
  }

  private struct Destination: Hashable {
    var topic: String
    var partition: Int32
    var durability: Durability
  }

  private final class Gathering {
    /// nil: companions, which no application runs.
    let engine: ApplicationEngine?
    var builder = RecordBatchBuilder(capacity: 4096)
    var counts: [Int]
    var waiting: [Waiting] = []

    init(_ engine: ApplicationEngine?) {
      self.engine = engine
      counts = [Int](repeating: 0, count: engine?.slotNames.count ?? 0)
    }
  }

  private struct Waiting {
    /// Where the event's companion is: a batch, and the record in it.
    var companion: (destination: Destination, record: Int64)?
    var completion: (Outcome) -> Void
  }

  private let gate: CommitGate
  private var gathered: [Destination: Gathering] = [:]
  private var spread: Int32 = 0

  init(gate: CommitGate) { self.gate = gate }

  /// The partition for an event: by its key, or in turns.
  func partition(forKey key: UnsafeRawBufferPointer?, of engine: ApplicationEngine) -> Int32 {
    if let key { return Partitioner.partition(forKey: key, of: engine.partitions) }
    spread = (spread + 1) % engine.partitions
    return spread
  }

  /// Takes an event in; copies its bytes. `completion` runs once it has the durability asked for, or cannot get it.
  ///
  /// - Parameter companion: a record that is to be in the same commit.
  func add(
    _ event: Event, to engine: ApplicationEngine, partition: Int32, durability: Durability,
    companion: Companion? = nil, completion: @escaping (Outcome) -> Void
  ) {
    let now = grape_realtime_ms()
    var waiting = Waiting(companion: nil, completion: completion)
    if let companion {
      let destination = Destination(topic: companion.topic, partition: 0, durability: durability)
      let gathering = gathering(destination, nil)
      waiting.companion = (destination, Int64(gathering.builder.recordCount))
      gathering.builder.append(
        key: companion.key, value: companion.value, headerSection: HeaderSection.empty, timestamp: now)
    }
    let gathering = gathering(
      Destination(topic: engine.topic, partition: partition, durability: durability), engine)
    gathering.builder.append(
      key: event.key, value: event.value, headerSection: event.headerSection.unsafeBytes, timestamp: now)
    gathering.counts[event.slot] += 1
    gathering.waiting.append(waiting)
    if gathering.builder.byteCount > 1024 * 1024 { flush() }
  }

  private func gathering(_ destination: Destination, _ engine: ApplicationEngine?) -> Gathering {
    if let existing = gathered[destination] { return existing }
    let gathering = Gathering(engine)
    gathered[destination] = gathering
    return gathering
  }

  /// Hands what was gathered to the log. To be called at the end of each turn.
  func flush() {
    guard !gathered.isEmpty else { return }
    let all = gathered
    gathered.removeAll(keepingCapacity: true)
    for durability in Durability.allCases {
      let parts = all.filter { $0.key.durability == durability }.sorted {
        ($0.key.topic, $0.key.partition) < ($1.key.topic, $1.key.partition)
      }
      if !parts.isEmpty { commit(parts.map { ($0.key, $0.value) }, durability) }
    }
  }

  private func commit(_ parts: [(Destination, Gathering)], _ durability: Durability) {
    var transaction = Transaction(durability: durability)
    var arrivals: [(ApplicationEngine, ApplicationEngine.Arrival)] = []
    for (destination, gathering) in parts {
      do throws(WireError) {
        let batch = try gathering.builder.take()
        transaction.appends.append(
          .init(
            TopicPartition(destination.topic, destination.partition), batch: batch.bytes,
            maxTimestamp: batch.maxTimestamp, recordCount: batch.recordCount))
      } catch {
        preconditionFailure("a batch without compression cannot fail: \(error)")
      }
      guard let engine = gathering.engine else { continue }
      let arrival = ApplicationEngine.Arrival(
        partition: destination.partition, counts: gathering.counts,
        timestamp: transaction.appends[transaction.appends.count - 1].maxTimestamp)
      arrivals.append((engine, arrival))
      engine.noteAppended(arrival)
    }
    gate.commit(transaction) { result in
      if case .failure = result { for (engine, arrival) in arrivals { engine.noteRefused(arrival) } }
      let places = Dictionary(uniqueKeysWithValues: parts.indices.map { (parts[$0].0, $0) })
      for (index, (destination, gathering)) in parts.enumerated() {
        for (position, waiting) in gathering.waiting.enumerated() {
          waiting.completion(
            result.map { receipt in
              Place(
                topic: destination.topic, partition: destination.partition,
                offset: receipt.offset(ofRecord: Int64(position), append: index), durability: receipt.durability,
                companionOffset: waiting.companion.flatMap { companion in
                  places[companion.destination].map { receipt.offset(ofRecord: companion.record, append: $0) }
                })
            }.mapError { StatusError($0) })
        }
      }
    }
  }
}

extension StatusError {
  /// A failure of the log, as clients are told.
  init(_ error: LogError) {
    let status: Status =
      switch error.code {
      case .noSuchTopic, .noSuchPartition: .notFound
      case .offsetOutOfRange: .offsetOutOfRange
      case .invalidArgument: .badRequest
      case .tooLarge: .tooLarge
      case .busy: .queueFull
      case .topicExists: .conflict
      case .unauthorized: .unauthorized
      case .failed, .unknown, .closed, .corrupt, .noSpace: .unavailable
      default: .internal
      }
    // After a failed write nobody knows what is on the disk: the event may yet run.
    self.init(status, error.message, ran: error.code == .failed || error.code == .unknown ? .unknown : .never)
  }
}
