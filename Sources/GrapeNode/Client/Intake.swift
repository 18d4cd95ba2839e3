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

  /// Where an event ended up, or why it did not.
  typealias Outcome = Result<Place, StatusError>

  struct Place {
    var topic: String
    var partition: Int32
    var offset: Int64
    var durability: Durability
  }

  private struct Destination: Hashable {
    var topic: String
    var partition: Int32
    var durability: Durability
  }

  private final class Gathering {
    let engine: ApplicationEngine
    var builder = RecordBatchBuilder(capacity: 4096)
    var counts: [Int]
    var waiting: [(Outcome) -> Void] = []

    init(_ engine: ApplicationEngine) {
      self.engine = engine
      counts = [Int](repeating: 0, count: engine.slotNames.count)
    }
  }

  private let gate: CommitGate
  private var gathered: [Destination: Gathering] = [:]
  private var spread: Int32 = 0

  init(gate: CommitGate) { self.gate = gate }

  /// Takes an event in; copies its bytes. `completion` runs once it has the durability asked for, or cannot get it.
  func add(
    _ event: Event, to engine: ApplicationEngine, durability: Durability, completion: @escaping (Outcome) -> Void
  ) {
    let partition: Int32
    if let key = event.key {
      partition = Partitioner.partition(forKey: key, of: engine.partitions)
    } else {
      spread = (spread + 1) % engine.partitions
      partition = spread
    }
    let destination = Destination(topic: engine.topic, partition: partition, durability: durability)
    let gathering: Gathering
    if let existing = gathered[destination] {
      gathering = existing
    } else {
      gathering = Gathering(engine)
      gathered[destination] = gathering
    }
    gathering.builder.append(
      key: event.key, value: event.value, headerSection: event.headerSection.unsafeBytes, timestamp: grape_realtime_ms()
    )
    gathering.counts[event.slot] += 1
    gathering.waiting.append(completion)
    if gathering.builder.byteCount > 1024 * 1024 { flush() }
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
      let arrival = ApplicationEngine.Arrival(
        partition: destination.partition, counts: gathering.counts,
        timestamp: transaction.appends[transaction.appends.count - 1].maxTimestamp)
      arrivals.append((gathering.engine, arrival))
      gathering.engine.noteAppended(arrival)
    }
    gate.commit(transaction) { result in
      if case .failure = result { for (engine, arrival) in arrivals { engine.noteRefused(arrival) } }
      for (index, (destination, gathering)) in parts.enumerated() {
        for (position, completion) in gathering.waiting.enumerated() {
          completion(
            result.map { receipt in
              Place(
                topic: destination.topic, partition: destination.partition,
                offset: receipt.baseOffsets[index] + Int64(position), durability: receipt.durability)
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
      case .failed, .closed, .corrupt, .noSpace: .unavailable
      default: .internal
      }
    // After a failed write nobody knows what is on the disk: the event may yet run.
    self.init(status, error.message, ran: error.code == .failed ? .unknown : .never)
  }
}
