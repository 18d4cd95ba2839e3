import Foundation
import GrapeKafka
import GrapeLog
import GrapeWire
import Synchronization

// GrapeKafkaBench HOST:PORT [MESSAGES]: the log on Kafka beside librdkafka alone, in turns, on the same broker.

// Messages: a multiple of 128,000 fills every transaction; one partition's should stay below 100 MB in all, since
// not every broker bounds its answers.
guard CommandLine.arguments.count > 1 else {
  print("usage: GrapeKafkaBench HOST:PORT [MESSAGES]")
  exit(64)
}
let servers = CommandLine.arguments[1]
let count = CommandLine.arguments.count > 2 ? Int(CommandLine.arguments[2]) ?? 0 : 400_000
let size = 100
let piece = 1_000

/// `records` messages of `size` bytes in one batch.
func batch(_ partition: TopicPartition, records: Int) throws -> Transaction.Append {
  var builder = RecordBatchBuilder(capacity: records * (size + 16))
  let value = ByteSlice([UInt8](repeating: 120, count: size))
  for _ in 0..<records { builder.append(key: nil, value: value, headerSection: HeaderSection.empty, timestamp: 1_000) }
  let finished = try builder.take(nextCapacity: 0)
  return Transaction.Append(
    partition, batch: finished.bytes, maxTimestamp: finished.maxTimestamp, recordCount: finished.recordCount)
}

/// Keeps `depth` transactions under way until all are answered.
final class Feed: Sendable {
  private let left: Mutex<(toSend: Int, open: Int)>
  private let log: KafkaEventLog
  private let next: @Sendable (Int) -> Transaction
  private let done = Mutex<CheckedContinuation<Void, Never>?>(nil)

  init(_ log: KafkaEventLog, _ transactions: Int, _ next: @escaping @Sendable (Int) -> Transaction) {
    self.log = log
    self.next = next
    left = Mutex((transactions, 0))
  }

  func run(depth: Int) async {
    await withCheckedContinuation { continuation in
      done.withLock { $0 = continuation }
      for _ in 0..<depth { send() }
    }
  }

  private func send() {
    let number = left.withLock { left -> Int? in
      if left.toSend == 0 { return nil }
      left.toSend -= 1
      left.open += 1
      return left.toSend
    }
    guard let number else { return }
    log.commit(next(number)) { result in
      if case .failure(let error) = result { fatalError("\(error)") }
      let isLast = self.left.withLock { left in
        left.open -= 1
        return left.toSend == 0 && left.open == 0
      }
      if isLast { self.done.withLock { $0?.resume() } } else { self.send() }
    }
  }
}

/// Time by the clock, and by the processors: the second is what counts on a machine that others use too.
struct Spent {
  var clock: Duration
  var processors: Double

  /// Processor time of this process so far, milliseconds.
  static var processorTime: Double {
    var usage = rusage()
    getrusage(Int32(RUSAGE_SELF.rawValue), &usage)
    return Double(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e3
      + Double(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e3
  }

  static func on(_ body: () async throws -> Void) async rethrows -> Spent {
    let before = processorTime
    let clock = try await ContinuousClock().measure(body)
    return Spent(clock: clock, processors: processorTime - before)
  }
}

func report(_ what: String, of count: Int, _ bare: Spent, _ grape: Spent) {
  let rate = { (spent: Spent) in Double(count) / milliseconds(spent.clock) }
  let cost = { (spent: Spent) in spent.processors * 1e6 / Double(count) }
  print(
    String(
      format: "%@: librdkafka %.0f, grape %.0f thousand messages a second, ratio %.2f; "
        + "processors %.0f and %.0f ns, ratio %.2f",
      what, rate(bare), rate(grape), rate(grape) / rate(bare), cost(bare), cost(grape), cost(bare) / cost(grape)))
}

var configuration = KafkaConfiguration(bootstrapServers: servers, transactionalID: "bench")
configuration.namespace = "bench-\(getpid())."
let log = try KafkaEventLog(configuration)
let topics = ["bare", "grape", "bare-tx", "grape-tx", "ack"]
let clock = ContinuousClock()
let bare = Bare(servers: servers)
let cluster = { (name: String) in configuration.namespace + name }

for round in 1...3 {
  print("round \(round)")
  for name in topics { try await log.createTopic(name, configuration: TopicConfiguration(partitions: 2)) }
  let plain = try (0..<2).map { try batch(TopicPartition("grape", $0), records: piece) }
  let bareProduce = await Spent.on {
    bare.produce(cluster("bare"), partitions: 2, count: count, size: size, piece: piece, transaction: nil)
  }
  let grapeProduce = await Spent.on {
    await Feed(log, count / piece) { Transaction(appends: [plain[$0 % 2]]) }.run(depth: 64)
  }
  report("produce, no transactions", of: count, bareProduce, grapeProduce)

  let both = try (0..<2).map { try batch(TopicPartition("grape-tx", $0), records: piece / 2) }
  let bareTransactions = await Spent.on {
    bare.produce(
      cluster("bare-tx"), partitions: 2, count: count, size: size, piece: piece / 2, transaction: 64 * piece)
  }
  let grapeTransactions = await Spent.on {
    await Feed(log, count / piece) { _ in Transaction(appends: both) }.run(depth: 128)
  }
  report("produce, transactions", of: count, bareTransactions, grapeTransactions)

  let half = count / 2
  let bareConsume = await Spent.on { _ = bare.consume(cluster("grape"), 0, count: half) }
  let reading = try KafkaEventLog(
    {
      var other = configuration
      other.transactionalID = "bench-reader"
      return other
    }())
  var seen = 0
  var next: Int64 = 0
  let partition = TopicPartition("grape", 0)
  let grapeConsume = try await Spent.on {
    while seen < half {
      let result = try await reading.read(partition, from: next, maxBytes: 1 << 20)
      for batch in result.batches { seen += Int(batch.lastOffset - batch.baseOffset) + 1 }
      next = result.nextOffset
      if result.batches.isEmpty { await reading.waitUntilAvailable(partition, after: next) }
    }
  }
  await reading.close()
  report("consume one partition", of: half, bareConsume, grapeConsume)
  for name in topics { try await log.deleteTopic(name) }
}
try await log.createTopic("ack", configuration: TopicConfiguration(partitions: 2))

let bareTimes = bare.acknowledge(cluster("ack"), count: 1_000).sorted()
let one = try batch(TopicPartition("ack", 0), records: 1)
let two = try (0..<2).map { try batch(TopicPartition("ack", $0), records: 1) }
var plainTimes: [Double] = []
var transactionTimes: [Double] = []
for _ in 0..<1_000 {
  plainTimes.append(milliseconds(try await clock.measure { try await log.commit(Transaction(appends: [one])) }))
  transactionTimes.append(milliseconds(try await clock.measure { try await log.commit(Transaction(appends: two)) }))
}
plainTimes.sort()
transactionTimes.sort()
for (what, times) in [
  ("librdkafka", bareTimes), ("grape, one partition", plainTimes), ("grape, transaction", transactionTimes),
] {
  print(String(format: "one commit at a time, %@: median %.2f ms, 99th %.2f ms", what, times[500], times[990]))
}
try await log.deleteTopic("ack")
await log.close()
