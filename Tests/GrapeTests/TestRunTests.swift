import Grape
import GrapeCore
import GrapeWire
import Testing

@Suite struct TestRunTests {
  @Test func `shows what a handler emits and answers`() async throws {
    let app = Application()
    app.on("received") { event, context in
      try context.emit("greeted", "Hello, \(event.text)", key: event.key)
      context.info("greeting", ["to": .string(event.text)])
    }
    app.on("asked") { event, _ async throws in Reply(event.text + "!") }
    let run = try TestRun(app)
    let greeted = try await run.send("received", "Ada", key: "k")
    #expect(greeted.outcome == .succeeded)
    #expect(greeted.emitted.map(\.name) == ["greeted"])
    #expect(greeted.emitted.map(\.text) == ["Hello, Ada"])
    #expect(greeted.emitted[0].key?.string == "k" && greeted.emitted[0].carriesOrigin)
    #expect(greeted.replies.isEmpty)
    #expect(greeted.log.first?["message"]?.string == "greeting")
    let asked = try await run.send("asked", "why")
    #expect(asked.reply?.text == "why!")
  }

  @Test func `keeps to the routes it is given`() async throws {
    let app = Application()
    app.on("in") { event, context in try context.emit(event.text, "x") }
    let run = try TestRun(app, routes: ["counted": ["stats@flight", "audit@seen"]])
    let counted = try await run.send("in", "counted", isAwaited: false)
    #expect(counted.emitted.map(\.topic) == ["stats.events", "audit.events"])
    #expect(counted.emitted.map(\.name) == ["flight", "seen"])
    guard case .failed(let message) = try await run.send("in", "lost").outcome else {
      Issue.record("an unknown name was emitted")
      return
    }
    #expect(message.contains("lost"))
  }

  @Test func `writes plain records to topics that are not Grape's, and answers the caller itself`() async throws {
    let app = Application()
    let shipped = app.signal("shipped")
    app.on("order") { event, context in
      if event.isTombstone {
        try context.emit(shipped, [UInt8]?.none, key: event.key)
      } else {
        try context.emit("shipped", event.value, key: event.key, headers: event.headers)
      }
    }
    let run = try TestRun(app, routes: ["shipped": ["topic:shipments", "stats@flight"]])
    let both = try await run.send("order", "tea", key: "k", headers: [.init("a", "1"), .init("traceparent", "00-1")])
    #expect(both.emitted.map(\.topic) == ["shipments", "stats.events"])
    #expect(both.emitted.map(\.name) == ["", "flight"] && both.emitted.map(\.carriesOrigin) == [false, true])
    #expect(both.emitted[0].headers == [.init("traceparent", "00-1"), .init("a", "1")])
    #expect(both.replies.isEmpty)
    let alone = try TestRun(app, routes: ["shipped": ["topic:shipments"]], partitions: 7)
    for _ in 0..<3 {
      let gone = try await alone.send("order", [UInt8]?.none, key: "k")
      #expect(gone.emitted.map(\.isTombstone) == [true] && gone.emitted[0].headers.isEmpty)
      let key = ByteSlice("k")
      #expect(gone.emitted[0].partition == Partitioner.partition(forKey: key.unsafeBytes, of: 7))
      // Nobody behind the topic can answer: the handler's end does.
      #expect(gone.replies.count == 1 && gone.reply?.status == .ok)
    }
    let empty = try await alone.send("order", "", key: "k")
    #expect(empty.emitted.map(\.isTombstone) == [false])
  }

  @Test func `tells verdicts`() async throws {
    let app = Application()
    app.onStart { context in if context.config["fails"] == true { throw Reject(message: "no start") } }
    app.on("in") { event, _ in
      if event.attempt == 1 { throw Retry(after: .seconds(5), message: "wait") }
      throw Reject(code: 9, message: "never")
    }
    let run = try TestRun(app)
    #expect(try await run.send("in", "", isAwaited: false).outcome == .retry(after: .seconds(5), message: "wait"))
    // Who waits for the event is told at once.
    let told = try await run.send("in", "")
    #expect(told.outcome == .failed(message: "wait") && told.reply?.message == "wait")
    let rejected = try await run.send("in", "", key: "k", attempt: 2)
    #expect(rejected.outcome == .rejected(code: 9, message: "never"))
    #expect(rejected.reply?.code == 9)
    #expect(try await run.send("in", "", key: "k", deadline: 1).outcome == .expired)
    let failing = try TestRun(app, config: ["fails": true])
    await #expect(throws: Reject.self) { try await failing.send("in", "") }
  }
}
