import Glibc
import GrapeCore
import GrapeState
import GrapeWire
import Synchronization
import Testing

@testable import Grape

/// WELCOME's `state`.
private func welcome(_ access: String, path: String = "", partitions: Int = 4) -> JSONValue.Member {
  .init(
    "state",
    ["topic": "test.state", "partitions": JSONValue(partitions), "access": .string(access), "path": .string(path)])
}

extension ResultFrame {
  /// Writes of state: `key=value`, `key-` for one removed.
  fileprivate var changes: [String] {
    outputs.filter { $0.topic == "test.state" }.map { output in
      let key = output.key.map { String($0.dropFirst()) } ?? ""
      return output.value.map { "\(key)=\($0.dropFirst())" } ?? "\(key)-"
    }
  }
}

/// A counter per key, and what it was told before, in the reply.
private func counting() -> Application {
  let app = Application()
  app.on("in") { event, context in
    let count = try context.state.get(event.key, as: Int.self) ?? 0
    try context.state.put(event.key, encoding: count + 1)
    return try context.state.string("word") ?? "nothing"
  }
  return app
}

private func state(_ key: String, _ value: String?) throws -> (key: ByteSlice, entry: ByteSlice?) {
  (try StateKey(Array(key.utf8)).bytes, try value.map { try StateEntry.encoded(Array($0.utf8)) })
}

@Suite struct StateWorkerTests {
  @Test func `writes go to the changelog's partition, and later deliveries see them before the base does`() throws {
    let folder = try TemporaryFolder()
    let node = try FakeNode(counting(), slots: ["in"], limits: [welcome("map", path: folder.path)])
    for (delivery, count) in [2, 4, 6].enumerated() {
      try node.deliver(
        [.init(name: "in", key: "k"), .init(name: "in", key: "k")], partition: 3, base: Int64(delivery) * 2)
      let result = try node.result()
      #expect(result.verdicts.isEmpty)
      #expect(result.changes == ["k=\(count)"])
      #expect(result.outputs.filter { $0.topic == "test.state" }.allSatisfy { $0.partition == 3 && $0.headers.isEmpty })
    }
    // Other partitions are apart.
    try node.deliver([.init(name: "in", key: "k")], partition: 0)
    #expect(try node.result().changes == ["k=1"])
  }

  @Test func `a map that appears, changes, grows and is replaced is read as it is`() throws {
    let folder = try TemporaryFolder()
    let node = try FakeNode(counting(), slots: ["in"], limits: [welcome("map", path: folder.path)])
    var offset: Int64 = 0
    func step() throws -> (count: String, word: String) {
      try node.deliver([.init(name: "in", key: "k", reply: caller(1))], base: offset)
      offset += 1
      let result = try node.result()
      #expect(result.verdicts.isEmpty)
      let answer = result.outputs.first { $0.topic == "_grape.replies.n1" }?.value ?? ""
      return (result.changes.joined(), String(answer.prefix(20)))
    }
    #expect(try step() == ("k=1", "nothing"))
    // The map appears, and has what was written.
    let keeper = StateKeeperRig(.map, path: "\(folder.path)/0")
    try keeper.change([try state("k", "1"), try state("word", "first")], processed: 1)
    #expect(try step() == ("k=2", "first"))
    // It has not caught up with the last result, but was changed: no matter for what the worker wrote itself.
    try keeper.change([try state("word", "second")], processed: 1)
    #expect(try step() == ("k=3", "second"))
    // It has all, and the key has expired since.
    try keeper.change([try state("k", nil)], processed: 3)
    #expect(try step() == ("k=1", "second"))
    // It grows beyond the map.
    try #require(keeper.environment).setMapSize(1 << 28)
    let great = try (0..<20).map { try state("great\($0)", String(repeating: "g", count: 4 << 20)) }
    try keeper.change(great + [try state("word", String(repeating: "w", count: 100))], processed: 3)
    #expect(try step() == ("k=2", "wwwwwwwwwwwwwwwwwwww"))
    // Another file takes its place.
    #expect(rename("\(folder.path)/0", "\(folder.path)/old") == 0)
    let other = StateKeeperRig(.map, path: "\(folder.path)/0")
    try other.change([try state("k", "70"), try state("word", "anew")], processed: 5)
    #expect(try step() == ("k=71", "anew"))
  }

  @Test func `what no map can be made of is asked for`() throws {
    let folder = try TemporaryFolder()
    mkdir("\(folder.path)/0", 0o700)
    let file = fopen("\(folder.path)/0/data.mdb", "w")
    fputs(String(repeating: "no map ", count: 4096), file)
    fclose(file)
    let node = try FakeNode(counting(), slots: ["in"], limits: [welcome("map", path: folder.path)])
    let base = MemoryBase()
    let (key, entry) = try state("k", "5")
    base.set(key, entry)
    try node.deliver([.init(name: "in", key: "k")])
    let result = try node.resultAnswering { _ in base }
    #expect(result.changes == ["k=6"])
    let log = try #require(node.logs.first)
    #expect(log["level"]?.string == "warning" && log["message"]?.string?.contains("map") == true)
  }

  @Test func `asks the node, and keeps what comes meanwhile for later`() throws {
    let app = Application()
    app.on("in") { event, context in
      let entries = try context.state.scan(prefix: "a", limit: 2).map { "\($0.keyText)\($0.text)" }
      let tagged = try context.state.find(tags: ["t"]).map(\.keyText)
      let other = try context.state.partition(2).string("b") ?? "none"
      try context.state.put("seen", "\(entries) \(tagged) \(other) \(event.text)")
    }
    let node = try FakeNode(app, slots: ["in"], limits: [welcome("ask")])
    let bases = (0..<4).map { _ in MemoryBase() }
    for key in ["a1", "a2", "a3", "b"] { bases[0].set(try state(key, "x").key, try state(key, "x").entry) }
    bases[0].set(try StateKey(Array("c".utf8)).bytes, try StateEntry.encoded([1], tags: ["t"]))
    bases[2].set(try state("b", "there").key, try state("b", "there").entry)
    try node.deliver([.init(name: "in", value: "one")], partition: 0)
    // Deliveries of other partitions come while the worker waits for an answer.
    let question = try node.read(.state)
    try node.deliver([.init(name: "in", value: "two")], partition: 1)
    try node.deliver([.init(name: "in", value: "three")], partition: 3)
    try node.send(.heartbeat, id: 0, [UInt8](repeating: 0, count: 16))
    try node.answer(question) { bases[Int($0)] }
    let results = try (0..<3).map { _ in try node.resultAnswering { bases[Int($0)] } }
    #expect(results.map(\.id).sorted() == results.map(\.id))
    #expect(results[0].changes == [#"seen=["a1x", "a2x"] ["c"] there one"#])
    #expect(results[1].changes == [#"seen=[] [] there two"#] && results[2].changes == [#"seen=[] [] there three"#])
    // The next delivery asks first what the base has.
    try node.deliver([.init(name: "in", value: "four")], partition: 0, base: 1)
    #expect(try node.resultAnswering { bases[Int($0)] }.changes == [#"seen=["a1x", "a2x"] ["c"] there four"#])
  }

  @Test func `an answer that is refused fails the event, a connection that ends the worker`() throws {
    let node = try FakeNode(counting(), slots: ["in"], limits: [welcome("ask")])
    try node.deliver([.init(name: "in", key: "k")])
    let question = try node.read(.state)
    try node.send(.error, id: question.header.id, (["message": "no such partition"] as JSONValue).utf8)
    let result = try node.result()
    #expect(result.verdicts.map(\.kind) == [4] && result.verdicts[0].message.contains("no such partition"))
    try node.deliver([.init(name: "in", key: "k")])
    _ = try node.read(.state)
    shutdown(node.descriptor, Int32(SHUT_RDWR))
    #expect(node.ending.wait()?.status == 69)
  }

  @Test func `without state from the node its use fails the event`() throws {
    let node = try FakeNode(counting(), slots: ["in"])
    try node.deliver([.init(name: "in", key: "k")])
    let result = try node.result()
    #expect(result.verdicts.map(\.kind) == [4] && result.verdicts[0].message.contains("state"))
  }

  @Test func `a delivery that writes more than a frame holds is done in parts`() throws {
    let folder = try TemporaryFolder()
    let app = Application()
    app.on("in") { event, context in
      try context.state.put(event.key, [UInt8](repeating: 0x61, count: Int(event.text) ?? 0))
    }
    let node = try FakeNode(
      app, slots: ["in"], limits: [welcome("map", path: folder.path), .init("maxFrame", 1_000_000)])
    // One key is written again and again: only the last counts.
    try node.deliver((0..<20).map { _ in .init(name: "in", key: "k", value: "300000") })
    var result = try node.result()
    #expect(result.processed == 20 && result.outputs.count == 1)
    var processed: [Int64] = []
    repeat {
      try node.deliver(
        (0..<8).map { .init(name: "in", key: "k\($0)", value: "300000") }, base: 20, first: processed.last)
      result = try node.result()
      #expect(result.verdicts.isEmpty)
      processed.append(result.processed)
    } while processed.last! < 28
    #expect(processed == [23, 26, 28])
    // What no frame holds fails the event, and leaves nothing.
    try node.deliver([.init(name: "in", key: "k", value: "990000")], base: 28)
    result = try node.result()
    #expect(result.verdicts.map(\.kind) == [4] && result.processed == 28 && result.outputs.isEmpty)
    // Behind another event it is left to a delivery of its own first.
    try node.deliver(
      [.init(name: "in", key: "k", value: "600000"), .init(name: "in", key: "l", value: "600000")], base: 28)
    result = try node.result()
    #expect(result.verdicts.isEmpty && result.processed == 29 && result.outputs.map(\.key) == ["\0k"])
  }

  @Test func `writes of state are packed in batches of a mebibyte`() throws {
    let folder = try TemporaryFolder()
    let app = Application()
    app.on("in") { _, context in
      for number in 0..<60 { try context.state.put("k\(number)", [UInt8](repeating: 0x61, count: 50_000)) }
    }
    for compression in ["none", "zstd:1"] {
      let node = try FakeNode(
        app, slots: ["in"],
        limits: [welcome("map", path: folder.path), .init("compression", .string(compression))])
      try node.deliver([.init(name: "in")])
      let result = try node.result()
      #expect(result.outputs.count == 60)
      #expect(result.batchSizes.count == 3 && result.batchSizes.allSatisfy { $0 <= 1_050_000 })
      #expect((result.batchSizes[0] < 100_000) == (compression != "none"))
    }
  }

  /// Handlers that suspend take turns; each partition counts for itself, however far its base is behind.
  @Test(arguments: 0..<4)
  func `partitions that take turns do not mix`(round: Int) throws {
    let seed = UInt64.random(in: .min ... .max)
    var random = SeededRandom(state: seed)
    let folder = try TemporaryFolder()
    let app = Application()
    let written = Mutex<[Set<String>]>(Array(repeating: ["none"], count: 4))
    app.on("in") { event, context async throws in
      let store = try context.store("counts")
      let old = try store.get(event.key, as: Int.self) ?? 0
      await Task.yield()
      // A neighbour's count is one of those that it had.
      let neighbour = (event.partition + 1) % 4
      let theirs = try store.partition(neighbour).string(event.key) ?? "none"
      #expect(written.withLock { $0[Int(neighbour)].contains("\(event.key!.string)\(theirs)") || theirs == "none" })
      for entry in try store.partition(neighbour).scan() {
        if event.offset % 3 == 0 { await Task.yield() }
        #expect(written.withLock { $0[Int(neighbour)].contains("\(entry.keyText)\(entry.text)") })
      }
      #expect(try store.get(event.key, as: Int.self) ?? 0 == old)
      try store.put(event.key, encoding: old + 1)
      await Task.yield()
      if event.text == "fail", event.attempt == 1 { throw Reject(code: 2) }
      written.withLock { _ = $0[Int(event.partition)].insert("\(event.key!.string)\(old + 1)") }
    }
    let node = try FakeNode(app, slots: ["in"], limits: [welcome("map", path: folder.path)])
    let keepers = (0..<4).map { StateKeeperRig(.map, path: "\(folder.path)/\($0)") }
    // LMDB wants a file opened once per process. Twice works if nothing is written while it is opened: the worker opens them all here.
    for keeper in keepers { try keeper.change([]) }
    for partition in 0..<4 {
      try node.deliver([.init(name: "in", key: "k0", value: "fail")], partition: Int32(partition))
      #expect(try node.result().verdicts.map(\.kind) == [1])
    }
    var offsets = [Int64](repeating: 1, count: 4)
    var counts: [[String: Int]] = Array(repeating: [:], count: 4)
    var open: [UInt64: (partition: Int, events: [FakeNode.Input])] = [:]
    for step in 0..<300 {
      let idle = (0..<4).filter { partition in !open.values.contains { $0.partition == partition } }
      if let partition = idle.randomElement(using: &random), step < 250, Int.random(in: 0..<3, using: &random) > 0 {
        let events = (0..<Int.random(in: 1...5, using: &random)).map { _ in
          FakeNode.Input(
            name: "in", key: "k\(Int.random(in: 0..<6, using: &random))",
            value: Int.random(in: 0..<5, using: &random) == 0 ? "fail" : "")
        }
        let id = try node.deliver(events, partition: Int32(partition), base: offsets[partition])
        open[id] = (partition, events)
      } else if !open.isEmpty {
        let result = try node.result()
        let removed = open.removeValue(forKey: result.id)
        let (partition, events) = try #require(removed)
        offsets[partition] = result.processed
        var changed: [String: Int] = [:]
        for event in events where event.value != "fail" {
          counts[partition][event.key!, default: 0] += 1
          changed[event.key!] = counts[partition][event.key!]
        }
        let told = result.outputs.filter { $0.topic == "test.state" }
        #expect(told.allSatisfy { $0.partition == partition })
        let expected = changed.map { "\u{6}counts\($0.key)=\0\($0.value)" }.sorted()
        #expect(told.map { "\($0.key!)=\($0.value!)" }.sorted() == expected, "seed \(seed)")
        let records: StateRecords = told.map { (ByteSlice($0.key!), ByteSlice($0.value!)) }
        if !records.isEmpty { keepers[partition].keep(records, processed: result.processed) }
      }
      let keeper = keepers.randomElement(using: &random)!
      try keeper.apply(Int.random(in: 0...keeper.pending.count, using: &random))
    }
    #expect(offsets.allSatisfy { $0 > 10 })
  }
}
