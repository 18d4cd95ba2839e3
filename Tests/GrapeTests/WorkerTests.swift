import GrapeCore
import GrapeWire
import Synchronization
import Testing

@testable import Grape

let testRoutes: JSONValue = [
  "out": [["topic": "test.events", "event": "out", "partitions": 1]],
  "many": [
    ["topic": "a.events", "event": "x", "partitions": 4], ["topic": "b.events", "event": "y", "partitions": 1],
  ],
  "nowhere": [],
]

func caller(_ number: UInt64) -> ReplyAddress {
  ReplyAddress(correlation: CorrelationID(high: 7, low: number), partition: 3, topic: "_grape.replies.n1")
}

/// An application that upper-cases what it gets.
func shouting() -> Application {
  let app = Application()
  app.on("in") { event, context in try context.emit("out", event.text.uppercased(), key: event.key) }
  return app
}

@Suite struct WorkerTests {
  @Test func `says HELLO as the protocol wants it`() throws {
    let app = Application()
    app.on("one") { _, _ in }
    app.on("two") { _, _ in }
    let node = try FakeNode(app, slots: ["two"])
    #expect(node.hello["role"]?.string == "worker")
    #expect(node.hello["protocol"] == [1])
    #expect(node.hello["token"]?.string == "secret")
    #expect(node.hello["slots"] == ["one", "two"])
    #expect(node.hello["compression"] == ["none", "zstd"])
    #expect(node.hello["pid"]?.int ?? 0 > 0)
  }

  @Test func `runs events in order and emits with key, hops and name`() throws {
    let node = try FakeNode(shouting(), slots: ["in"], routes: testRoutes)
    let id = try node.deliver([.init(name: "in", key: "k1", value: "a"), .init(name: "in", value: "b")], base: 40)
    let result = try node.result()
    #expect(result.id == id)
    #expect(result.processed == 42)
    #expect(result.verdicts.isEmpty)
    #expect(result.tallies.map(\.succeeded) == [2])
    #expect(
      result.outputs == [
        .init(
          topic: "test.events", partition: 0, name: "out", key: "k1", value: "A", hops: 1, headers: ["g.e", "g.h"]),
        .init(topic: "test.events", partition: 0, name: "out", key: nil, value: "B", hops: 1, headers: ["g.e", "g.h"]),
      ])
  }

  @Test(arguments: ["none", "zstd:1", "zstd:19", "zstd:-7"])
  func `packs what it emits as the node says`(compression: String) throws {
    let node = try FakeNode(
      shouting(), slots: ["in"], routes: testRoutes, limits: [.init("compression", .string(compression))])
    let text = String(repeating: "all alike ", count: 1000)
    for _ in 0..<2 {
      try node.deliver([.init(name: "in", value: text), .init(name: "in", value: "b")])
      let result = try node.result()
      #expect(result.outputs.map(\.value) == [text.uppercased(), "B"])
      #expect((result.batchSizes[0] < 1000) == (compression != "none"))
    }
    // One that would become larger goes as it is.
    try node.deliver([.init(name: "in", value: "x")])
    let small = try node.result()
    #expect(small.outputs.map(\.value) == ["X"])
  }

  @Test(arguments: [false, true])
  func `runs only offsets from first to end that are not skipped`(compressed: Bool) throws {
    let node = try FakeNode(shouting(), slots: ["in"], routes: testRoutes)
    let events = (0..<10).map { FakeNode.Input(name: "in", value: "\($0)") }
    try node.deliver(events, base: 100, first: 102, end: 108, skips: [103, 105, 106], compressed: compressed)
    let result = try node.result()
    #expect(result.processed == 108)
    #expect(result.outputs.map(\.value) == ["2", "4", "7"])
    #expect(result.tallies.map(\.succeeded) == [3])
  }

  @Test func `copies a signal to every slot connected, by key`() throws {
    let app = Application()
    let many = app.signal("many")
    app.on("in") { event, context in try context.emit(many, event.value, key: event.key) }
    let node = try FakeNode(app, slots: ["in"], routes: testRoutes)
    let keys = (0..<20).map { "key-\($0)" }
    try node.deliver(keys.map { .init(name: "in", key: $0, value: $0) })
    let result = try node.result()
    for key in keys {
      let copies = result.outputs.filter { $0.key == key }
      let partition = ByteSlice(key).withUnsafeBytes { Partitioner.partition(forKey: $0, of: 4) }
      #expect(copies.map(\.topic).sorted() == ["a.events", "b.events"])
      #expect(copies.first { $0.topic == "a.events" }?.partition == partition)
      #expect(copies.map(\.name).sorted() == ["x", "y"])
    }
  }

  @Test func `spreads deliveries of unkeyed events over the partitions`() throws {
    let app = Application()
    app.on("in") { event, context in try context.emit("many", event.value) }
    let node = try FakeNode(app, slots: ["in"], routes: testRoutes)
    var partitions: [Int32] = []
    for delivery in 0..<5 {
      try node.deliver([.init(name: "in"), .init(name: "in")], base: Int64(delivery) * 2)
      let outputs = try node.result().outputs.filter { $0.topic == "a.events" }
      #expect(outputs.count == 2 && outputs[0].partition == outputs[1].partition)
      partitions.append(outputs[0].partition)
    }
    #expect(partitions == [0, 1, 2, 3, 0])
  }

  @Test func `refuses names that the manifest does not list, and knows signals that go nowhere`() throws {
    let app = Application()
    app.on("unknown") { _, context in try context.emit("nobody", "x") }
    app.on("nowhere") { _, context in try context.emit("nowhere", "x") }
    let node = try FakeNode(app, slots: ["unknown", "nowhere"], routes: testRoutes)
    try node.deliver([.init(name: "nowhere"), .init(name: "unknown")])
    let result = try node.result()
    #expect(result.processed == 1)
    #expect(result.verdicts.map(\.kind) == [4])
    #expect(result.verdicts[0].message.contains("nobody"))
    #expect(result.outputs.isEmpty)
  }

  @Test func `a handle of another application does not lead astray`() throws {
    let other = Application().signal("nowhere")
    let app = Application()
    let mine = app.signal("out")
    app.on("in") { _, context in
      try context.emit(mine, "mine")
      try context.emit(other, "other")
    }
    let node = try FakeNode(app, slots: ["in"], routes: testRoutes)
    try node.deliver([.init(name: "in"), .init(name: "in")])
    #expect(try node.result().outputs.map(\.value) == ["mine", "mine"])
  }

  @Test func `keeps apart events whose headers alternate`() throws {
    let app = Application()
    let out = app.signal("out")
    app.on("a") { event, context in try context.emit(out, "a\(event.text)") }
    app.on("b") { event, context in try context.emit(out, "b\(event.text)") }
    let node = try FakeNode(app, slots: ["b", "a"], routes: testRoutes)
    let events = (0..<12).map { FakeNode.Input(name: $0 % 3 == 0 ? "a" : "b", value: "\($0)", hops: UInt8($0 % 5)) }
    try node.deliver(events)
    let result = try node.result()
    #expect(result.outputs.map(\.value) == (0..<12).map { ($0 % 3 == 0 ? "a" : "b") + "\($0)" })
    #expect(result.outputs.map(\.hops) == (0..<12).map { UInt8($0 % 5) + 1 })
    #expect(result.tallies.map(\.succeeded) == [8, 4])
  }

  @Test func `shows a handler all of its event`() throws {
    let seen = Mutex<[String]>([])
    let app = Application()
    app.on("in") { event, context in
      let headers = event.headers.map { "\($0.name)=\($0.value?.string ?? "null")" }.joined(separator: ",")
      let line =
        "\(event.name) \(event.key?.string ?? "null") \(event.text) \(event.partition) \(event.offset) "
        + "\(event.timestamp) \(event.attempt) \(event.isAwaited) \(headers) \(event.traceparent ?? "none")"
      seen.withLock { $0.append(line + " \(context.worker) \(context.app) \(context.version) \(context.config.text)") }
    }
    let node = try FakeNode(app, slots: ["in"], config: ["n": 5])
    try node.deliver(
      [
        .init(
          name: "in", key: "k", value: "v", reply: caller(1), headers: [("a", "1"), ("traceparent", "tp"), ("b", "")])
      ],
      partition: 9, attempt: 3, base: 77)
    _ = try node.result()
    #expect(seen.withLock { $0 } == [#"in k v 9 77 1000 3 true a=1,b= tp test-1 test v1 {"n":5}"#])
  }

  @Test func `cuts output batches at about a mebibyte, and rolls back across the cut`() throws {
    let app = Application()
    let big = String(repeating: "x", count: 100_000)
    app.on("in") { event, context in
      for _ in 0..<30 { try context.emit("out", big) }
      if event.text == "bad" { throw Reject(code: 1) }
      try context.emit("out", event.text)
    }
    let node = try FakeNode(app, slots: ["in"], routes: testRoutes)
    try node.deliver([
      .init(name: "in", value: "one"), .init(name: "in", value: "bad"), .init(name: "in", value: "two"),
    ])
    let result = try node.result()
    #expect(result.batchSizes.allSatisfy { $0 <= 1_100_000 })
    #expect(result.outputs.count == 62)
    #expect(result.outputs[30].value == "one" && result.outputs[61].value == "two")
    #expect(result.verdicts.map(\.offset) == [1])
  }

  @Test func `leaves the rest of a delivery whose outputs would not fit into a frame`() throws {
    let app = Application()
    app.on("in") { event, context in try context.emit("out", String(repeating: event.text, count: 60_000)) }
    let node = try FakeNode(
      app, slots: ["in"], routes: testRoutes, limits: [.init("maxFrame", 200_000), .init("maxEvent", 100_000)])
    let events = (0..<5).map { FakeNode.Input(name: "in", value: "\($0)") }
    var processed: [Int64] = []
    var firstDigits = ""
    repeat {
      try node.deliver(events, first: processed.last)
      let result = try node.result()
      #expect(result.verdicts.isEmpty)
      processed.append(result.processed)
      firstDigits += result.outputs.compactMap { $0.value?.prefix(1) }.joined()
    } while processed.last! < 5
    #expect(processed == [2, 4, 5])
    #expect(firstDigits == "01234")
  }

  @Test func `refuses an event beyond maxEvent`() throws {
    let app = Application()
    app.on("in") { event, context in
      try context.emit("out", String(repeating: "x", count: event.text.utf8.count * 1000))
    }
    let node = try FakeNode(app, slots: ["in"], routes: testRoutes, limits: [.init("maxEvent", 5000)])
    try node.deliver([.init(name: "in", value: "1234"), .init(name: "in", value: "12345")])
    let result = try node.result()
    #expect(result.outputs.count == 1)
    #expect(result.verdicts.map(\.kind) == [4])
    #expect(result.verdicts[0].message.contains("5000"))
  }
}
