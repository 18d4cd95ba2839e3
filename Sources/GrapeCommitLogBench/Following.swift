import CGrapeLinux
import Glibc
import GrapeCommitLog
import GrapeLog
import GrapeWire
import Synchronization

/// Appends with and without a reader that replays the whole log beside them, in turns: what a disk gives changes from
/// second to second.
enum Following {
  private static let phaseNanoseconds: Int64 = 1_000_000_000
  private static let pairs = 5
  private static let sampleNanoseconds: Int64 = 20_000_000

  static func run(_ arguments: Arguments) {
    let pace = arguments.has("mib-per-second") ? arguments.integer("mib-per-second") << 20 : nil
    let inFlight = arguments.integer("in-flight", or: 32)
    let batches = arguments.has("batches") ? Batches.load(arguments.string("batches")) : [Batches.small()]
    let driver = Driver(arguments.directory)
    let reader = Replayer(driver, bytesPerSecond: pace)
    // The first appends of a process find nothing ready.
    _ = phase(driver, batches, inFlight, reader: nil)
    let before = ProcessStatus.bytes("VmRSS")
    let most = Mutex(before)
    let finished = Flag()
    let sampler = Worker {
      while !finished.isUp {
        let now = ProcessStatus.bytes("VmRSS")
        most.withLock { $0 = max($0, now) }
        sleep(until: grape_monotonic_ns() + sampleNanoseconds)
      }
    }
    var alone = [phase(driver, batches, inFlight, reader: nil)]
    var beside: [Phase] = []
    while beside.count < pairs {
      beside.append(phase(driver, batches, inFlight, reader: reader))
      alone.append(phase(driver, batches, inFlight, reader: nil))
    }
    finished.raise()
    sampler.join()
    // A reader that found nothing to read any more was none.
    let whole = beside.indices.filter { beside[$0].readEverything == false }
    guard !whole.isEmpty else { fail("the log is too small: it was replayed at once") }
    let ratios = whole.map { 2 * beside[$0].rate / (alone[$0].rate + alone[$0 + 1].rate) }
    var report = Report()
    report.add("pairs", whole.count)
    report.add("ratio", median(ratios))
    let one = Double(batches[0].bytes.count)
    report.add("aloneAppendsPerSecond", median(alone.map(\.rate)) / one)
    report.add("besideAppendsPerSecond", median(whole.map { beside[$0].rate }) / one)
    report.add("aloneBytesPerSecond", median(alone.map(\.rate)))
    report.add("besideBytesPerSecond", median(whole.map { beside[$0].rate }))
    report.add("replayBytesPerSecond", median(whole.map { beside[$0].readRate }))
    report.add("replayedBytes", beside.reduce(0) { $0 + $1.readBytes })
    report.add("residentBeforeBytes", before)
    report.add("residentMostBytes", most.withLock { $0 })
    driver.close()
    report.write()
  }

  /// What happened in a second or so.
  private struct Phase {
    var rate = 0.0
    var readRate = 0.0
    var readBytes = 0
    var readEverything = false
  }

  private static func phase(
    _ driver: Driver, _ batches: [FinishedBatch], _ inFlight: Int, reader: Replayer?
  ) -> Phase {
    let began = grape_monotonic_ns()
    let end = began + phaseNanoseconds
    let worker = reader.map { reader in Worker { reader.read(until: end) } }
    let appended = driver.append(batches, bytes: .max, inFlight: inFlight, stop: { grape_monotonic_ns() >= end })
    let took = Double(grape_monotonic_ns() - began) / 1e9
    worker?.join()
    let read = reader?.takeBytes() ?? 0
    return Phase(
      rate: Double(appended.bytes) / took, readRate: Double(read) / took, readBytes: read,
      readEverything: reader?.isAtEnd ?? false)
  }

  private static func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }
}

/// Reads the log from its beginning to what was its end when this was made, a while at a time.
private final class Replayer: Sendable {
  private struct State {
    var next: [Int64]
    var bytes = 0
    var isAtEnd = false
  }

  private let driver: Driver
  private let ends: [Int64]
  private let pace: Int?
  private let state: Mutex<State>

  /// `bytesPerSecond`: nil: as fast as it goes.
  init(_ driver: Driver, bytesPerSecond: Int?) {
    self.driver = driver
    pace = bytesPerSecond
    ends = (0..<driver.partitions).map { driver.bounds($0).end }
    state = Mutex(State(next: (0..<driver.partitions).map { driver.bounds($0).start }))
  }

  var isAtEnd: Bool { state.withLock { $0.isAtEnd } }

  /// Bytes read since the last call.
  func takeBytes() -> Int {
    state.withLock { state in
      defer { state.bytes = 0 }
      return state.bytes
    }
  }

  func read(until end: Int64) {
    var next = state.withLock { $0.next }
    let began = grape_monotonic_ns()
    var bytes = 0
    while grape_monotonic_ns() < end, next.indices.contains(where: { next[$0] < ends[$0] }) {
      for partition in next.indices where next[partition] < ends[partition] && grape_monotonic_ns() < end {
        let found = driver.read(Int32(partition), from: next[partition], maxBytes: 1 << 20)
        bytes += found.batches.reduce(0) { $0 + $1.bytes.count }
        next[partition] = found.nextOffset
        // The reader's pace is what is wanted here, not an order of events.
        if let pace { sleep(until: min(end, began + Int64(Double(bytes) / Double(pace) * 1e9))) }
      }
    }
    state.withLock { state in
      state.next = next
      state.bytes = bytes
      state.isAtEnd = next.indices.allSatisfy { next[$0] >= ends[$0] }
    }
  }
}
