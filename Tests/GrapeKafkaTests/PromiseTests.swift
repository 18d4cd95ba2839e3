import GrapeKafka
import GrapeLog
import GrapeTestKit
import GrapeWire
import Synchronization
import Testing

@Suite("What Kafka keeps in its own way", .serialized, .timeLimit(.minutes(1))) struct PromiseTests {
  /// A log on an empty namespace, closed at the end.
  private func withLog(
    _ change: (inout KafkaConfiguration) -> Void = { _ in },
    _ body: (KafkaEventLog, KafkaConfiguration) async throws -> Void
  ) async throws {
    var configuration = try KafkaFixture.configuration()
    change(&configuration)
    let log = try KafkaEventLog(configuration)
    do {
      try await body(log, configuration)
    } catch {
      await log.close()
      throw error
    }
    await log.close()
  }

  private let first = TopicPartition("a", 0)
  private let second = TopicPartition("a", 1)

  /// All records from `offset` to the end.
  private func records(
    _ log: any EventLog, _ partition: TopicPartition, from offset: Int64 = 0, maxBytes: Int = 1 << 20
  ) async throws -> [(offset: Int64, value: String)] {
    var records: [(offset: Int64, value: String)] = []
    var next = offset
    while true {
      let result = try await log.read(partition, from: next, maxBytes: maxBytes)
      for batch in result.batches {
        let found = try SampleBatch.records(in: batch)
        #expect(found.first?.offset == batch.baseOffset && found.last?.offset == batch.lastOffset)
        #expect(batch.baseOffset >= next)
        #expect(batch.bytes.count <= maxBytes || found.count == 1)
        records += found
      }
      next = result.nextOffset
      if result.batches.isEmpty && next == result.bounds.end { return records }
    }
  }

  @Test("a transaction across partitions takes an offset more in each, which readers step over")
  func gaps() async throws {
    try await withLog { log, _ in
      try await log.createTopic("a", configuration: TopicConfiguration(partitions: 2))
      for round in 0..<3 {
        let receipt = try await log.commit(
          Transaction(appends: [
            SampleBatch.append(["\(round)"], to: first), SampleBatch.append(["x", "y"], to: second),
            SampleBatch.append(["and \(round)"], to: first),
          ]))
        let base = Int64(round * 3)
        #expect(receipt.baseOffsets == [base, base, base + 1])
      }
      let found = try await records(log, first)
      #expect(found.map(\.value) == ["0", "and 0", "1", "and 1", "2", "and 2"])
      #expect(found.map(\.offset) == [0, 1, 3, 4, 6, 7])
      #expect(try await log.bounds(of: first) == PartitionBounds(start: 0, end: 9))
      // From a gap: what comes behind it; from the last one: nothing, and that is known to be the end.
      #expect(try await records(log, first, from: 2).map(\.offset) == [3, 4, 6, 7])
      #expect(try await log.read(first, from: 8, maxBytes: 100).nextOffset == 9)
    }
  }

  @Test("a read gathers what fits from any offset on, whatever batches it was appended in")
  func regroups() async throws {
    try await withLog { log, _ in
      try await log.createTopic("a", configuration: TopicConfiguration(partitions: 1))
      for number in 0..<5 {
        try await log.commit(
          Transaction(appends: [SampleBatch.append(["\(number).0", "\(number).1"], to: first)]))
      }
      let all = (0..<5).flatMap { ["\($0).0", "\($0).1"] }
      for (offset, maxBytes) in [(0, 1 << 20), (3, 1 << 20), (3, 1), (1, 100), (9, 200)] {
        let found = try await records(log, first, from: Int64(offset), maxBytes: maxBytes)
        #expect(found.map(\.value) == Array(all[offset...]))
      }
      let whole = try await log.read(first, from: 3, maxBytes: 1 << 20)
      #expect(whole.batches.map(\.baseOffset) == [3] && whole.batches.map(\.lastOffset) == [9])
      try await log.deleteRecords(of: first, before: 3)
      #expect(try await records(log, first, from: 3).map(\.value) == Array(all[3...]))
    }
  }

  @Test("reads that jump about get exactly what they ask for, while others append")
  func jumps() async throws {
    try await withLog({ $0.readAheadBytes = 1 }) { log, _ in
      try await log.createTopic("a", configuration: TopicConfiguration(partitions: 1))
      let each = 1_000
      let filler = String(repeating: "x", count: 200)
      for round in 0..<10 {
        let values = (0..<each).map { "\(round * each + $0) \(filler)" }
        try await log.commit(Transaction(appends: [SampleBatch.append(values, to: first)]))
      }
      async let appending: Void = {
        for round in 10..<20 {
          let values = (0..<each).map { "\(round * each + $0) \(filler)" }
          try await log.commit(Transaction(appends: [SampleBatch.append(values, to: first)]))
        }
      }()
      let seed = UInt64.random(in: 0 ... .max)
      print("seed \(seed)")
      var random = SeededRandom(state: seed)
      for _ in 0..<50 {
        var next = Int64.random(in: 0..<10_000, using: &random)
        for _ in 0..<Int.random(in: 1...4, using: &random) {
          let result = try await log.read(first, from: next, maxBytes: Int.random(in: 1...300_000, using: &random))
          for batch in result.batches {
            for record in try SampleBatch.records(in: batch) {
              #expect(record.offset == next && record.value.hasPrefix("\(next) "), "seed \(seed)")
              next += 1
            }
          }
        }
      }
      try await appending
      #expect(try await records(log, first, maxBytes: 5_000_000).count == 20 * each)
    }
  }

  @Test(
    "what is appended plainly goes in one set of messages, as much as goes together",
    arguments: [(7, 100), (3, 100_000)])
  func wholeSets(records: Int, size: Int) async throws {
    // What librdkafka says of each set that it sends.
    let sets = Mutex<[Int]>([])
    try await withLog({
      $0.settings = ["debug": "msg"]
      $0.log = { line in
        guard let match = line.message.firstMatch(of: #/MessageSet with (\d+) message/#), let count = Int(match.1)
        else { return }
        sets.withLock { $0.append(count) }
      }
    }) { log, _ in
      try await log.createTopic("a", configuration: TopicConfiguration(partitions: 2))
      let values = (0..<records).map { "\($0)" + String(repeating: "x", count: size) }
      let answers = Answers()
      for number in 0..<200 {
        let partition = TopicPartition("a", Int32(number % 2))
        log.commit(Transaction(appends: [SampleBatch.append(values, to: partition)])) { answers.add($0, number) }
      }
      try await log.commit(Transaction(appends: [SampleBatch.append(values, to: first)]))
      #expect(answers.codes == [LogError.Code?](repeating: nil, count: 200))
    }
    let counts = sets.withLock { $0 }
    #expect(counts.allSatisfy { $0 % records == 0 } && counts.contains { $0 > records }, "\(counts)")
  }

  @Test("records come out as they went in: keys, values, headers and times, null or empty, packed or not")
  func records() async throws {
    try await withLog { log, _ in
      try await log.createTopic("a", configuration: TopicConfiguration(partitions: 2))
      var headers = HeaderSection()
      headers.append("n", [1, 0, 255])
      headers.append("n", [])
      "null".utf8.withContiguousStorageIfAvailable { headers.append(UnsafeRawBufferPointer($0), nil) }
      let section = headers.finish()
      for isPacked in [false, true] {
        var builder = RecordBatchBuilder()
        let long = ByteSlice(String(repeating: "long ", count: 1_000))
        for (key, value, headers, timestamp) in [
          (nil, ByteSlice("v"), HeaderSection.empty, 5), (ByteSlice("k"), nil, section, -5),
          (ByteSlice(""), ByteSlice(""), section, 1 << 61), (ByteSlice("k"), long, HeaderSection.empty, 1),
        ] as [(ByteSlice?, ByteSlice?, ByteSlice, Int64)] {
          builder.append(key: key, value: value, headerSection: headers, timestamp: timestamp)
        }
        let finished = try builder.take(compressor: isPacked ? ZstdCompressor() : nil)
        let append = Transaction.Append(
          first, batch: finished.bytes, maxTimestamp: finished.maxTimestamp, recordCount: finished.recordCount)
        // Alone, and in a Kafka transaction.
        try await log.commit(Transaction(appends: [append]))
        try await log.commit(Transaction(appends: [append, SampleBatch.append(["x"], to: second)]))
        let unpacked = try RecordBatch.unpack(finished.bytes, checkingCRC: true, limit: 1 << 20)
        let start = isPacked ? Int64(9) : 0
        for offset in [start, start + 4] {
          let batch = try await log.read(first, from: offset, maxBytes: finished.bytes.count + 10_000).batches[0]
          let read = try RecordBatch.unpack(batch.bytes, checkingCRC: true, limit: 1 << 20)
          #expect(read.records[0..<unpacked.records.count].array == unpacked.records.array)
          #expect(batch.maxTimestamp == 1 << 61)
        }
      }
    }
  }

  @Test("committed offsets carry notes of 4,096 bytes of any value")
  func metadata() async throws {
    try await withLog { log, _ in
      try await log.createTopic("a", configuration: TopicConfiguration(partitions: 2))
      let committed = CommittedOffset(offset: 3, metadata: (0..<4_096).map { UInt8(truncatingIfNeeded: $0) })
      try await log.commit(
        Transaction(
          appends: [SampleBatch.append(["x"], to: second)],
          offsets: [.init(group: "g", partition: first, committed: committed)]))
      #expect(try await log.committedOffsets(group: "g") == [first: committed])
    }
  }

  @Test("a log that was taken over commits nothing any more, and says so; the new one goes on")
  func fencing() async throws {
    try await withLog { old, configuration in
      try await old.createTopic("a", configuration: TopicConfiguration(partitions: 2))
      let both = Transaction(appends: [SampleBatch.append(["x"], to: first), SampleBatch.append(["x"], to: second)])
      try await old.commit(both)
      let new = try KafkaEventLog(configuration)
      for _ in 0..<2 {
        let error = await #expect(throws: LogError.self) { try await old.commit(both) }
        #expect(error?.code == .failed)
      }
      #expect(try await new.commit(both).baseOffsets == [2, 2])
      #expect(try await records(new, first).map(\.value) == ["x", "x"])
      await new.close()
    }
  }

  @Test(
    "a record larger than its topic takes is refused; what was committed along with it is not",
    arguments: [true, false])
  func tooLarge(plainly: Bool) async throws {
    try await withLog({
      $0.appendsPlainly = plainly
      $0.topicSettings = ["max.message.bytes": "100000"]
    }) { log, _ in
      try await log.createTopic("a", configuration: TopicConfiguration(partitions: 1))
      try await log.commit(Transaction(appends: [SampleBatch.append(["first"], to: first)]))
      let large = String(repeating: "x", count: 200_000)
      let answers = Answers()
      for (number, value) in ["before", large, "after"].enumerated() {
        log.commit(Transaction(appends: [SampleBatch.append([value], to: first)])) { answers.add($0, number) }
      }
      try await log.commit(Transaction(appends: [SampleBatch.append(["last"], to: first)]))
      #expect(answers.codes == [nil, .tooLarge, nil], "\(answers.errors)")
      #expect(try await records(log, first).map(\.value) == ["first", "before", "after", "last"])
    }
  }

  @Test("a record of 20 MB passes")
  func large() async throws {
    try await withLog { log, _ in
      try await log.createTopic("a", configuration: TopicConfiguration(partitions: 1))
      let large = String(repeating: "x", count: 20_000_000)
      try await log.commit(Transaction(appends: [SampleBatch.append([large, "behind"], to: first)]))
      #expect(try await records(log, first).map(\.value.utf8.count) == [20_000_000, 6])
    }
  }

  @Test("bytes that are no records fail their own transaction only", arguments: [true, false])
  func malformed(plainly: Bool) async throws {
    try await withLog({ $0.appendsPlainly = plainly }) { log, _ in
      try await log.createTopic("a", configuration: TopicConfiguration(partitions: 1))
      var bad = SampleBatch.append(["good", "bad"], to: first)
      var bytes = bad.batch.array
      // Length of the second record: ten bytes from the end.
      bytes[bytes.count - 10] = 0x7F
      bad.batch = ByteSlice(bytes)
      try await log.commit(Transaction(appends: [SampleBatch.append(["first"], to: first)]))
      let answers = Answers()
      for (number, append) in [SampleBatch.append(["1"], to: first), bad, SampleBatch.append(["3"], to: first)]
        .enumerated()
      {
        log.commit(Transaction(appends: [append])) { answers.add($0, number) }
      }
      try await log.commit(Transaction(appends: [SampleBatch.append(["last"], to: first)]))
      #expect(answers.codes == [nil, .invalidArgument, nil])
      #expect(try await records(log, first).map(\.value) == ["first", "1", "3", "last"])
    }
  }

  @Test("a topic made anew takes commits of all kinds, whoever made it anew")
  func madeAnew() async throws {
    try await withLog { log, configuration in
      var second = configuration
      second.transactionalID = "node-2"
      let other = try KafkaEventLog(second)
      for deleting in [log, log, other] {
        try await deleting.createTopic("a", configuration: TopicConfiguration(partitions: 2))
        for _ in 0..<3 {
          try await log.commit(
            Transaction(appends: [SampleBatch.append(["x"], to: first), SampleBatch.append(["x"], to: self.second)]))
        }
        #expect(try await records(log, first).count == 3)
        try await deleting.deleteTopic("a")
      }
      await other.close()
    }
  }

  @Test("what one node writes another one is told of, topics included")
  func severalNodes() async throws {
    try await withLog { log, configuration in
      var second = configuration
      second.transactionalID = "node-2"
      let other = try KafkaEventLog(second)
      try await log.createTopic("a", configuration: TopicConfiguration(partitions: 1))
      async let told: Void = other.waitUntilAvailable(first, after: 0)
      try await log.commit(Transaction(appends: [SampleBatch.append(["x"], to: first)]))
      await told
      #expect(try await records(other, first).map(\.value) == ["x"])
      try await other.commit(Transaction(appends: [SampleBatch.append(["y"], to: first)]))
      #expect(try await records(log, first).map(\.value) == ["x", "y"])
      try await other.deleteTopic("a")
      let error = await #expect(throws: LogError.self) { _ = try await log.read(first, from: 2, maxBytes: 1) }
      #expect(error?.code == .noSuchTopic)
      await other.close()
    }
  }

  @Test(
    "who follows a partition gets each record once and in order, whether this log or another one wrote it, in whatever way"
  )
  func following() async throws {
    try await withLog { log, configuration in
      var second = configuration
      second.transactionalID = "node-2"
      let other = try KafkaEventLog(second)
      try await log.createTopic("a", configuration: TopicConfiguration(partitions: 2))
      let seed = UInt64.random(in: 0 ... .max)
      print("seed \(seed)")
      let each = 300
      let expected = 2 * each
      async let followed: [(offset: Int64, value: String)] = {
        var found: [(offset: Int64, value: String)] = []
        var next: Int64 = 0
        while found.count < expected {
          await log.waitUntilAvailable(first, after: next)
          let result = try await log.read(first, from: next, maxBytes: 100_000)
          for batch in result.batches {
            #expect(batch.baseOffset >= next, "seed \(seed)")
            found += try SampleBatch.records(in: batch)
            next = batch.lastOffset + 1
          }
          if result.batches.isEmpty { next = max(next, result.bounds.end) }
        }
        return found
      }()
      try await withThrowingTaskGroup(of: Void.self) { group in
        for (place, writer) in [log, other].enumerated() {
          group.addTask {
            var random = SeededRandom(state: seed &+ UInt64(place))
            for number in 0..<each {
              var transaction = Transaction(appends: [SampleBatch.append(["\(place) \(number)"], to: first)])
              // With a second partition it is one of Kafka's transactions.
              if Int.random(in: 0..<4, using: &random) == 0 {
                transaction.appends.append(SampleBatch.append(["-"], to: self.second))
              }
              try await writer.commit(transaction)
            }
          }
        }
        try await group.waitForAll()
      }
      let found = try await followed
      for place in 0..<2 {
        let own = found.map(\.value).filter { $0.hasPrefix("\(place) ") }
        #expect(own == (0..<each).map { "\(place) \($0)" }, "seed \(seed)")
      }
      let fresh = try await records(other, first)
      #expect(fresh.map(\.offset) == found.map(\.offset) && fresh.map(\.value) == found.map(\.value), "seed \(seed)")
      await other.close()
    }
  }

  @Test("settings are passed on, and refused by name, never by value")
  func settings() async throws {
    try await withLog({ $0.settings = ["client.id": "grape"] }) { log, _ in _ = try await log.topics() }
    for settings in [
      ["no.such.setting": "secret"], ["isolation.level": "secret"], ["security.protocol": "secret"],
    ] {
      var configuration = try KafkaFixture.configuration()
      configuration.settings = settings
      let error = #expect(throws: LogError.self) { _ = try KafkaEventLog(configuration) }
      #expect(error?.code == .invalidArgument)
      #expect(error?.message.contains("secret") == false)
      #expect("\(configuration)".contains("secret") == false)
      #expect(String(reflecting: configuration).contains("secret") == false)
    }
  }
}

/// SplitMix64.
struct SeededRandom: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
