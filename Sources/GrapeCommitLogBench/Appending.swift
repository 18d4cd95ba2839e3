import CGrapeLinux
import Glibc
import GrapeCommitLog
import GrapeLog
import GrapeWire
import Synchronization

/// Durable appends of large batches by one producer that keeps the writer busy.
enum Appending {
  static func run(_ arguments: Arguments) {
    var options = CommitLogOptions()
    if arguments.has("group-kib") { options.groupBytes = arguments.integer("group-kib") << 10 }
    if arguments.has("segment-mib") { options.segmentBytes = arguments.integer("segment-mib") << 20 }
    let batches = Batches.load(arguments.string("batches"))
    let driver = Driver(
      arguments.directory, options: options, partitions: arguments.integer("partitions", or: 8))
    let before = driver.log.statistics
    var appended = (bytes: 0, records: 0)
    let took = nanoseconds {
      appended = driver.append(
        batches, bytes: arguments.integer("mib") << 20, inFlight: arguments.integer("in-flight", or: 32))
    }
    var report = Report()
    report.add(bytes: appended.bytes, records: appended.records, nanoseconds: took)
    report.add(driver.log.statistics, since: before)
    report.addMemory()
    driver.close()
    report.write()
  }
}

extension Report {
  /// What the writer did.
  mutating func add(_ statistics: CommitLogStatistics, since before: CommitLogStatistics) {
    let groups = statistics.groups - before.groups
    add("groups", Int(groups))
    add("bytesPerGroup", groups == 0 ? 0 : Int((statistics.bytes - before.bytes) / groups))
    add("syncP50Micros", Double(statistics.syncTime.percentile(0.5)) / 1e3)
    add("syncP99Micros", Double(statistics.syncTime.percentile(0.99)) / 1e3)
    add("writerProcessorSeconds", ProcessStatus.processorSeconds("log-writer"))
  }
}

/// The same with JSON that each producer makes into batches and packs on its own thread.
enum Compressing {
  private static let inFlight = 32

  /// Values one behind the other: making batches of them costs a producer as little as can be.
  private struct Events: Sendable {
    let bytes: ByteSlice
    let ranges: [Range<Int>]

    init(count: Int) {
      var generator = OrderEvents(seed: 7)
      var writer = ByteWriter(capacity: count * 256)
      var ranges: [Range<Int>] = []
      for _ in 0..<count {
        let start = writer.count
        writer.bytes(generator.next())
        ranges.append(start..<writer.count)
      }
      bytes = writer.finish()
      self.ranges = ranges
    }
  }

  private struct Sum: Sendable {
    var records = 0
    var unpacked = 0
    var packed = 0
  }

  static func run(_ arguments: Arguments) {
    let producers = arguments.integer("producers", or: 1)
    let share = (arguments.integer("mib") << 20) / max(producers, 1)
    let driver = Driver(arguments.directory)
    let before = driver.log.statistics
    let events = Events(count: 40_000)
    let batchBytes = arguments.integer("batch-kib", or: 256) << 10
    let level = Int32(clamping: arguments.signed("level", or: 1))
    guard ZstdCompressor(level: level).level == level else { fail("--level: 1 to 19 or -1 to -7") }
    let sum = Mutex(Sum())
    let took = nanoseconds {
      let workers = (0..<producers).map { number in
        Worker {
          let own = produce(driver, Int32(number), events, level: level, batchBytes: batchBytes, bytes: share)
          sum.withLock { sum in
            sum.records += own.records
            sum.unpacked += own.unpacked
            sum.packed += own.packed
          }
        }
      }
      for worker in workers { worker.join() }
    }
    let total = sum.withLock { $0 }
    var report = Report()
    report.add(bytes: total.packed, records: total.records, nanoseconds: took)
    report.add("unpackedBytes", total.unpacked)
    report.add("unpackedBytesPerRecord", Double(total.unpacked) / Double(total.records))
    report.add("unpackedBytesPerSecond", Double(total.unpacked) * 1e9 / Double(took))
    report.add(driver.log.statistics, since: before)
    report.addMemory()
    driver.close()
    report.write()
  }

  private static func produce(
    _ driver: Driver, _ partition: Int32, _ events: Events, level: Int32, batchBytes: Int, bytes: Int
  ) -> Sum {
    let compressor = ZstdCompressor(level: level)
    let noHeaders = HeaderSection.empty
    let memory = events.bytes.unsafeBytes
    let done = Semaphore()
    var builder = RecordBatchBuilder(capacity: batchBytes)
    var sum = Sum()
    var waiting = 0
    // Not two producers with the same events at the same time.
    var next = Int(partition) * 7_919 % events.ranges.count
    while sum.unpacked < bytes {
      while builder.byteCount < batchBytes {
        builder.append(
          key: nil, value: UnsafeRawBufferPointer(rebasing: memory[events.ranges[next]]),
          headerSection: noHeaders.unsafeBytes, timestamp: Int64(next))
        next = next + 1 == events.ranges.count ? 0 : next + 1
      }
      sum.unpacked += builder.byteCount
      let batch = Batches.finish(&builder, compressor)
      sum.records += Int(batch.recordCount)
      sum.packed += batch.bytes.count
      if waiting == inFlight {
        done.wait()
        waiting -= 1
      }
      driver.commit(batch, to: partition) { done.signal() }
      waiting += 1
    }
    for _ in 0..<waiting { done.wait() }
    withExtendedLifetime((events, noHeaders)) {}
    return sum
  }
}
