import GrapeCore
import GrapeWire
import Testing

@testable import Grape

private let routes: JSONValue = [
  "out": [["topic": "test.events", "event": "out", "partitions": 1]],
  "many": [
    ["topic": "a.events", "event": "x", "partitions": 4], ["topic": "b.events", "event": "y", "partitions": 1],
  ],
  "nowhere": [],
]

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
    let app = Application()
    app.on("in") { event, context in try context.emit("out", event.text.uppercased(), key: event.key) }
    let node = try FakeNode(app, slots: ["in"], routes: routes)
    let id = try node.deliver([.init(name: "in", key: "k1", value: "a"), .init(name: "in", value: "b")], base: 40)
    let result = try node.result()
    #expect(result.id == id)
    #expect(result.processed == 42)
    #expect(result.verdicts.isEmpty)
    #expect(result.tallies.map(\.succeeded) == [2])
    #expect(
      result.outputs == [
        .init(topic: "test.events", partition: 0, name: "out", key: "k1", value: "A", hops: 1, headers: ["g.e", "g.h"]),
        .init(topic: "test.events", partition: 0, name: "out", key: nil, value: "B", hops: 1, headers: ["g.e", "g.h"]),
      ])
  }
}
