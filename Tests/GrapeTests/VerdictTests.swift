import GrapeCore
import GrapeWire
import Testing

@testable import Grape

private struct Broken: Error {}

@Suite struct VerdictTests {
  private func application() -> Application {
    let app = Application()
    app.on("in") { event, context in
      try context.emit("out", event.text)
      switch event.text {
      case "reject": throw Reject(code: 7, message: "no")
      case "retry": throw Retry(after: .milliseconds(2500), message: "later")
      case "broken": throw Broken()
      default: break
      }
    }
    return app
  }

  @Test func `rejected events leave nothing, and the delivery goes on`() throws {
    let node = try FakeNode(application(), slots: ["in"], routes: testRoutes)
    try node.deliver(["a", "reject", "b"].map { .init(name: "in", value: $0) })
    let result = try node.result()
    #expect(result.processed == 3)
    #expect(result.verdicts == [.init(offset: 1, kind: 1, code: 7, message: "no")])
    #expect(result.outputs.map(\.value) == ["a", "b"])
    #expect(result.tallies.map { [$0.succeeded, $0.failed] } == [[2, 1]])
  }

  @Test(arguments: [("retry", 2, 2500, "later"), ("broken", 4, 0, "Broken()")] as [(String, UInt8, UInt32, String)])
  func `a delivery stops at the first failed or retried event that nobody waits for`(
    value: String, kind: UInt8, delay: UInt32, message: String
  ) throws {
    let node = try FakeNode(application(), slots: ["in"], routes: testRoutes)
    try node.deliver(["a", "reject", value, "b"].map { .init(name: "in", value: $0) }, base: 10)
    let result = try node.result()
    #expect(result.processed == 12)
    #expect(result.verdicts.count == 2)
    #expect(result.verdicts.last == .init(offset: 12, kind: kind, delay: delay, message: message))
    #expect(result.outputs.map(\.value) == ["a"])
  }

  @Test func `a caller is told of a failure, and the delivery goes on`() throws {
    let node = try FakeNode(application(), slots: ["in"], routes: testRoutes)
    let events = ["reject", "broken", "retry", "ok"].enumerated().map {
      FakeNode.Input(name: "in", value: $1, reply: caller(UInt64($0)))
    }
    try node.deliver(events)
    let result = try node.result()
    #expect(result.processed == 4)
    #expect(result.verdicts.map(\.kind) == [1, 4, 4])
    let replies = result.outputs.filter { $0.topic == "_grape.replies.n1" }
    #expect(replies.map(\.partition) == [3, 3, 3])
    #expect(
      replies.map(\.status) == [
        ReplyStatus(.handlerError, ran: .yes, code: 7, message: "no"),
        ReplyStatus(.handlerError, ran: .yes, code: 0, message: "Broken()"),
        ReplyStatus(.handlerError, ran: .yes, code: 0, message: "later"),
      ])
    #expect(replies.map(\.headers) == [["g.s"], ["g.s"], ["g.s"]])
    // Only the last one's event is left, and carries its caller on.
    let emitted = result.outputs.filter { $0.topic == "test.events" }
    #expect(emitted.map(\.value) == ["ok"])
    #expect(emitted.map(\.origin) == [caller(3)])
  }

  @Test func `an event past its deadline is not run`() throws {
    let node = try FakeNode(application(), slots: ["in"], routes: testRoutes)
    try node.deliver([
      .init(name: "in", value: "late", deadline: 1),
      .init(name: "in", value: "late too", deadline: 1, reply: caller(9)),
      .init(name: "in", value: "a", deadline: .max), .init(name: "in", value: "b", deadline: .max),
    ])
    let result = try node.result()
    #expect(result.processed == 4)
    #expect(result.verdicts.map(\.kind) == [3, 3])
    let replies = result.outputs.compactMap(\.status)
    #expect(replies.map(\.status) == [.deadlineExceeded] && replies.map(\.ran) == [.never])
    let emitted = result.outputs.filter { $0.status == nil }
    #expect(emitted.map(\.value) == ["a", "b"])
    #expect(emitted.map(\.deadline) == [.max, .max])
  }

  @Test func `a chain beyond the hop limit is rejected`() throws {
    let node = try FakeNode(application(), slots: ["in"], routes: testRoutes, limits: [.init("maxHops", 3)])
    try node.deliver([
      .init(name: "in", value: "a", hops: 2), .init(name: "in", value: "b", hops: 3, reply: caller(1)),
    ])
    let result = try node.result()
    #expect(result.verdicts.map(\.kind) == [1] && result.verdicts.map(\.code) == [17])
    #expect(result.outputs.compactMap(\.status).map(\.status) == [.hopLimit])
    #expect(result.outputs.filter { $0.status == nil }.map(\.hops) == [3])
  }

  @Test func `an event without a slot is rejected and its caller told`() throws {
    let node = try FakeNode(application(), slots: ["in"], routes: testRoutes)
    try node.deliver([.init(name: "other", reply: caller(1)), .init(name: "in", value: "a")])
    let result = try node.result()
    #expect(result.verdicts.map(\.kind) == [1] && result.verdicts.map(\.code) == [3])
    #expect(result.outputs.compactMap(\.status).map(\.status) == [.noSuchSlot])
    #expect(result.processed == 2)
  }
}

@Suite struct ReplyTests {
  private func result(_ build: (Application) -> Void, value: String = "v") throws -> ResultFrame {
    let app = Application()
    build(app)
    let node = try FakeNode(app, slots: ["in"], routes: testRoutes)
    try node.deliver([.init(name: "in", value: value, reply: caller(1), headers: [("traceparent", "tp")])])
    return try node.result()
  }

  @Test func `what a handler returns is the final reply`() throws {
    for result in [
      try result { $0.on("in") { _, _ in Reply("table") } }, try result { $0.on("in") { _, _ in "table" } },
      try result { $0.on("in") { _, context in try context.reply("table") } },
      try result { $0.on("in") { _, _ async throws in Reply("table") } },
    ] {
      #expect(result.outputs.count == 1)
      #expect(result.outputs[0].value == "table")
      #expect(result.outputs[0].status == ReplyStatus(.ok, ran: .yes, isFinal: true))
      #expect(result.outputs[0].key?.utf8.count == 16)
    }
  }

  @Test func `a handler that says nothing answers with an empty reply`() throws {
    for result in [
      try result { $0.on("in") { _, _ in } },
      try result { $0.on("in") { _, context in try context.emit("nowhere", "x") } },
      try result { $0.on("in") { event, _ -> Reply? in event.text == "x" ? Reply("x") : nil } },
    ] {
      #expect(result.outputs.map(\.status) == [ReplyStatus()])
      #expect(result.outputs.map(\.value) == [nil])
    }
  }

  @Test func `an emitted event takes caller, deadline and trace along, a detached one only the trace`() throws {
    let passed = try result { $0.on("in") { event, context in try context.emit("out", "x", key: event.key) } }
    #expect(passed.outputs.map(\.origin) == [caller(1)])
    #expect(passed.outputs.map(\.headers) == [["g.e", "g.h", "g.r", "traceparent"]])
    let detached = try result {
      $0.on("in") { event, context in try context.emit("out", "x", key: event.key, detached: true) }
    }
    #expect(detached.outputs.map(\.origin) == [nil, nil])
    #expect(detached.outputs[0].headers == ["g.e", "g.h", "traceparent"])
    #expect(detached.outputs[1].status == ReplyStatus())
  }

  @Test func `progressive replies come in order, and nothing after the final one`() throws {
    let result = try result {
      $0.on("in") { _, context in
        try context.reply("1", isFinal: false)
        try context.reply("2", isFinal: false)
        try context.reply("3")
        #expect(throws: EmitError.self) { try context.reply("4") }
      }
    }
    #expect(result.outputs.map(\.value) == ["1", "2", "3"])
    #expect(result.outputs.compactMap(\.status?.isFinal) == [false, false, true])
  }

  @Test func `replies of an event that fails stay, its events do not`() throws {
    let result = try result {
      $0.on("in") { _, context in
        try context.reply("1", isFinal: false)
        try context.emit("out", "x")
        throw Reject(code: 2, message: "no")
      }
    }
    #expect(result.outputs.map(\.value) == ["1", nil])
    #expect(result.outputs.compactMap(\.status?.isFinal) == [false, true])
    #expect(result.outputs.last?.status?.code == 2)
  }

  @Test func `the error takes the place of a final reply that was given before it`() throws {
    let result = try result {
      $0.on("in") { _, context in
        try context.reply("1", isFinal: false)
        try context.reply("2")
        throw Reject(code: 2, message: "no")
      }
    }
    #expect(result.outputs.map(\.value) == ["1", nil])
    #expect(result.outputs.compactMap(\.status?.isFinal) == [false, true])
    #expect(result.outputs.last?.status?.code == 2)
  }

  @Test func `headers of an emitted event are checked and sent`() throws {
    let result = try result {
      $0.on("in") { _, context in
        try context.emit("out", "x", key: "k", headers: [.init("colour", "red")])
        #expect(throws: EmitError.self) {
          try context.emit("out", "x", key: "k", headers: [.init("g.e", "red")])
        }
      }
    }
    #expect(result.outputs.map(\.headers) == [["g.e", "g.h", "g.r", "traceparent", "colour"]])
  }
}
