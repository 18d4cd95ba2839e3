import Grape
import Synchronization
import Testing

/// Runs `body` as the handler of one event; its error is the test's.
private func handle(
  _ run: TestRun? = nil, _ body: @escaping @Sendable (Context) throws -> Void
) async throws -> TestResult {
  let app = Application()
  app.on("in") { _, context in try body(context) }
  let result = try await TestRun(app).send("in", "", isAwaited: false)
  if case .failed(let message) = result.outcome { Issue.record("\(message)") }
  return result
}

/// The error that `body` throws inside of a handler.
private func refusal(_ body: @escaping @Sendable (Context) throws -> Void) async throws -> StateError? {
  let caught = Mutex<StateError?>(nil)
  _ = try await handle { context in
    do { try body(context) } catch let error as StateError { caught.withLock { $0 = error } }
  }
  return caught.withLock { $0 }
}

@Suite struct StoreTests {
  @Test func `a test prepares state, and sees what a handler made of it`() async throws {
    let app = Application()
    app.on("flight") { event, context in
      let count = try context.state.get(event.key, as: Int.self) ?? 0
      try context.state.put(event.key, encoding: count + 1, tags: ["carrier"])
      try context.store("seen").put(event.value, event.key)
      try context.state.remove("old")
    }
    let run = try TestRun(app)
    try run.state.put("LH", "41")
    try run.state.put("old", "x")
    let result = try await run.send("flight", "LH400", key: "LH")
    #expect(result.changes.map(\.keyText).sorted() == ["LH", "LH400", "old"])
    #expect(result.changes.first { $0.keyText == "old" }?.entry == nil)
    #expect(result.emitted.isEmpty)
    #expect(try run.state.string("LH") == "42")
    #expect(try run.state.entry("LH")?.tags == ["carrier"])
    #expect(try run.store("seen").string("LH400") == "LH")
    #expect(try run.state.entries().map(\.keyText) == ["LH"])
    _ = try await run.send("flight", "LH401", key: "LH")
    #expect(try run.state.string("LH") == "43")
    #expect(throws: StateError.self) { try run.store("Bad Name") }
  }

  @Test func `what a handler wrote before it failed is dropped`() async throws {
    let app = Application()
    app.on("in") { event, context in
      try context.state.put("a", "changed")
      try context.state.append("b", "++")
      try context.state.remove("c")
      switch event.text {
      case "reject": throw Reject(code: 1)
      case "retry": throw Retry()
      default: throw CancellationError()
      }
    }
    let run = try TestRun(app)
    for key in ["a", "b", "c"] { try run.state.put(key, key) }
    for kind in ["reject", "retry", "fail"] {
      for isAwaited in [false, true] {
        let result = try await run.send("in", kind, isAwaited: isAwaited)
        #expect(result.outcome != .succeeded && result.changes.isEmpty)
      }
    }
    #expect(try run.state.entries().map(\.text) == ["a", "b", "c"])
  }

  @Test func `stores are apart, and named ones come in any order`() async throws {
    let result = try await handle { context in
      let (one, two) = (try context.store("one"), try context.store("two"))
      try one.put("k", "1")
      try two.put("k", "2")
      try context.state.put("k", "0")
      #expect(try context.store("").string("k") == "0")
      #expect(try one.string("k") == "1" && context.store("two").string("k") == "2")
      #expect(try Array(one.scan()).map(\.text) == ["1"])
      #expect(try Array(context.state.scan()).map(\.text) == ["0"])
    }
    #expect(result.changes.count == 3)
  }

  @Test func `keys and values are text or bytes, and null is refused`() async throws {
    _ = try await handle { context in
      let state = context.state
      try state.put("text", [UInt8](arrayLiteral: 1, 2))
      try state.put([UInt8](arrayLiteral: 0, 255), "bytes")
      try state.put(ByteSlice("slice"), Substring("sub"))
      #expect(try state.get("text") == [1, 2])
      #expect(try state.string([UInt8](arrayLiteral: 0, 255)) == "bytes")
      #expect(try state.string("slice") == "sub")
      try state.put("empty", "")
      #expect(try state.get("empty") == [] && state.size("empty") == 0 && state.contains("empty"))
      #expect(try state.get("none") == nil && state.size("none") == nil && !state.contains("none"))
      #expect(try state.withValue("none") { $0 == nil })
    }
    #expect(try await refusal { try $0.state.put(String?.none, "x") }?.code == .invalidArgument)
    #expect(try await refusal { try $0.state.put("x", String?.none) }?.code == .invalidArgument)
    #expect(try await refusal { _ = try $0.state.get("") }?.code == .invalidArgument)
    #expect(try await refusal { _ = try $0.state.get([UInt8](repeating: 1, count: 481)) }?.code == .tooLarge)
    #expect(try await refusal { try $0.state.put([UInt8](repeating: 1, count: 480), "") } == nil)
    let value = [UInt8](repeating: 1, count: 64 * 1024 * 1024 + 1)
    #expect(try await refusal { try $0.state.put("x", value) }?.code == .tooLarge)
  }

  @Test func `names, times to live and tags that are not allowed are refused`() async throws {
    #expect(try await refusal { _ = try $0.store("Sessions") }?.code == .invalidArgument)
    #expect(try await refusal { _ = try $0.store(String(repeating: "a", count: 31)) }?.code == .invalidArgument)
    #expect(try await refusal { try $0.state.put("k", "v", ttl: .zero) }?.code == .invalidArgument)
    #expect(try await refusal { try $0.state.put("k", "v", ttl: .seconds(Int64.max / 2)) }?.code == .invalidArgument)
    #expect(try await refusal { try $0.state.put("k", "v", tags: [""]) }?.code == .invalidArgument)
    let many = (0..<17).map { "t\($0)" }
    #expect(try await refusal { try $0.state.put("k", "v", tags: many) }?.code == .tooLarge)
    #expect(try await refusal { _ = try $0.state.find(tags: []) }?.code == .invalidArgument)
    #expect(try await refusal { _ = try $0.state.scan(limit: -1) }?.code == .invalidArgument)
    #expect(try await refusal { _ = try $0.state.read("k", offset: -1) }?.code == .invalidArgument)
    #expect(try await refusal { _ = try $0.state.partition(1) }?.code == nil)
    #expect(try await refusal { _ = try $0.state.partition(1).get("k") }?.code == .invalidArgument)
  }

  @Test func `compareAndSet takes nil for no entry`() async throws {
    _ = try await handle { context in
      let state = context.state
      #expect(try state.compareAndSet("k", expected: nil, new: "1"))
      #expect(try !state.compareAndSet("k", expected: nil, new: "2"))
      #expect(try !state.compareAndSet("k", expected: "0", new: "2"))
      #expect(try state.compareAndSet("k", expected: "1", new: "2", ttl: .seconds(5), tags: ["t"]))
      #expect(try state.tags(of: "k") == ["t"])
      #expect(try state.compareAndSet("k", expected: "2", new: nil))
      #expect(try !state.contains("k"))
      let present = try state.get("k")
      #expect(try state.compareAndSet("k", expected: present, new: [UInt8]("3".utf8)))
    }
  }

  @Test func `append keeps time to live and tags, put takes them anew`() async throws {
    let result = try await handle { context in
      try context.state.put("k", "a", ttl: .seconds(100), tags: ["z", "b", "z"])
      #expect(try context.state.append("k", "bc") == 3)
      #expect(try context.state.append("new", "1") == 1)
      let expiry = try context.state.expiry(of: "k")
      #expect(try context.state.tags(of: "k") == ["b", "z"] && expiry != nil)
      #expect(try context.state.read("k", offset: 1, size: 1) == [0x62])
      #expect(try context.state.read("k", offset: 9) == [])
    }
    let entry = try #require(result.changes.first { $0.keyText == "k" }?.entry)
    #expect(entry.text == "abc" && entry.tags == ["b", "z"] && entry.expiry != nil)
    let anew = try await handle { context in
      try context.state.put("k", "a", ttl: .seconds(100), tags: ["z"])
      try context.state.put("k", "b")
    }
    #expect(anew.changes.map(\.entry) == [StoreEntry(key: Array("k".utf8), value: Array("b".utf8))])
  }

  @Test func `scans are ordered bytewise, in both directions, within bounds`() async throws {
    _ = try await handle { context in
      let state = context.state
      try state.putMany([("a", "1"), ("ab", "2"), ("b", "3"), ("ba", "4"), ("\u{00ff}", "5")])
      func keys(_ scan: StoreScan) -> [String] { scan.map(\.keyText) }
      #expect(keys(try state.scan()) == ["a", "ab", "b", "ba", "\u{00ff}"])
      #expect(keys(try state.scan(prefix: "b")) == ["b", "ba"])
      #expect(keys(try state.scan(from: "ab", to: "ba")) == ["ab", "b"])
      #expect(keys(try state.scan(from: "ab", descending: true)) == ["\u{00ff}", "ba", "b", "ab"])
      #expect(keys(try state.scan(to: "b", descending: true, limit: 1)) == ["ab"])
      #expect(keys(try state.scan(from: "b", to: "a")) == [])
      try state.removeMany(["a", "ba"])
      #expect(keys(try state.scan()) == ["ab", "b", "\u{00ff}"])
      #expect(try state.getMany(["a", "b"]) == [nil, Array("3".utf8)])
      var count = 0
      try state.forEach { _, _ in
        count += 1
        return count == 2 ? .stop : .goOn
      }
      #expect(count == 2)
    }
  }

  @Test func `state is there for events alone`() async throws {
    nonisolated(unsafe) var kept: [StoreScan] = []
    let errors = Mutex<[StateError]>([])
    let app = Application()
    app.onStart { context in
      do { _ = try context.state.get("k") } catch let error as StateError { errors.withLock { $0.append(error) } }
    }
    app.on("keep") { _, context in
      try context.state.put("k", "v")
      kept.append(try context.state.scan())
    }
    app.on("use") { _, _ in
      let next = kept[0].next()
      #expect(next == nil)
    }
    let run = try TestRun(app)
    #expect(try await run.send("keep", "").outcome == .succeeded)
    // A sequence that is continued in another event makes that one fail: nothing is passed over.
    guard case .failed(let message) = try await run.send("use", "").outcome else {
      Issue.record("an old scan went on")
      return
    }
    #expect(message.contains("scan"))
    #expect(errors.withLock { $0.map(\.code) } == [.unavailable])
  }

  @Test func `another partition can be read, not written`() async throws {
    let app = Application()
    app.on("in") { event, context in
      let home = try context.state.of("elsewhere")
      #expect(try context.state.partition(2).string("k") == "in 2")
      #expect(try Array(context.state.partition(2).scan(prefix: "k")).map(\.text) == ["in 2"])
      #expect(try context.state.partition(2).find(tags: ["t"]).map(\.keyText) == ["k"])
      #expect(try context.store("s").partition(2).get("k") == nil)
      // Its own is the store itself.
      try context.state.put("mine", "now")
      #expect(try context.state.partition(event.partition).string("mine") == "now")
      _ = try home.get("k")
    }
    let run = try TestRun(app, partitions: 4)
    try run.state.put("k", "in 2", tags: ["t"], partition: 2)
    let result = try await run.send("in", "", key: "k", isAwaited: false, partition: 1)
    #expect(result.outcome == .succeeded)
    #expect(try run.state.string("mine", partition: 1) == "now")
    #expect(try run.state.string("mine") == nil)
  }

  @Test func `typed stores hold what Codable can say`() async throws {
    struct Account: Codable, Equatable {
      var owner: String
      var balance: Int
    }
    _ = try await handle { context in
      let accounts = try context.store("accounts", of: Account.self)
      try accounts.put("a", Account(owner: "Ada", balance: 5))
      try accounts.update("a", default: Account(owner: "", balance: 0)) { $0.balance += 1 }
      #expect(try accounts.get("a") == Account(owner: "Ada", balance: 6))
      #expect(try context.store("accounts").string("a") == #"{"owner":"Ada","balance":6}"#)
      let counts = try context.store("counts", of: Int.self)
      for key in ["x", "y", "x"] { try counts.update(key, default: 0) { $0 += 1 } }
      var seen: [String] = []
      try counts.forEach { key, value in
        seen.append("\(String(decoding: key, as: UTF8.self))=\(value)")
        return .goOn
      }
      #expect(seen == ["x=2", "y=1"])
      try counts.remove("x")
      #expect(try !counts.contains("x"))
    }
    #expect(
      try await refusal { context in
        try context.state.put("k", "text")
        _ = try context.state.get("k", as: Int.self)
      }?.code == .typeMismatch)
  }
}
