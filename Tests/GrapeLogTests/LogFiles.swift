import Foundation
import GrapeCommitLog
import GrapeLog
import GrapeTestKit
import Testing

/// A log's directory under a test's hands.
final class LogFiles: Sendable {
  let directory = TemporaryDirectory()

  var path: String { directory.path }

  /// Names of the segment files in order.
  func segments() throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: path + "/log").filter { $0.hasSuffix(".log") }.sorted()
  }

  func read(_ name: String) throws -> [UInt8] {
    [UInt8](try Data(contentsOf: URL(filePath: path + "/log/" + name)))
  }

  func write(_ bytes: some Collection<UInt8>, to name: String) throws {
    try Data(bytes).write(to: URL(filePath: path + "/log/" + name))
  }

  func open(_ options: CommitLogOptions = CommitLogOptions()) throws -> (CommitLog, RecoveryReport) {
    try CommitLog.open(directory: path, options: options)
  }

  /// Removes the checkpoints; returns them.
  func takeCheckpoints() throws -> [String: [UInt8]] {
    var taken: [String: [UInt8]] = [:]
    for name in try FileManager.default.contentsOfDirectory(atPath: path + "/log") where name.hasSuffix(".checkpoint") {
      taken[name] = try read(name)
      try FileManager.default.removeItem(atPath: path + "/log/" + name)
    }
    return taken
  }

  func putBack(_ files: [String: [UInt8]]) throws {
    for (name, bytes) in files { try write(bytes, to: name) }
  }

  /// Opens, runs `body`, closes.
  func withLog<Result>(
    _ options: CommitLogOptions = CommitLogOptions(), _ body: (CommitLog, RecoveryReport) async throws -> Result
  ) async throws -> Result {
    let (log, report) = try open(options)
    do {
      let result = try await body(log, report)
      await log.close()
      return result
    } catch {
      await log.close()
      throw error
    }
  }

  /// All groups that the files hold.
  func groups() throws -> [CommitLogScanner.Group] {
    var scanner = try CommitLogScanner(directory: path)
    var groups: [CommitLogScanner.Group] = []
    while let group = try scanner.next() { groups.append(group) }
    return groups
  }
}

/// All values of a partition, checked to have offsets without gaps.
func values(_ log: any EventLog, _ partition: TopicPartition) async throws -> [String] {
  var values: [String] = []
  while true {
    let result = try await log.read(partition, from: Int64(values.count), maxBytes: 1 << 20)
    if result.batches.isEmpty { return values }
    for batch in result.batches {
      for record in try SampleBatch.records(in: batch) {
        #expect(record.offset == Int64(values.count))
        values.append(record.value)
      }
    }
  }
}

func expectValues(
  _ log: any EventLog, _ partition: TopicPartition, _ expected: [String], _ comment: Comment? = nil,
  location: SourceLocation = #_sourceLocation
) async throws {
  let found = try await values(log, partition)
  #expect(found == expected, comment, sourceLocation: location)
}

@discardableResult
func append(
  _ log: any EventLog, _ values: [String], to partition: TopicPartition = TopicPartition("a", 0),
  durability: Durability = .disk
) async throws -> Int64 {
  try await log.commit(Transaction(durability: durability, appends: [SampleBatch.append(values, to: partition)]))
    .baseOffsets[0]
}

/// The error that `body` throws; fails the test if it does not.
func logError(_ body: () async throws -> Void) async -> LogError? {
  do {
    try await body()
  } catch let error as LogError {
    return error
  } catch {
    Issue.record("expected a LogError, got \(error)")
    return nil
  }
  Issue.record("expected a LogError, but it succeeded")
  return nil
}
