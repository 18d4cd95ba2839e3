import GrapeLog
import GrapeWire
import Synchronization

/// A log under test, with the questions that cases ask.
final class LogProbe: Sendable {
  let fixture: EventLogFixture
  private let current: Mutex<any EventLog>

  init(log: any EventLog, fixture: EventLogFixture) {
    current = Mutex(log)
    self.fixture = fixture
  }

  /// True if the log may keep the contract in this way.
  func has(_ trait: EventLogFixture.Traits) -> Bool { fixture.traits.contains(trait) }

  var log: any EventLog { current.withLock { $0 } }

  /// Closes the log and opens it again.
  func reopen() async throws {
    let old = log
    await old.close()
    let new = try await fixture.reopen!(old)
    current.withLock { $0 = new }
  }

  func createTopic(_ name: String, partitions: Int32 = 1) async throws {
    try await log.createTopic(name, configuration: TopicConfiguration(partitions: partitions))
  }

  @discardableResult
  func append(
    _ values: [String], to partition: TopicPartition, timestamp: Int64 = 1_000, durability: Durability = .disk
  ) async throws -> Int64 {
    let receipt = try await log.commit(
      Transaction(
        durability: durability, appends: [SampleBatch.append(values, to: partition, timestamp: timestamp)]))
    return receipt.baseOffsets[0]
  }

  /// All records from `offset` to the end, checked to be without repetition, and without gap if the log leaves none.
  func records(
    of partition: TopicPartition, from offset: Int64 = 0, maxBytes: Int = 1 << 20
  ) async throws -> [String] {
    var values: [String] = []
    var next = offset
    while true {
      let result = try await log.read(partition, from: next, maxBytes: maxBytes)
      if result.batches.isEmpty {
        if has(.leavesGaps) { next = result.nextOffset }
        try expect(next, equals: result.bounds.end, "an empty read of \(partition) means the end")
        return values
      }
      for batch in result.batches {
        let records = try SampleBatch.records(in: batch)
        try expect(records.first?.offset, equals: batch.baseOffset, "the batch's first offset")
        try expect(records.last?.offset, equals: batch.lastOffset, "the batch's last offset")
        for record in records where record.offset >= next {
          if !has(.leavesGaps) {
            try expect(record.offset, equals: next, "offsets in \(partition) are without gap")
          }
          values.append(record.value)
          next = record.offset + 1
        }
      }
    }
  }
}

func expect<Value: Equatable>(
  _ actual: Value, equals expected: Value, _ what: String, file: String = #fileID, line: Int = #line
) throws(ConformanceFailure) {
  if actual != expected {
    throw ConformanceFailure(message: "\(what): expected \(expected), got \(actual)", file: file, line: line)
  }
}

func expect(
  _ condition: Bool, _ what: String, file: String = #fileID, line: Int = #line
) throws(ConformanceFailure) {
  if !condition { throw ConformanceFailure(message: what, file: file, line: line) }
}

func expect(
  _ code: LogError.Code, _ what: String, file: String = #fileID, line: Int = #line, _ body: () async throws -> Void
) async throws {
  do {
    try await body()
  } catch let error as LogError {
    if error.code == code { return }
    throw ConformanceFailure(message: "\(what): expected \(code), got \(error)", file: file, line: line)
  }
  throw ConformanceFailure(message: "\(what): expected \(code), but it succeeded", file: file, line: line)
}
