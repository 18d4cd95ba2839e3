import CGrapeLinux
import Glibc
import GrapeCommitLog
import GrapeLog
import GrapeWire
import Synchronization

/// Measures the embedded log against bare system calls on the same file system, in one run, and prints ratios.
///
/// usage: GrapeCommitLogBench [DIRECTORY]
@main
enum Bench {
  static func main() throws {
    let directory = (CommandLine.arguments.count > 1 ? CommandLine.arguments[1] : "/tmp") + "/grape-bench-\(getpid())"
    mkdir(directory, 0o700)
    var raw = RawFile(directory + "/raw")
    let (log, _) = try CommitLog.open(directory: directory + "/data")
    let driver = Driver(log)
    try driver.createTopic("bench", partitions: 8)

    let large = try batch(bytes: 256 << 10)
    let small = try batch(bytes: 256)
    var rawLarge: [Double] = []
    var logLarge: [Double] = []
    var logOne: [Double] = []
    var rawSmall: [Int64] = []
    var assisted: [Int64] = []
    var threaded: [Int64] = []
    let batches = 400
    for _ in 0..<7 {
      rawLarge.append(rate(batches, large) { for _ in 0..<batches { raw.append(256 << 10) } })
      logLarge.append(rate(batches, large) { driver.pipeline(large, count: batches, inFlight: 8, .disk) })
      logOne.append(rate(batches, large) { driver.pipeline(large, count: batches, inFlight: 1, .disk) })
      for _ in 0..<1_000 { rawSmall.append(nanoseconds { raw.append(256) }) }
      log.becomeDeputy()
      for _ in 0..<1_000 { assisted.append(nanoseconds { driver.assistedCommit(small) }) }
      log.resignDeputy()
      for _ in 0..<1_000 { threaded.append(nanoseconds { driver.pipeline(small, count: 1, inFlight: 1, .disk) }) }
    }
    let rawRate = median(rawLarge)
    print("raw pwrite+fdatasync, 256 KiB            \(megabytes(rawRate)) MB/s")
    print(
      "log, durable, 256 KiB batches, 8 waiting \(megabytes(median(logLarge))) MB/s  \(ratio(median(logLarge), rawRate)) of raw"
    )
    print(
      "log, durable, 256 KiB batches, 1 waiting \(megabytes(median(logOne))) MB/s  \(ratio(median(logOne), rawRate)) of raw"
    )
    let rawTime = Double(median(rawSmall))
    print("raw pwrite+fdatasync, 256 B              \(Int(rawTime / 1_000)) us median")
    print(
      "log, durable, 256 B, one, assisted       \(median(assisted) / 1_000) us median  \(ratio(Double(median(assisted)), rawTime)) x raw"
    )
    print(
      "log, durable, 256 B, one, by its thread  \(median(threaded) / 1_000) us median  \(ratio(Double(median(threaded)), rawTime)) x raw"
    )
    for inFlight in [1, 64, 1_000] {
      let count = inFlight == 1 ? 2_000 : 100_000
      let took = nanoseconds { driver.pipeline(small, count: count, inFlight: inFlight, .disk) }
      print("log, durable, 256 B, \(inFlight) waiting: \(Int(Double(count) * 1e9 / Double(took))) commits/s")
    }
    let unsynchronised = rate(4_000, large) { for _ in 0..<4_000 { raw.append(256 << 10, durable: false) } }
    print("raw pwrite, 256 KiB: \(megabytes(unsynchronised)) MB/s")
    for durability in [Durability.os, .memory] {
      let figure = rate(4_000, large) { driver.pipeline(large, count: 4_000, inFlight: 16, durability) }
      print("log, \(durability), 256 KiB batches: \(megabytes(figure)) MB/s")
    }
    print("log-writer used \(driver.cpuSeconds("log-writer")) s of CPU for \(log.statistics.bytes >> 20) MiB")
    driver.replay()
    let statistics = log.statistics
    print(
      "commits \(statistics.commits), groups \(statistics.groups), syncs \(statistics.syncs) (p50 "
        + "\(statistics.syncTime.percentile(0.5) / 1_000) us, p99 \(statistics.syncTime.percentile(0.99) / 1_000) us)")
    driver.close()
    let began = grape_monotonic_ns()
    let (again, report) = try CommitLog.open(directory: directory + "/data")
    print("opened \(report.bytes >> 20) MiB again in \((grape_monotonic_ns() - began) / 1_000_000) ms")
    Driver(again).close()
    system("rm -rf '\(directory)'")
  }

  static func batch(bytes: Int) throws -> FinishedBatch {
    var builder = RecordBatchBuilder(capacity: bytes)
    let value = (0..<90).map { _ in UInt8.random(in: 0...255) }
    while true {
      value.withUnsafeBytes { value in
        withUnsafeBytes(of: UInt8(0)) {
          builder.append(key: nil, value: value, headerSection: $0, timestamp: 1)
        }
      }
      if builder.byteCount + 100 > bytes { break }
    }
    return try builder.take(nextCapacity: 0)
  }

  static func rate(_ count: Int, _ batch: FinishedBatch, _ body: () -> Void) -> Double {
    Double(count * batch.bytes.count) * 1e9 / Double(nanoseconds(body))
  }

  static func nanoseconds(_ body: () -> Void) -> Int64 {
    let began = grape_monotonic_ns()
    body()
    return grape_monotonic_ns() - began
  }

  static func median<Value: Comparable>(_ values: [Value]) -> Value { values.sorted()[values.count / 2] }
  static func megabytes(_ rate: Double) -> Int { Int(rate / 1e6) }
  static func ratio(_ left: Double, _ right: Double) -> Double { (left / right * 100).rounded() / 100 }
}

/// Preallocated files of a segment's size, written one after the other and synchronised by bare system calls.
struct RawFile {
  private let prefix: String
  private var files = 0
  private var descriptor: Int32 = -1
  private var end: off_t = 0
  private let memory = UnsafeMutableRawPointer.allocate(byteCount: 1 << 20, alignment: 4_096)
  private static let size: off_t = 64 << 20

  init(_ prefix: String) {
    self.prefix = prefix
    for place in 0..<1 << 20 {
      memory.storeBytes(of: UInt8(truncatingIfNeeded: place &* 31), toByteOffset: place, as: UInt8.self)
    }
    begin()
  }

  private mutating func begin() {
    if descriptor >= 0 { close(descriptor) }
    descriptor = grape_open("\(prefix).\(files)", O_RDWR | O_CREAT, 0o600)
    precondition(descriptor >= 0 && grape_fallocate(descriptor, 0, Self.size) == 0, "cannot make \(prefix)")
    files += 1
    end = 0
  }

  mutating func append(_ count: Int, durable: Bool = true) {
    if end + off_t(count) > Self.size { begin() }
    precondition(pwrite(descriptor, memory, count, end) == count)
    if durable { precondition(fdatasync(descriptor) == 0) }
    end += off_t(count)
  }
}
