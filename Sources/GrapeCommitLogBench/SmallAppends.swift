import CGrapeLinux
import Glibc
import GrapeCommitLog
import GrapeLog
import GrapeWire
import Synchronization

/// How long one durable append of 256 bytes takes while nothing else goes on.
enum Latency {
  private static let warmUp = 200

  static func run(_ arguments: Arguments) {
    let count = arguments.integer("count")
    let assisted = arguments.integer("assist", or: 0) != 0
    var options = CommitLogOptions()
    // As a node has it.
    options.assistBytes = 1_536
    let driver = Driver(arguments.directory, options: options)
    let batch = Batches.small()
    var samples: [Int64] = []
    samples.reserveCapacity(count + warmUp)
    if assisted {
      let answered = Flag()
      driver.log.becomeDeputy()
      for _ in 0..<count + warmUp {
        samples.append(
          nanoseconds {
            driver.commit(batch, to: 0) { answered.raise() }
            driver.log.assist()
            guard answered.isUp else { fail("assist() did not write") }
          })
        answered.lower()
      }
      driver.log.resignDeputy()
    } else {
      let answered = Semaphore()
      for _ in 0..<count + warmUp {
        samples.append(
          nanoseconds {
            driver.commit(batch, to: 0) { answered.signal() }
            answered.wait()
          })
      }
    }
    samples.removeFirst(warmUp)
    var report = Report()
    report.add("append", nanoseconds: samples)
    report.add("appendsPerSecond", Double(count) * 1e9 / Double(samples.reduce(0, +)))
    report.add(driver.log.statistics, since: CommitLogStatistics())
    driver.close()
    report.write()
  }
}

/// Many appenders, each with one append of 256 bytes in flight: what answers one sends the next.
enum Concurrency {
  private final class Appenders: Sendable {
    let finished = Semaphore()
    private let driver: Driver
    private let batch: FinishedBatch
    private let left: Atomic<Int>

    init(_ driver: Driver, _ batch: FinishedBatch, count: Int) {
      self.driver = driver
      self.batch = batch
      left = Atomic(count)
    }

    func next(_ appender: Int32) {
      guard left.subtract(1, ordering: .relaxed).oldValue > 0 else { return finished.signal() }
      driver.commit(batch, to: appender % driver.partitions) { self.next(appender) }
    }
  }

  static func run(_ arguments: Arguments) {
    let count = arguments.integer("count")
    let inFlight = arguments.integer("in-flight", or: 64)
    let driver = Driver(arguments.directory)
    let appenders = Appenders(driver, Batches.small(), count: count)
    let took = nanoseconds {
      for appender in 0..<inFlight { appenders.next(Int32(appender)) }
      for _ in 0..<inFlight { appenders.finished.wait() }
    }
    var report = Report()
    report.add("appendsPerSecond", Double(count) * 1e9 / Double(took))
    report.add(driver.log.statistics, since: CommitLogStatistics())
    driver.close()
    report.write()
  }
}
