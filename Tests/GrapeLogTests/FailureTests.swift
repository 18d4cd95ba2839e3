import Foundation
import GrapeCommitLog
import GrapeLog
import GrapeTestKit
import Synchronization
import Testing

@Suite("When the disk fails") struct FailureTests {
  private let partition = TopicPartition("a", 0)

  private func open(
    _ files: LogFiles, _ options: CommitLogOptions = CommitLogOptions()
  ) async throws -> (CommitLog, FaultyStorage) {
    let storage = try FaultyStorage(files.path)
    let (log, _) = try CommitLog.open(storage: storage, options: options, clock: FaultyStorage.clock)
    try await log.createTopic("a", configuration: TopicConfiguration(partitions: 1))
    return (log, storage)
  }

  enum Fault: CaseIterable { case write, sync, segment }

  @Test(
    "commits are refused for good, reads go on, and a new start has all that was acknowledged",
    arguments: Fault.allCases)
  func terminal(_ fault: Fault) async throws {
    let files = LogFiles()
    var options = CommitLogOptions()
    options.segmentBytes = 1 << 20
    let (log, storage) = try await open(files, options)
    try await append(log, ["kept"])
    storage.faults.withLock { faults in
      switch fault {
      case .write: faults.failWrites = true
      case .sync: faults.failSyncs = true
      case .segment: faults.failCreations = true
      }
    }
    let large = String(repeating: "x", count: fault == .segment ? 2 << 20 : 10_000)
    let first = await logError { try await append(log, ["lost", large]) }
    #expect(first?.code == .failed)
    #expect(first?.message.contains(files.path) == true, "the message names the file: \(first?.message ?? "")")
    storage.faults.withLock { $0 = FaultyStorage.Faults() }
    #expect(await logError { try await append(log, ["later"]) }?.code == .failed)
    #expect(await logError { try await log.deleteTopic("a") }?.code == .failed)
    try await expectValues(log, partition, ["kept"])
    await log.close()
    #expect(await logError { try await append(log, ["closed"]) } != nil)

    try await files.withLog(options) { log, _ in
      let found = try await values(log, partition)
      // What was answered with a failure may have got to the disk, whole.
      #expect(found == ["kept"] || (fault == .sync && found == ["kept", "lost", large]))
      try await append(log, ["new"])
    }
  }

  @Test("all that wait when a write fails are answered with the failure")
  func pendingFail() async throws {
    let files = LogFiles()
    let (log, storage) = try await open(files)
    let gate = Gate()
    storage.faults.withLock { faults in
      faults.gate = gate
      faults.failSyncs = true
    }
    let codes = Mutex<[LogError.Code?]>([])
    await withCheckedContinuation { continuation in
      for number in 0..<20 {
        log.commit(Transaction(appends: [SampleBatch.append(["\(number)"], to: partition)])) { result in
          let count = codes.withLock { codes in
            if case .failure(let error) = result { codes.append(error.code) } else { codes.append(nil) }
            return codes.count
          }
          if count == 20 { continuation.resume() }
        }
        if number == 0 { gate.waitForArrival() }
      }
      gate.letThrough()
    }
    #expect(codes.withLock { $0 } == [LogError.Code?](repeating: .failed, count: 20))
    storage.faults.withLock { $0 = FaultyStorage.Faults() }
    await log.close()
  }

  private func maintain(_ log: CommitLog) async {
    await withCheckedContinuation { continuation in log.maintain { continuation.resume() } }
  }

  @Test(
    "below the low-space mark new records are refused, work on those that are there goes on, and more space ends it")
  func lowSpace() async throws {
    let files = LogFiles()
    let (log, storage) = try await open(files)
    try await append(log, ["kept"])
    let claim = Transaction.OffsetCommit(group: "g", partition: partition, committed: CommittedOffset(offset: 1))
    storage.faults.withLock { $0.available = Int64(2 * CommitLogOptions().segmentBytes - 1) }
    await maintain(log)
    let error = await logError { try await append(log, ["refused"]) }
    #expect(error?.code == .noSpace)
    #expect(error?.message.contains(files.path) == true)
    let result = Transaction(appends: [SampleBatch.append(["output"], to: partition)], offsets: [claim])
    try await log.commit(result)
    // The very last space is for giving up records.
    storage.faults.withLock { $0.available = 1_000 }
    await maintain(log)
    #expect(await logError { try await log.commit(result) }?.code == .noSpace)
    try await log.commit(Transaction(offsets: [claim]))
    try await log.deleteRecords(of: partition, before: 1)
    storage.faults.withLock { $0.available = nil }
    await maintain(log)
    try await append(log, ["again"])
    #expect(try await log.read(partition, from: 1, maxBytes: 1_000).batches.map(\.lastOffset) == [1, 2])
    await log.close()
  }

  @Test("a segment for which there is no room refuses the commits that need it, and nothing else")
  func noRoom() async throws {
    let files = LogFiles()
    var options = CommitLogOptions()
    options.segmentBytes = 1 << 20
    let (log, storage) = try await open(files, options)
    storage.faults.withLock { $0.isFull = true }
    let large = String(repeating: "x", count: 2 << 20)
    for _ in 0..<3 {
      #expect(await logError { try await append(log, [large]) }?.code == .noSpace)
      try await append(log, ["small"])
    }
    storage.faults.withLock { $0.isFull = false }
    try await append(log, [large])
    try await expectValues(log, partition, ["small", "small", "small", large])
    await log.close()
    #expect(try CommitLog.verify(directory: files.path).problems.map(\.description) == [])
  }
}

@Suite("How commits are grouped") struct GroupingTests {
  private let partition = TopicPartition("a", 0)

  /// A log whose synchronisations wait at a gate, with one commit standing at it.
  private func gated(
    _ files: LogFiles, _ options: CommitLogOptions = CommitLogOptions()
  ) async throws -> (CommitLog, FaultyStorage, Gate) {
    let storage = try FaultyStorage(files.path)
    let (log, _) = try CommitLog.open(storage: storage, options: options, clock: FaultyStorage.clock)
    try await log.createTopic("a", configuration: TopicConfiguration(partitions: 1))
    let gate = Gate()
    storage.faults.withLock { $0.gate = gate }
    log.commit(Transaction(appends: [SampleBatch.append(["first"], to: partition)])) { _ in }
    gate.waitForArrival()
    return (log, storage, gate)
  }

  @Test("all that comes while the disk is busy shares one group and one synchronisation")
  func shared() async throws {
    let files = LogFiles()
    let (log, storage, gate) = try await gated(files)
    let before = log.statistics
    storage.faults.withLock { $0.gate = nil }
    await withCheckedContinuation { continuation in
      let left = Mutex(50)
      for number in 0..<50 {
        log.commit(Transaction(appends: [SampleBatch.append(["\(number)"], to: partition)])) { _ in
          let last = left.withLock { left in
            left -= 1
            return left == 0
          }
          if last { continuation.resume() }
        }
      }
      gate.letThrough()
    }
    let after = log.statistics
    #expect(after.commits - before.commits == 51)
    #expect(after.groups - before.groups == 2)
    #expect(after.syncs - before.syncs == 2)
    await log.close()
  }

  @Test("nothing is visible before the durability asked for is reached")
  func invisible() async throws {
    let files = LogFiles()
    let (log, storage, gate) = try await gated(files)
    #expect(try await log.bounds(of: partition).end == 0)
    storage.faults.withLock { $0.gate = nil }
    gate.letThrough()
    await log.waitUntilAvailable(partition, after: 0)
    #expect(try await log.bounds(of: partition).end == 1)
    await log.close()
  }

  @Test("commits beyond the queue's limit are refused as busy, and taken again later")
  func busy() async throws {
    let files = LogFiles()
    var options = CommitLogOptions()
    options.queueBytes = 10_000
    let (log, storage, gate) = try await gated(files, options)
    storage.faults.withLock { $0.gate = nil }
    let value = String(repeating: "x", count: 6_000)
    log.commit(Transaction(appends: [SampleBatch.append([value], to: partition)])) { _ in }
    #expect(await logError { try await append(log, [value]) }?.code == .busy)
    gate.letThrough()
    await log.waitUntilAvailable(partition, after: 1)
    try await append(log, [value])
    // One alone may be larger than the whole queue.
    try await append(log, [String(repeating: "x", count: 20_000)])
    await log.close()
  }

  @Test("a transaction larger than the limit is refused as too large")
  func tooLarge() async throws {
    let files = LogFiles()
    var options = CommitLogOptions()
    options.transactionBytes = 10_000
    try await files.withLog(options) { log, _ in
      try await log.createTopic("a", configuration: TopicConfiguration(partitions: 1))
      #expect(await logError { try await append(log, [String(repeating: "x", count: 10_000)]) }?.code == .tooLarge)
    }
  }

  @Test("a group larger than a segment gets a segment of its own")
  func largeGroup() async throws {
    let files = LogFiles()
    var options = CommitLogOptions()
    options.segmentBytes = 1 << 20
    let large = String(repeating: "x", count: 5 << 20)
    try await files.withLog(options) { log, _ in
      try await log.createTopic("a", configuration: TopicConfiguration(partitions: 1))
      try await append(log, ["small"])
      try await append(log, [large])
      try await append(log, ["small again"])
      let found = try await values(log, partition)
      #expect(found == ["small", large, "small again"])
    }
    try await files.withLog(options) { log, _ in
      let found = try await values(log, partition)
      #expect(found == ["small", large, "small again"])
    }
    #expect(try CommitLog.verify(directory: files.path).problemCount == 0)
  }
}

@Suite("A thread that assists the writer") struct AssistTests {
  private let partition = TopicPartition("a", 0)

  @Test("its commits wait for assist(), which writes them on the spot; those of others do not wait")
  func assist() async throws {
    let files = LogFiles()
    try await files.withLog { log, _ in
      try await log.createTopic("a", configuration: TopicConfiguration(partitions: 1))
      let finished = DispatchSemaphore(value: 0)
      let finishedAll = DispatchSemaphore(value: 0)
      let thread = Thread {
        log.becomeDeputy()
        for number in 0..<100 {
          let answers = Mutex(0)
          for _ in 0...number % 3 {
            log.commit(Transaction(appends: [SampleBatch.append(["assisted"], to: TopicPartition("a", 0))])) { _ in
              answers.withLock { $0 += 1 }
            }
          }
          #expect(answers.withLock { $0 } == 0)
          log.assist()
          #expect(answers.withLock { $0 } == 1 + number % 3)
        }
        // Left to the writing thread, because of its size.
        log.commit(
          Transaction(appends: [
            SampleBatch.append([String(repeating: "x", count: 100_000)], to: TopicPartition("a", 0))
          ])
        ) { _ in finished.signal() }
        log.assist()
        finished.wait()
        // Not assisted at all: taken over when the deputy resigns.
        log.commit(Transaction(appends: [SampleBatch.append(["last"], to: TopicPartition("a", 0))])) { _ in
          finished.signal()
        }
        log.resignDeputy()
        finished.wait()
        finishedAll.signal()
      }
      thread.start()
      await withCheckedContinuation { continuation in
        Thread {
          finishedAll.wait(); continuation.resume()
        }.start()
      }
      // Registered or not, an deputy that is gone holds nobody up.
      for _ in 0..<50 { try await append(log, ["other"]) }
      #expect(log.statistics.assisted > 0)
      let all = try await values(log, partition)
      #expect(all.count { $0 == "assisted" } == 199)
      #expect(all.count { $0 == "other" } == 50)
      #expect(all.last == "other")
    }
  }
}
