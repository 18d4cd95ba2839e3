import CGrapeLinux
import Glibc
import GrapeCommitLog
import GrapeLog
import GrapeWire
import Synchronization

/// Drives a log from one thread and waits for it.
final class Driver: Sendable {
  private let log: CommitLog
  private let done = Semaphore()

  init(_ log: CommitLog) { self.log = log }

  func createTopic(_ name: String, partitions: Int32) throws {
    log.createTopic(name, configuration: TopicConfiguration(partitions: partitions)) { _ in self.done.signal() }
    done.wait()
  }

  func close() {
    log.close { self.done.signal() }
    done.wait()
  }

  /// Commits `count` batches, at most `inFlight` of them unanswered.
  func pipeline(_ batch: FinishedBatch, count: Int, inFlight: Int, _ durability: Durability) {
    var waiting = 0
    for number in 0..<count {
      if waiting == inFlight {
        done.wait()
        waiting -= 1
      }
      log.commit(transaction(batch, Int32(number % 8), durability)) { result in
        if case .failure(let error) = result { fatalError("\(error)") }
        self.done.signal()
      }
      waiting += 1
    }
    while waiting > 0 {
      done.wait()
      waiting -= 1
    }
  }

  func assistedCommit(_ batch: FinishedBatch) {
    let flag = Flag()
    log.commit(transaction(batch, 0, .disk)) { _ in flag.raise() }
    log.assist()
    precondition(flag.isUp, "assist() did not write")
  }

  private func transaction(_ batch: FinishedBatch, _ partition: Int32, _ durability: Durability) -> Transaction {
    Transaction(
      durability: durability,
      appends: [
        .init(
          TopicPartition("bench", partition), batch: batch.bytes, maxTimestamp: batch.maxTimestamp,
          recordCount: batch.recordCount)
      ])
  }

  /// Reads one partition from its beginning, as a lagging consumer would: twice, the files cached and not.
  func replay() {
    for name in ["warm", "again"] {
      var next: Int64 = 0
      var bytes = 0
      let began = grape_monotonic_ns()
      while bytes < 1 << 30 {
        let box = ResultBox()
        log.read(TopicPartition("bench", 3), from: next, maxBytes: 4 << 20) { answer in
          if case .success(let found) = answer { box.put(found) }
          self.done.signal()
        }
        done.wait()
        guard let found = box.take(), let last = found.batches.last else { break }
        bytes += found.batches.reduce(0) { $0 + $1.bytes.count }
        next = last.lastOffset + 1
      }
      let took = Double(grape_monotonic_ns() - began) / 1e9
      print("replay of one of 8 partitions, \(name): \(bytes >> 20) MiB at \(Int(Double(bytes) / 1e6 / took)) MB/s")
    }
  }

  func cpuSeconds(_ threadName: String) -> Double {
    var total = 0.0
    guard let stream = opendir("/proc/self/task") else { return 0 }
    defer { closedir(stream) }
    while let entry = readdir(stream) {
      let id = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      let text = read("/proc/self/task/\(id)/stat")
      guard text.contains("(\(threadName))") else { continue }
      let fields = text.split(separator: ")").last!.split(separator: " ")
      total += Double((Int(fields[11]) ?? 0) + (Int(fields[12]) ?? 0)) / 100
    }
    return total
  }

  private func read(_ path: String) -> String {
    let file = open(path, O_RDONLY)
    if file < 0 { return "" }
    defer { Glibc.close(file) }
    var bytes = [UInt8](repeating: 0, count: 4_096)
    let count = Glibc.read(file, &bytes, bytes.count)
    return String(decoding: bytes.prefix(max(count, 0)), as: UTF8.self)
  }
}

final class Flag: Sendable {
  private let state = Atomic(false)
  var isUp: Bool { state.load(ordering: .acquiring) }
  func raise() { state.store(true, ordering: .releasing) }
}

final class ResultBox: Sendable {
  private let result = Mutex<ReadResult?>(nil)
  func put(_ value: ReadResult) { result.withLock { $0 = value } }
  func take() -> ReadResult? { result.withLock { $0 } }
}

/// A counting semaphore.
final class Semaphore: @unchecked Sendable {
  private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
  init() { sem_init(semaphore, 0, 0) }
  deinit {
    sem_destroy(semaphore)
    semaphore.deallocate()
  }
  func signal() { sem_post(semaphore) }
  func wait() { while sem_wait(semaphore) != 0 {} }
}
