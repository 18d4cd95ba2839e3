import GrapeCore
import GrapeLog
import GrapeReactor
import GrapeTestKit
import GrapeWire
import Synchronization
import Testing

@testable import GrapeEngine

@Suite("The bridge from topics of others") struct SourceBridgeTests {
  /// A log and a reactor on which bridges run; everything happens in the test's own turns, at the test's own time.
  final class Rig {
    let log = InMemoryEventLog()
    let reactor: Reactor
    let gate: CommitGate
    let notes = Mutex<[String]>([])
    /// Events that were said to be arriving and not taken back.
    let arriving = Mutex(0)

    init() async throws {
      let time = Holder()
      clock = time
      reactor = try Reactor(
        clock: ReactorClock(monotonic: { time.now.withLock { $0 } }, wall: { 1_800_000_000_000 }))
      gate = CommitGate(log: log, reactor: reactor)
      try await log.createTopic("shop.events", configuration: TopicConfiguration(partitions: 3))
      try await log.createTopic("shop.dead", configuration: TopicConfiguration(partitions: 1))
    }

    final class Holder: Sendable { let now = Mutex<Int64>(1) }
    let clock: Holder

    func create(_ topic: String, _ partitions: Int32 = 2) async throws {
      try await log.createTopic(topic, configuration: TopicConfiguration(partitions: partitions))
    }

    /// Runs everything that is due.
    func settle() {
      while reactor.isDue { reactor.turn() }
      reactor.turn()
    }

    func advance(seconds: Int64) {
      clock.now.withLock { $0 += seconds * 1_000_000_000 }
      settle()
    }

    func bridge(_ sources: [Manifest.Source]) throws -> SourceBridge {
      let slot = Manifest.Slot(name: try EventName("order"))
      let manifest = Manifest(
        name: try AppName("shop"), runtime: .python(entry: "a.py"), partitions: 3, slots: [slot], sources: sources)
      return SourceBridge(
        Deployment(manifest: manifest, version: "v1", directory: "", routes: [:]),
        environment: SourceEnvironment(
          reactor: reactor, gate: gate, thread: reactor, eventLimit: 10_000, batchLimit: 1 << 26,
          note: { [self] level, message in notes.withLock { $0.append("\(level) \(message)") } },
          arriving: { [self] _, arrivals in
            let count = arrivals.reduce(0) { $0 + $1.count }
            arriving.withLock { $0 += count }
            return { [self] in arriving.withLock { $0 -= count } }
          }))
    }

    func running(_ start: Manifest.Source.Start = .earliest, topic: String = "orders") throws -> SourceBridge {
      let bridge = try bridge([
        Manifest.Source(topic: TopicName(topic), slot: EventName("order"), start: start)
      ])
      bridge.start()
      settle()
      return bridge
    }

    func stop(_ bridge: SourceBridge) -> Bool {
      let done = Mutex(false)
      bridge.stop { done.withLock { $0 = true } }
      settle()
      return done.withLock { $0 }
    }

    func put(_ values: [String], _ partition: Int32 = 0, topic: String = "orders", timestamp: Int64 = 5) async throws {
      let batch = try TestBatches.pack(values.map { TestRecord($0, key: "k" + $0, timestamp: timestamp) })
      try await log.commit(
        Transaction(appends: [
          .init(
            TopicPartition(topic, partition), batch: batch.bytes, maxTimestamp: batch.maxTimestamp,
            recordCount: batch.recordCount)
        ]))
    }

    func records(_ topic: String) async throws -> [TestRecord] {
      var found: [TestRecord] = []
      let count = try await log.topics().first { $0.name == topic }!.configuration.partitions
      for partition in 0..<count {
        let read = try await log.read(TopicPartition(topic, partition), from: 0, maxBytes: 1 << 26)
        for batch in read.batches { found += try TestBatches.unpack(batch.bytes) }
      }
      return found
    }

    func values() async throws -> [String] { try await records("shop.events").compactMap(\.valueText).sorted() }

    func committed() async throws -> [String: Int64] {
      Dictionary(
        uniqueKeysWithValues: try await log.committedOffsets(group: "shop.sources").map {
          ($0.key.description, $0.value.offset)
        })
    }
  }

  private func source(_ bridge: SourceBridge, topics: Set<String>? = nil) -> JSONValue {
    bridge.statisticsJSON(topics: topics).array?.first ?? .null
  }

  @Test("Records come with their offsets, what comes later too, and after a restart nothing comes twice")
  func comesOnce() async throws {
    let rig = try await Rig()
    try await rig.create("orders")
    try await rig.put(["1", "2"])
    try await rig.put(["3"], 1)
    let bridge = try rig.running()
    #expect(try await rig.values() == ["1", "2", "3"])
    #expect(try await rig.committed() == ["orders/0": 2, "orders/1": 1])
    #expect(bridge.isIdle && rig.arriving.withLock { $0 } == 3)
    try await rig.put(["4"])
    rig.settle()
    #expect(try await rig.values() == ["1", "2", "3", "4"])
    #expect(source(bridge)["events"]?.int == 4 && source(bridge)["lag"]?.int == 0)
    #expect(rig.stop(bridge))
    try await rig.put(["5"], 1)
    rig.settle()
    #expect(try await rig.values() == ["1", "2", "3", "4"])
    _ = try rig.running(.latest)
    #expect(try await rig.values() == ["1", "2", "3", "4", "5"])
  }

  @Test("A killed bridge leaves nothing half done: wherever it ends, the next goes on")
  func killed() async throws {
    let seed = UInt64.random(in: 0...UInt64.max)
    var random = SeededGenerator(seed: seed)
    let rig = try await Rig()
    try await rig.create("orders", 3)
    var sent: [String] = []
    for round in 0..<60 {
      let values = (0..<Int.random(in: 1...30, using: &random)).map { "\(round).\($0)" }
      sent += values
      try await rig.put(values, Int32.random(in: 0..<3, using: &random))
      let own = try Reactor(clock: ReactorClock(monotonic: { 1 }, wall: { 1 }))
      let gate = CommitGate(log: rig.log, reactor: own)
      let slot = Manifest.Slot(name: try EventName("order"))
      let manifest = Manifest(
        name: try AppName("shop"), runtime: .python(entry: "a.py"), partitions: 3, slots: [slot],
        sources: [Manifest.Source(topic: try TopicName("orders"), slot: try EventName("order"))])
      let bridge = SourceBridge(
        Deployment(manifest: manifest, version: "v1", directory: "", routes: [:]),
        environment: SourceEnvironment(
          reactor: own, gate: gate, thread: own, eventLimit: 10_000, batchLimit: 1 << 26, note: { _, _ in },
          arriving: { _, _ in {} }))
      // Its membership dies with it, as that of a process does.
      bridge.start()
      for _ in 0..<Int.random(in: 0..<12, using: &random) where own.isDue { own.turn() }
      own.abandon()
      bridge.leaveGroup()
    }
    let bridge = try rig.running()
    #expect(bridge.isIdle)
    #expect(try await rig.values() == sent.sorted(), "seed \(seed)")
  }

  @Test("Each start begins where it says, and says so in the log at once")
  func starts() async throws {
    for (start, expected) in [
      (Manifest.Source.Start.earliest, ["1", "2", "3", "4", "5"]), (.latest, ["5"]), (.time(20), ["3", "4", "5"]),
      (.time(15), ["2", "3", "4", "5"]), (.time(1000), ["5"]), (.time(-5), ["1", "2", "3", "4", "5"]),
    ] {
      let rig = try await Rig()
      try await rig.create("orders", 1)
      let batch = try TestBatches.pack([
        TestRecord("1", timestamp: 10), TestRecord("2", timestamp: 15), TestRecord("3", timestamp: 20),
      ])
      try await rig.log.commit(
        Transaction(appends: [
          .init(TopicPartition("orders", 0), batch: batch.bytes, maxTimestamp: 20, recordCount: 3)
        ]))
      try await rig.put(["4"], timestamp: 30)
      // A start that is ended before anything comes has chosen its place all the same.
      let first = try rig.running(start)
      let committed = try await rig.committed()
      #expect(committed.count == 1, "\(start)")
      #expect(rig.stop(first))
      try await rig.put(["5"], timestamp: 1001)
      _ = try rig.running(start)
      #expect(try await rig.values() == expected, "\(start)")
    }
  }

  @Test("A topic that is not there is waited for")
  func missing() async throws {
    let rig = try await Rig()
    let bridge = try rig.running()
    #expect(source(bridge, topics: ["shop.events"])["state"]?.string == "waiting")
    #expect(source(bridge, topics: ["shop.events"])["problem"]?.string?.contains("no topic orders") == true)
    try await rig.create("orders")
    try await rig.put(["1"], 1)
    rig.settle()
    #expect(try await rig.values() == ["1"])
    #expect(source(bridge, topics: ["orders"])["state"]?.string == "running")
    // It goes, and comes again: what it has then is new.
    try await rig.log.deleteTopic("orders")
    rig.settle()
    #expect(source(bridge)["partitions"]?.array?.isEmpty == true)
    try await rig.create("orders", 1)
    try await rig.put(["2"])
    rig.advance(seconds: 31)
    #expect(try await rig.values() == ["1", "2"])
  }

  @Test("What retention has dropped is passed over with a warning, by the rule of the start")
  func outOfRange() async throws {
    for (start, expected) in [(Manifest.Source.Start.earliest, ["1", "3"]), (.latest, ["1"])] {
      let rig = try await Rig()
      try await rig.create("orders", 1)
      try await rig.put(["1"])
      let bridge = try rig.running(.earliest)
      #expect(rig.stop(bridge))
      try await rig.put(["2"])
      try await rig.put(["3"])
      try await rig.log.deleteRecords(of: TopicPartition("orders", 0), before: 2)
      _ = try rig.running(start)
      #expect(try await rig.values() == expected)
      let warnings = rig.notes.withLock { $0 }.filter { $0.hasPrefix("warning source orders/0: offset 1 is not there") }
      #expect(warnings.count == 1)
    }
  }

  @Test("A partition that cannot be read stands still and is told of; the others go on")
  func damagedBatch() async throws {
    let rig = try await Rig()
    try await rig.create("orders")
    try await rig.put(["1"])
    let batch = try TestBatches.pack([TestRecord("2", key: "b")])
    let broken = ByteSlice(copying: batch.bytes.unsafeBytes)
    broken.storage.base.storeBytes(of: 0x7e, toByteOffset: RecordBatch.headerSize, as: UInt8.self)
    try await rig.log.commit(
      Transaction(appends: [
        .init(TopicPartition("orders", 0), batch: broken, maxTimestamp: batch.maxTimestamp, recordCount: 1)
      ]))
    try await rig.put(["3"])
    try await rig.put(["4"], 1)
    let bridge = try rig.running()
    #expect(try await rig.values() == ["1", "4"])
    #expect(source(bridge)["state"]?.string == "failed")
    #expect(source(bridge)["problem"]?.string?.contains("orders/0: the batch at offset 1") == true)
    #expect(!bridge.isIdle)
    rig.advance(seconds: 31)
    rig.advance(seconds: 31)
    #expect(rig.notes.withLock { $0 }.filter { $0.hasPrefix("error") }.count == 1)
    // Once it is out of the way, reading goes on.
    try await rig.log.deleteRecords(of: TopicPartition("orders", 0), before: 2)
    rig.advance(seconds: 31)
    #expect(try await rig.values() == ["1", "3", "4"])
    #expect(source(bridge)["problem"] == .null)
  }

  @Test("Commits that fail are made again, and nothing is lost or doubled by it")
  func failingCommits() async throws {
    let rig = try await Rig()
    try await rig.create("orders")
    let bridge = try rig.running()
    for (number, code) in [LogError.Code.busy, .noSpace, .partitionLost, .outOfSequence, .noSuchTopic].enumerated() {
      rig.log.fail(with: LogError(code, "no"))
      try? await rig.put(["x"])
      rig.log.fail(with: nil)
      try await rig.put(["\(number)"])
      rig.log.fail(with: LogError(code, "no"))
      rig.settle()
      #expect(rig.arriving.withLock { $0 } == number)
      rig.log.fail(with: nil)
      for _ in 0..<40 { rig.advance(seconds: 1) }
      #expect(try await rig.values() == (0...number).map(String.init), "\(code)")
      #expect(bridge.isIdle && rig.arriving.withLock { $0 } == number + 1)
    }
    // A log that is broken ends it.
    try await rig.put(["last"])
    rig.log.fail(with: LogError(.failed, "broken"))
    rig.settle()
    #expect(source(bridge)["state"]?.string == "failed" && rig.gate.failure != nil)
  }

  @Test("A revoked partition is finished before the group hears of it")
  func revocation() async throws {
    let rig = try await Rig()
    try await rig.create("orders", 4)
    for partition in 0..<4 { try await rig.put(["\(partition)"], Int32(partition)) }
    let first = try rig.running()
    let second = try rig.running()
    #expect(source(first)["partitions"]?.array?.count == 2 && source(second)["partitions"]?.array?.count == 2)
    for partition in 0..<4 { try await rig.put(["\(partition)+"], Int32(partition)) }
    rig.settle()
    #expect(rig.stop(first))
    for partition in 0..<4 { try await rig.put(["\(partition)++"], Int32(partition)) }
    rig.settle()
    #expect(source(second)["partitions"]?.array?.count == 4)
    let values = try await rig.values()
    #expect(values.count == 12 && Set(values).count == 12)
  }

  @Test("While too much is on its way to the log, sources wait")
  func backpressure() async throws {
    let rig = try await Rig()
    try await rig.create("orders", 1)
    rig.gate.hold(rig.gate.workerLimit + 1)
    try await rig.put(["1"])
    let bridge = try rig.running()
    #expect(try await rig.values() == [])
    rig.gate.release(rig.gate.workerLimit + 1)
    rig.settle()
    #expect(try await rig.values() == ["1"])
    #expect(bridge.isIdle)
  }

  @Test("Partitions that are added are read from their beginning, whatever the start")
  func addedPartitions() throws {
    let bounds = PartitionBounds(start: 3, end: 9)
    let place = TopicPartition("orders", 4)
    let others = [TopicPartition("orders", 0): CommittedOffset(offset: 1)]
    #expect(SourceStart.find(place, .latest, committed: others, bounds: bounds) == .fresh(3))
    #expect(SourceStart.find(place, .latest, committed: [:], bounds: bounds) == .fresh(9))
    #expect(SourceStart.find(place, .latest, committed: [place: .init(offset: 2)], bounds: bounds) == .fresh(9))
    #expect(SourceStart.find(place, .latest, committed: [place: .init(offset: 3)], bounds: bounds) == .committed(3))
    #expect(SourceStart.find(place, .earliest, committed: [place: .init(offset: 10)], bounds: bounds) == .fresh(3))
    #expect(SourceStart.find(place, .time(7), committed: others, bounds: bounds) == .atTime(7))
  }
}
