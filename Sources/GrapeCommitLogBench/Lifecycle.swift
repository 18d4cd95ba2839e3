import CGrapeLinux
import Glibc
import GrapeCommitLog
import GrapeLog
import GrapeWire
import Synchronization

/// How long it takes to open a log.
enum Opening {
  static func run(_ arguments: Arguments) {
    let began = grape_monotonic_ns()
    let driver = Driver(arguments.directory)
    let took = grape_monotonic_ns() - began
    var report = Report()
    report.add("openMilliseconds", Double(took) / 1e6)
    report.add("recoveredBytes", Int(driver.report.bytes))
    report.add("recoveredGroups", Int(driver.report.groups))
    report.add("cuts", driver.report.cuts.count)
    report.addMemory()
    driver.close()
    report.write()
  }
}

/// Appends until it is killed.
enum Victim {
  static func run(_ arguments: Arguments) {
    let batches = Batches.load(arguments.string("batches"))
    let driver = Driver(arguments.directory)
    var durable = 0
    while true {
      durable += driver.append(batches, bytes: 1 << 20, inFlight: 8).bytes
      var report = Report()
      report.add("durableBytes", durable)
      report.write()
    }
  }
}

/// A reader that replays the whole log, slower than it could, while records are appended.
enum Following {
  private static let aloneBytes = 512 << 20
  private static let sampleNanoseconds: Int64 = 50_000_000

  static func run(_ arguments: Arguments) {
    let pace = arguments.integer("mib-per-second") << 20
    let batches = Batches.load(arguments.string("batches"))
    let driver = Driver(arguments.directory)
    var alone = 0
    let aloneTook = nanoseconds { alone = driver.append(batches, bytes: aloneBytes, inFlight: 32).bytes }
    let before = ProcessStatus.bytes("VmRSS")
    let ends = (0..<driver.partitions).map { driver.bounds($0).end }
    let finished = Flag()
    let most = Mutex(before)
    let replayed = Mutex(0)
    let reader = Worker {
      let bytes = replay(driver, to: ends, bytesPerSecond: pace)
      replayed.withLock { $0 = bytes }
      finished.raise()
    }
    let sampler = Worker {
      while !finished.isUp {
        let now = ProcessStatus.bytes("VmRSS")
        most.withLock { $0 = max($0, now) }
        sleep(until: grape_monotonic_ns() + sampleNanoseconds)
      }
    }
    var beside = 0
    let besideTook = nanoseconds {
      beside = driver.append(batches, bytes: .max, inFlight: 32, stop: { finished.isUp }).bytes
    }
    reader.join()
    sampler.join()
    var report = Report()
    report.add("residentBeforeBytes", before)
    report.add("residentMostBytes", most.withLock { $0 })
    report.add("residentAfterBytes", ProcessStatus.bytes("VmRSS"))
    report.add("replayedBytes", replayed.withLock { $0 })
    report.add("replayBytesPerSecond", Double(replayed.withLock { $0 }) * 1e9 / Double(besideTook))
    report.add("aloneBytesPerSecond", Double(alone) * 1e9 / Double(aloneTook))
    report.add("besideBytes", beside)
    report.add("besideBytesPerSecond", Double(beside) * 1e9 / Double(besideTook))
    driver.close()
    report.write()
  }

  /// Returns the bytes read.
  private static func replay(_ driver: Driver, to ends: [Int64], bytesPerSecond: Int) -> Int {
    var next = (0..<driver.partitions).map { driver.bounds($0).start }
    let began = grape_monotonic_ns()
    var bytes = 0
    var isBehind = true
    while isBehind {
      isBehind = false
      for partition in next.indices where next[partition] < ends[partition] {
        isBehind = true
        let found = driver.read(Int32(partition), from: next[partition], maxBytes: 1 << 20)
        bytes += found.batches.reduce(0) { $0 + $1.bytes.count }
        next[partition] = found.nextOffset
        // The reader's pace is what is wanted here, not an order of events.
        sleep(until: began + Int64(Double(bytes) / Double(bytesPerSecond) * 1e9))
      }
    }
    return bytes
  }
}
