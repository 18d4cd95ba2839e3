import Glibc
import GrapeCommitLog
import GrapeLog
import GrapeWire
import Synchronization

/// A log that is driven from threads that wait for it.
final class Driver: Sendable {
  static let topic = "bench"

  let log: CommitLog
  let report: RecoveryReport
  /// Partitions of the topic.
  let partitions: Int32

  /// Opens the log in `directory`. Its topic gets `partitions` partitions if it is not there yet.
  init(_ directory: String, options: CommitLogOptions = CommitLogOptions(), partitions: Int = 8) {
    mkdir(directory, 0o700)
    do {
      (log, report) = try CommitLog.open(directory: directory, options: options)
    } catch {
      fail("\(error)")
    }
    let log = log
    let found = awaiting { log.topics(completion: $0) }.first { $0.name == Self.topic }
    self.partitions = found?.configuration.partitions ?? Int32(partitions)
    if found == nil {
      let configuration = TopicConfiguration(partitions: Int32(partitions))
      awaiting { log.createTopic(Self.topic, configuration: configuration, completion: $0) }
    }
  }

  func close() {
    let done = Semaphore()
    log.close { done.signal() }
    done.wait()
  }

  /// Sends one batch; failure ends the program.
  func commit(
    _ batch: FinishedBatch, to partition: Int32, _ durability: Durability = .disk,
    completion: @escaping @Sendable () -> Void
  ) {
    let append = Transaction.Append(
      TopicPartition(Self.topic, partition), batch: batch.bytes, maxTimestamp: batch.maxTimestamp,
      recordCount: batch.recordCount)
    log.commit(Transaction(durability: durability, appends: [append])) { result in
      if case .failure(let error) = result { fail("commit: \(error)") }
      completion()
    }
  }

  /// Commits batches to one partition after the other until `bytes` are durable or `stop` says so, at most `inFlight` of
  /// them unanswered. Returns bytes and records.
  @discardableResult
  func append(
    _ batches: [FinishedBatch], bytes limit: Int, inFlight: Int, _ durability: Durability = .disk,
    stop: () -> Bool = { false }
  ) -> (bytes: Int, records: Int) {
    // Answers wake the producer a few at a time: one wake-up each would cost the writer more than the answers do.
    let stride = max(1, inFlight / 4)
    let answered = Answers(stride: stride)
    var (bytes, records, sent, waited) = (0, 0, 0, 0)
    while bytes < limit, !stop() {
      while sent - waited * stride >= inFlight {
        answered.wait()
        waited += 1
      }
      let batch = batches[sent % batches.count]
      commit(batch, to: Int32(sent % Int(partitions)), durability) { answered.add(1) }
      bytes += batch.bytes.count
      records += Int(batch.recordCount)
      sent += 1
    }
    let missing = (stride - sent % stride) % stride
    answered.add(missing)
    while waited * stride < sent + missing {
      answered.wait()
      waited += 1
    }
    return (bytes, records)
  }

  func bounds(_ partition: Int32) -> PartitionBounds {
    awaiting { self.log.bounds(of: TopicPartition(Self.topic, partition), completion: $0) }
  }

  func read(_ partition: Int32, from offset: Int64, maxBytes: Int) -> ReadResult {
    awaiting { self.log.read(TopicPartition(Self.topic, partition), from: offset, maxBytes: maxBytes, completion: $0) }
  }
}

/// Counts, and signals whenever another `stride` is full.
private final class Answers: Sendable {
  private let stride: Int
  private let count = Atomic(0)
  private let full = Semaphore()

  init(stride: Int) { self.stride = stride }

  /// `more` is at most `stride`.
  func add(_ more: Int) {
    if more == 0 { return }
    let (before, after) = count.add(more, ordering: .acquiringAndReleasing)
    if before / stride != after / stride { full.signal() }
  }

  func wait() { full.wait() }
}

/// The value that an operation of the log is completed with; failure ends the program.
@discardableResult
func awaiting<Value: Sendable>(
  _ operation: (@escaping @Sendable (Result<Value, LogError>) -> Void) -> Void
) -> Value {
  let slot = Slot<Value>()
  operation { slot.fill($0) }
  switch slot.wait() {
  case .success(let value): return value
  case .failure(let error): fail("\(error)")
  }
}

/// Carries a result from the thread that has it to the one that waits.
private final class Slot<Value: Sendable>: Sendable {
  private let result = Mutex<Result<Value, LogError>?>(nil)
  private let filled = Semaphore()

  func fill(_ value: Result<Value, LogError>) {
    result.withLock { $0 = value }
    filled.signal()
  }

  func wait() -> Result<Value, LogError> {
    filled.wait()
    return result.withLock { $0! }
  }
}
