import GrapeCore
import GrapeWire
import Synchronization
import Testing

@testable import Grape

@Suite struct RandomDeliveryTests {
  /// Redelivers what a result leaves until all is processed, and compares with a model of a few lines.
  @Test(arguments: 0..<8)
  func `any delivery gives what a simple model gives`(round: Int) throws {
    let seed = UInt64.random(in: .min ... .max)
    var random = SeededRandom(state: seed)
    let failedBefore = Mutex<Set<String>>([])
    let app = Application()
    let handle = app.signal("many")
    @Sendable func handleEvent(_ event: Event, _ context: Context) throws {
      try context.emit(handle, event.value, key: event.key)
      if event.text.hasPrefix("reject") { throw Reject(code: 3) }
      if event.text.hasPrefix("fail"), failedBefore.withLock({ $0.insert(event.text).inserted }) { throw Retry() }
    }
    app.on("sync") { event, context in try handleEvent(event, context) }
    app.on("async") { event, context in
      if event.offset % 3 == 0 { await Task.yield() }
      try handleEvent(event, context)
    }
    let node = try FakeNode(app, slots: ["sync", "async"], routes: testRoutes)
    for delivery in 0..<20 {
      let events = (0..<Int.random(in: 1...60, using: &random)).map { index -> FakeNode.Input in
        let kind = ["ok", "ok", "ok", "reject", "fail"].randomElement(using: &random)!
        let value =
          "\(kind)-\(delivery)-\(index)" + String(repeating: "x", count: Int.random(in: 0...300, using: &random))
        return FakeNode.Input(
          name: Bool.random(using: &random) ? "sync" : "async",
          key: Bool.random(using: &random) ? "k\(Int.random(in: 0...9, using: &random))" : nil, value: value,
          hops: Bool.random(using: &random) ? UInt8.random(in: 1...5, using: &random) : nil)
      }
      let base = Int64.random(in: 0...1_000_000, using: &random)
      let end = base + Int64.random(in: 0...Int64(events.count), using: &random)
      let skips = (base..<max(base, end)).filter { _ in Int.random(in: 0..<8, using: &random) == 0 }
      // Sometimes compaction has been there.
      let rate = Int.random(in: 0...4, using: &random)
      let gone = Set(
        events.indices.filter { _ in Int.random(in: 0..<6, using: &random) < rate }.map { base + Int64($0) })
      var first = base
      var values: [String] = []
      var rejected: [Int64] = []
      repeat {
        try node.deliver(
          events, base: base, first: first, end: end, skips: skips, compressed: Bool.random(using: &random), gone: gone)
        let result = try node.result()
        values += result.outputs.filter { $0.topic == "b.events" }.compactMap(\.value)
        #expect(
          result.outputs.count(where: { $0.topic == "a.events" })
            == result.outputs.count(where: { $0.topic == "b.events" }))
        rejected += result.verdicts.filter { $0.kind == 1 }.map(\.offset)
        if result.processed < end {
          #expect(result.verdicts.last?.kind == 2 && result.verdicts.last?.offset == result.processed, "seed \(seed)")
        }
        first = result.processed
      } while first < end
      let run = events.enumerated().filter {
        let offset = base + Int64($0.offset)
        return offset < end && !skips.contains(offset) && !gone.contains(offset)
      }
      #expect(values == run.map(\.element.value).filter { !$0.hasPrefix("reject") }, "seed \(seed)")
      #expect(
        rejected == run.filter { $0.element.value.hasPrefix("reject") }.map { base + Int64($0.offset) }, "seed \(seed)")
    }
  }
}
