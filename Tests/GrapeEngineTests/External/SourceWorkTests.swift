import GrapeCore
import GrapeLog
import GrapeWire
import Testing

@testable import GrapeEngine

@Suite("Records of others become events") struct SourceWorkTests {
  private func run(
    _ batches: [LogBatch], _ rules: SourceRules = .test(), from: Int64 = 0, care: SourceWork.Care = .none
  ) -> SourceWork.Result {
    SourceWork(rules: rules, batches: batches, from: from, care: care, spread: 1, now: 1_800_000_000_000).run()
  }

  /// The events, and the dead letters, that a result appends; every batch must be one that a node takes.
  private func contents(_ result: SourceWork.Result) throws -> (events: [Int32: [TestRecord]], letters: [TestRecord]) {
    var events: [Int32: [TestRecord]] = [:]
    var letters: [TestRecord] = []
    for append in result.appends {
      let header = try RecordBatch.validate(append.batch, checkingCRC: true, limit: 1 << 26) {
        (record) throws(WireError) in
        _ = try EventHeaders(record)
      }
      #expect(header.recordCount == append.recordCount && header.maxTimestamp == append.maxTimestamp)
      try append.check()
      let records = try TestBatches.unpack(append.batch)
      if append.partition == TopicPartition("shop.dead", 0) {
        letters += records
      } else {
        #expect(append.partition.topic == "shop.events")
        events[append.partition.partition, default: []] += records
      }
    }
    return (events, letters)
  }

  private func why(_ letter: TestRecord) throws -> JSONValue {
    try JSONValue(parsing: String(decoding: letter.header("g.x") ?? [], as: UTF8.self))
  }

  @Test("Key, value, time and headers stay; Grape's headers go, the place is told")
  func oneRecord() throws {
    let record = TestRecord(
      "v", key: "k",
      [
        TestHeader("a", "1"), TestHeader("g.e", "evil"), TestHeader("g.", nil), TestHeader("gx", "stays"),
        TestHeader("grape-source", "made up"), TestHeader("a", nil), TestHeader("traceparent", "00-1-2-03"),
        TestHeader("ce_id", "7"), TestHeader("content-type", "text/plain"),
      ], timestamp: 42)
    let result = run([TestBatches.placed(try TestBatches.pack([record]), at: 17)], from: 17)
    let key = ByteSlice("k")
    let partition = key.withUnsafeBytes { Partitioner.partition(forKey: $0, of: 3) }
    let (events, letters) = try contents(result)
    let event = try #require(events[partition]?.first)
    #expect(events.count == 1 && letters.isEmpty)
    #expect(event.key == record.key && event.value == record.value && event.timestamp == 42)
    #expect(
      event.headers == [
        TestHeader("g.e", "order"), TestHeader("grape-source", "orders/2:17"), TestHeader("a", "1"),
        TestHeader("gx", "stays"), TestHeader("a", nil), TestHeader("traceparent", "00-1-2-03"),
        TestHeader("ce_id", "7"), TestHeader("content-type", "text/plain"),
      ])
    #expect(result.next == 18 && result.isComplete && result.damage == nil)
    #expect(result.arrivals == [SourceArrival(partition: partition, count: 1, timestamp: 42)])
  }

  @Test("Null and empty keys and values differ; events without key go to one partition together")
  func nulls() throws {
    let records = [TestRecord(nil, key: "k"), TestRecord("", key: ""), TestRecord(nil), TestRecord("x")]
    let (events, _) = try contents(run([TestBatches.placed(try TestBatches.pack(records), at: 0)]))
    let all = events.values.joined()
    #expect(all.count == 4)
    #expect(all.contains { $0.key == Array("k".utf8) && $0.value == nil })
    #expect(all.contains { $0.key == [] && $0.value == [] })
    #expect(events[1]?.filter { $0.key == nil }.count == 2)
  }

  @Test("A time that nobody can have meant becomes the present")
  func times() throws {
    let records = [-1, Int64.min / 2, 5].map { TestRecord("v", key: "k", timestamp: $0) }
    let (events, _) = try contents(run([TestBatches.placed(try TestBatches.pack(records), at: 0)]))
    #expect(events.values.joined().map(\.timestamp) == [1_800_000_000_000, 1_800_000_000_000, 5])
  }

  @Test("Structured CloudEvents are taken apart; a trace in their attributes is the event's")
  func structured() throws {
    let value = """
      {"specversion":"1.0","id":"1","source":"/s","type":"t","traceparent":"00-a","customer":"c7","data":{"x": 1}}
      """
    let record = TestRecord(
      value, key: "own",
      [
        TestHeader("Content-Type", "Application/CloudEvents+JSON; charset=UTF-8"), TestHeader("ce_id", "other"),
        TestHeader("more", "1"), TestHeader("g.r", "x"),
      ])
    let rules = SourceRules.test(key: Array("ce_customer".utf8))
    let (events, _) = try contents(run([TestBatches.placed(try TestBatches.pack([record]), at: 0)], rules))
    let event = try #require(events.values.joined().first)
    #expect(event.valueText == #"{"x": 1}"# && event.key == Array("c7".utf8))
    #expect(event.text("ce_id") == "1" && event.text("traceparent") == "00-a" && event.text("more") == "1")
    #expect(event.text("content-type") == "application/json" && event.header("Content-Type") == nil)
    #expect(event.headers.count == 2 + 1 + 6 + 1 + 1)
  }

  @Test(
    "A tombstone with a structured content type stays a tombstone, and other formats of CloudEvents stay as they are")
  func notStructured() throws {
    let records = [
      TestRecord(nil, key: "k", [TestHeader("content-type", "application/cloudevents+json")]),
      TestRecord("xyz", key: "k", [TestHeader("content-type", "application/cloudevents+avro")]),
      TestRecord("[]", key: "k", [TestHeader("content-type", "application/cloudevents-batch+json")]),
    ]
    let (events, letters) = try contents(run([TestBatches.placed(try TestBatches.pack(records), at: 0)]))
    #expect(events.values.joined().map(\.value) == records.map(\.value) && letters.isEmpty)
  }

  @Test("A record that cannot be an event becomes a dead letter with its place, and the others go on")
  func unusable() throws {
    let records = [
      TestRecord("1", key: "a"), TestRecord("2", key: "b"), TestRecord("3", key: "c"), TestRecord("4", key: "d"),
      TestRecord(String(repeating: "x", count: 20_000), key: "e", [TestHeader("h", "1")]), TestRecord("6", key: "f"),
    ]
    var notUTF8 = records
    notUTF8[3].headers = [TestHeader("good", "1"), TestHeader(name: [0xff], value: [1])]
    let batch = try TestBatches.pack(notUTF8, sections: [1: [2], 2: [4, 2, 0x61]])
    let result = run([TestBatches.placed(batch, at: 100)], .test(eventLimit: 10_000), from: 100)
    let (events, letters) = try contents(result)
    #expect(Set(events.values.joined().compactMap(\.valueText)) == ["1", "6"])
    #expect(result.events == 2 && result.unusable == 4 && result.next == 106 && result.isComplete)
    #expect(result.firstUnusable?.offset == 101)
    #expect(letters.count == 4)
    let reasons = try letters.map { try why($0) }
    #expect(reasons.map { $0["offset"]?.int } == [101, 102, 103, 104])
    #expect(reasons.allSatisfy { $0["reason"]?.string == "unusable" && $0["topic"]?.string == "orders" })
    #expect(reasons.allSatisfy { $0["partition"]?.int == 2 && $0["version"]?.string == "v1" })
    #expect(letters.allSatisfy { $0.text("g.e") == "order" })
    #expect(letters[0].value == Array("2".utf8) && letters[2].text("good") == "1")
    // The one that is too large comes without its value.
    #expect(letters[3].value == nil && letters[3].key == Array("e".utf8) && letters[3].text("h") == "1")
    #expect(reasons[3]["omitted"]?.array == [.string("value")])
    #expect(reasons[3]["message"]?.string?.contains("10000 are allowed") == true)
  }

  @Test("Work is cut where a transaction is full, and goes on from there without loss")
  func pieces() throws {
    let records = (0..<300).map { TestRecord(String(repeating: "v", count: 40_000), key: "k\($0)") }
    let batches = try [
      TestBatches.placed(TestBatches.pack(Array(records[..<200])), at: 0),
      TestBatches.placed(TestBatches.pack(Array(records[200...]), level: 1), at: 200),
    ]
    var next: Int64 = 0
    var places: [String] = []
    var pieces = 0
    while true {
      let result = run(batches, from: next)
      let size = result.appends.reduce(0) { $0 + $1.batch.count }
      #expect(size < SourceWork.transactionBytes + 200_000)
      places += try contents(result).events.values.joined().compactMap { $0.text("grape-source") }
      #expect(result.next > next)
      next = result.next
      pieces += 1
      if result.isComplete { break }
    }
    #expect(pieces > 2 && next == 300)
    #expect(Set(places) == Set((0..<300).map { "orders/2:\($0)" }) && places.count == 300)
  }

  @Test("Care takes one record at a time, and in the end sets it aside without its value")
  func careful() throws {
    let batch = TestBatches.placed(try TestBatches.pack([TestRecord("1", key: "a"), TestRecord("2", key: "b")]), at: 0)
    let single = run([batch], care: .single)
    #expect(single.next == 1 && !single.isComplete && single.events == 1)
    let aside = run([batch], from: 1, care: .setAside)
    #expect(aside.next == 2 && aside.isComplete && aside.events == 0 && aside.unusable == 1)
    let letter = try #require(try contents(aside).letters.first)
    #expect(letter.value == nil && letter.key == Array("b".utf8))
  }

  @Test("A batch that cannot be read is told of, with what came before it done")
  func damage() throws {
    let good = TestBatches.placed(try TestBatches.pack([TestRecord("1", key: "a")]), at: 0)
    var bad = TestBatches.placed(try TestBatches.pack([TestRecord("2", key: "b")]), at: 1)
    // Its first record says that it is longer than the batch.
    let storage = ByteSlice(copying: bad.bytes.unsafeBytes)
    storage.storage.base.storeBytes(of: 0x7e, toByteOffset: RecordBatch.headerSize, as: UInt8.self)
    bad.bytes = storage
    let first = run([good, bad])
    #expect(first.next == 1 && !first.isComplete && first.events == 1 && first.damage != nil)
    let second = run([good, bad], from: 1)
    #expect(second.next == 1 && second.appends.isEmpty && second.damage?.contains("offset 1") == true)
  }

  @Test("Any records: each becomes one event or one dead letter, in a batch that nodes take")
  func anyRecords() throws {
    let seed = UInt64.random(in: 0...UInt64.max)
    var random = SeededGenerator(seed: seed)
    func bytes(_ limit: Int) -> [UInt8] {
      (0..<Int.random(in: 0...limit, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
    }
    let names = ["content-type", "g.e", "g.r", "traceparent", "grape-source", "ce_traceparent", "x", ""].map {
      Array($0.utf8)
    }
    let values = [
      "application/cloudevents+json", #"{"specversion":"1.0","id":"1","source":"s","type":"t","data":[1]}"#,
    ]
    for round in 0..<200 {
      var records: [TestRecord] = []
      var sections: [Int: [UInt8]] = [:]
      for number in 0..<Int.random(in: 1...20, using: &random) {
        var record = TestRecord(nil, timestamp: Int64.random(in: -5...1_000_000, using: &random))
        record.key = Bool.random(using: &random) ? bytes(30) : nil
        record.value = Bool.random(using: &random) ? bytes(300) : Array(values[1].utf8)
        if Int.random(in: 0..<5, using: &random) == 0 { record.value = nil }
        for _ in 0..<Int.random(in: 0...5, using: &random) {
          let name = Bool.random(using: &random) ? names.randomElement(using: &random)! : bytes(10)
          record.headers.append(
            TestHeader(name: name, value: Bool.random(using: &random) ? Array(values[0].utf8) : bytes(20)))
        }
        if Int.random(in: 0..<8, using: &random) == 0 {
          sections[number] = [UInt8.random(in: 0...255, using: &random)] + bytes(40)
        }
        records.append(record)
      }
      let level: Int32? = Bool.random(using: &random) ? 1 : nil
      let batch = TestBatches.placed(try TestBatches.pack(records, sections: sections, level: level), at: 1000)
      let rules = SourceRules.test(eventLimit: 400, compression: Bool.random(using: &random) ? .zstd(level: 1) : .none)
      let result = run([batch], rules, from: 1000)
      let (events, letters) = try contents(result)
      let all = events.values.joined()
      #expect(all.count == result.events && letters.count == result.unusable, "seed \(seed), round \(round)")
      #expect(result.events + result.unusable == records.count && result.isComplete, "seed \(seed), round \(round)")
      let offsets =
        try all.map { Int64($0.text("grape-source")!.split(separator: ":").last!)! }
        + letters.map { try why($0)["offset"]!.int! }
      #expect(offsets.sorted() == (0..<records.count).map { Int64(1000 + $0) }, "seed \(seed), round \(round)")
      for event in all {
        #expect(
          event.headers.filter { $0.name.starts(with: Array("g.".utf8)) } == [TestHeader("g.e", "order")],
          "seed \(seed)")
        #expect(event.headers.filter { $0.name == Array("grape-source".utf8) }.count == 1, "seed \(seed)")
      }
    }
  }
}
