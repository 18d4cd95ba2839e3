import GrapeCore
import GrapeWire
import Testing

@testable import Grape

@Suite(.timeLimit(.minutes(1))) struct EventProducerTests {
  /// Answers APPENDs as a log would, and keeps what it got.
  private final class Log: Sendable {
    struct Seen: Sendable, Equatable {
      var partition: Int32
      var key: [UInt8]?
      var value: [UInt8]
      var event: [UInt8]
      var provenance: [UInt8]?
    }
    let seen = Shared<[Seen]>([])
    let frames = Shared<Int>(0)
    let batches = Shared<Int>(0)
    let ends = Shared<[Int32: Int64]>([:])

    func append(_ frame: ReceivedFrame) -> ByteSlice {
      frames.change { $0 += 1 }
      do {
        var entries: [(Int32, Int64)] = []
        for (partition, batch) in try AppendFrame(frame).batches {
          batches.change { $0 += 1 }
          let unpacked = try RecordBatch.unpack(batch, checkingCRC: true, limit: 1 << 24)
          var records = unpacked.reader()
          var count: Int64 = 0
          while let record = try records.next() {
            count += 1
            var event: [UInt8] = []
            var provenance: [UInt8]?
            var headers = record.headers
            while let (name, value) = try headers.next() {
              if name.elementsEqual("g.e".utf8) { event = value.map { [UInt8]($0) } ?? [] }
              if name.elementsEqual(EventProducer.provenanceHeader.utf8) { provenance = value.map { [UInt8]($0) } }
            }
            let one = Seen(
              partition: partition, key: record.key.map { [UInt8]($0) }, value: [UInt8](record.value!), event: event,
              provenance: provenance)
            seen.change { $0.append(one) }
          }
          let records64 = count
          entries.append(
            (
              partition,
              ends.change { ends in
                defer { ends[partition, default: 0] += records64 }
                return ends[partition, default: 0]
              }
            ))
          withExtendedLifetime(unpacked) {}
        }
        return FakeNode.appended(id: frame.id, topic: "a.events", entries)
      } catch {
        return FakeNode.error(.badRequest, "\(error)", id: frame.id)
      }
    }
  }

  private func send(_ producer: EventProducer, _ template: EventTemplate, count: Int) throws {
    for number in 0..<count {
      try withUnsafeBytes(of: UInt32(number % 50).bigEndian) { key in
        try withUnsafeBytes(of: UInt64(number).bigEndian) { value in
          try producer.send(template, key: key, value: value, tag: EventTag(Int64(number)))
        }
      }
    }
    try producer.finish()
  }

  @Test(arguments: [nil, Int32(1)])
  func `every event arrives once, in its key's partition and order, and acknowledgements come in order`(level: Int32?)
    throws
  {
    let log = Log()
    let node = try FakeNode { [log.append($0)] }
    var configuration = ProducerConfiguration()
    configuration.frameBytes = 4000
    configuration.windowBytes = 20_000
    configuration.compressionLevel = level
    var events: Int64 = 0
    var lastTag: Int64 = -1
    let producer = EventProducer(
      connection: try NodeConnection(path: node.path), app: "a", partitions: 3, configuration: configuration
    ) { acknowledgement in
      #expect(acknowledgement.firstEvent == events)
      #expect(acknowledgement.batches.reduce(0) { $0 + Int64($1.eventCount) } == acknowledgement.eventCount)
      events += acknowledgement.eventCount
      #expect(acknowledgement.tag.first > lastTag)
      lastTag = acknowledgement.tag.first
    }
    try send(producer, EventTemplate(event: "e"), count: 5000)
    #expect(events == 5000)
    #expect(lastTag == 4999)
    #expect(producer.unacknowledgedBytes == 0)
    let seen = log.seen()
    #expect(seen.count == 5000)
    #expect(seen.allSatisfy { $0.event == Array("e".utf8) })
    for one in seen {
      let partition = one.key!.withUnsafeBytes { Partitioner.partition(forKey: $0, of: 3) }
      #expect(one.partition == partition)
    }
    for (_, ofKey) in Dictionary(grouping: seen, by: { $0.key }) {
      let values = ofKey.map { $0.value }
      #expect(values == values.sorted { $0.lexicographicallyPrecedes($1) })
    }
  }

  @Test func `events without a key are spread over the partitions`() throws {
    let log = Log()
    let node = try FakeNode { [log.append($0)] }
    var configuration = ProducerConfiguration()
    configuration.frameBytes = 500
    let producer = EventProducer(
      connection: try NodeConnection(path: node.path), app: "a", partitions: 4, configuration: configuration)
    let template = EventTemplate(event: "e")
    for _ in 0..<1000 { try producer.send(template, key: nil, value: ByteSlice("0123456789").unsafeBytes) }
    try producer.finish()
    let perPartition = Dictionary(grouping: log.seen(), by: { $0.partition }).mapValues { $0.count }
    #expect(perPartition.count == 4)
    #expect(perPartition.values.min()! > 150)
  }

  @Test func `a full queue is waited for, and the order of events stays`() throws {
    let log = Log()
    let answers = Shared<Int>(0)
    let node = try FakeNode { frame in
      let number = answers.change { number in
        number += 1
        return number
      }
      // The second frame and all behind it are refused for a while.
      if (2...9).contains(number) { return [FakeNode.error(.queueFull, "full", id: frame.id)] }
      return [log.append(frame)]
    }
    var configuration = ProducerConfiguration()
    configuration.frameBytes = 2000
    configuration.windowBytes = 5000
    var next: Int64 = 0
    let producer = EventProducer(
      connection: try NodeConnection(path: node.path), app: "a", partitions: 1, configuration: configuration
    ) {
      #expect($0.firstEvent == next)
      next += $0.eventCount
    }
    try send(producer, EventTemplate(event: "e"), count: 500)
    #expect(next == 500)
    #expect(log.seen().map { $0.value.last! } == (0..<500).map { UInt8(truncatingIfNeeded: $0) })
  }

  @Test func `a queue that stays full ends in its refusal`() throws {
    let node = try FakeNode { [FakeNode.error(.queueFull, "full", id: $0.id)] }
    var configuration = ProducerConfiguration()
    configuration.queueFullPatience = .milliseconds(50)
    let producer = EventProducer(
      connection: try NodeConnection(path: node.path), app: "a", partitions: 1, configuration: configuration)
    let error = #expect(throws: StatusError.self) { try send(producer, EventTemplate(event: "e"), count: 1) }
    #expect(error?.status == .queueFull)
  }

  @Test func `other refusals are thrown at once`() throws {
    let node = try FakeNode { [FakeNode.error(.noSuchSlot, "a has no slot `e`", id: $0.id)] }
    let producer = EventProducer(connection: try NodeConnection(path: node.path), app: "a", partitions: 1)
    let error = #expect(throws: StatusError.self) { try send(producer, EventTemplate(event: "e"), count: 1) }
    #expect(error?.status == .noSuchSlot)
  }

  @Test func `an event beyond the node's limit is refused before it is sent`() throws {
    let node = try FakeNode(maxEvent: 100) { _ in [] }
    let producer = EventProducer(connection: try NodeConnection(path: node.path), app: "a", partitions: 1)
    let error = #expect(throws: StatusError.self) {
      try producer.send(
        EventTemplate(event: "e"), key: nil, value: ByteSlice([UInt8](repeating: 0, count: 101)).unsafeBytes)
    }
    #expect(error?.status == .tooLarge)
  }

  @Test func `with provenance, every batch says which frame it belongs to`() throws {
    let log = Log()
    let node = try FakeNode { [log.append($0)] }
    var configuration = ProducerConfiguration()
    configuration.frameBytes = 4000
    configuration.provenance = Array("run1".utf8)
    configuration.firstEvent = 100
    var firsts: Set<Int64> = []
    let producer = EventProducer(
      connection: try NodeConnection(path: node.path), app: "a", partitions: 3, configuration: configuration
    ) { firsts.insert($0.firstEvent) }
    try send(producer, EventTemplate(event: "e"), count: 1000)
    let marks = log.seen().compactMap { $0.provenance }
    #expect(marks.allSatisfy { $0.starts(with: Array("run1".utf8)) && $0.count == 16 })
    #expect(marks.count == log.batches())
    let named = Set(marks.map { mark in mark[4..<12].reduce(Int64(0)) { $0 << 8 | Int64($1) } })
    #expect(marks.reduce(0) { $0 + $1[12...].reduce(0) { $0 << 8 | Int($1) } } == 1000)
    #expect(named == firsts)
    #expect(firsts.contains(100))
  }

  @Test func `numbers can be left out, and a frame's numbers are told before it goes`() throws {
    let log = Log()
    let told = Shared<[Range<Int64>]>([])
    let node = try FakeNode { frame in
      // The frame comes after the caller was told of it.
      guard told().count > log.frames() else { return nil }
      return [log.append(frame)]
    }
    var acknowledged: [Int64] = []
    let producer = EventProducer(
      connection: try NodeConnection(path: node.path), app: "a", partitions: 1,
      acknowledged: { acknowledged += [$0.firstEvent, $0.eventCount] },
      sending: { events in told.change { $0.append(events) } })
    let template = EventTemplate(event: "e")
    try producer.send(template, key: nil, value: ByteSlice("x").unsafeBytes)
    try producer.send(template, key: nil, value: ByteSlice("y").unsafeBytes)
    try producer.skipEvents(40)
    try producer.send(template, key: nil, value: ByteSlice("z").unsafeBytes)
    try producer.finish()
    #expect(told() == [0..<2, 42..<43])
    #expect(acknowledged == [0, 2, 42, 1])
  }
}
