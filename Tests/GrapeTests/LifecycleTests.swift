import CGrapeLinux
import Glibc
import GrapeCore
import GrapeWire
import Synchronization
import Testing

@testable import Grape

/// Something that handlers wait for until the test opens it.
final class Gate: Sendable {
  private struct State {
    var isOpen = false
    var waiting: [CheckedContinuation<Void, Never>] = []
  }
  private let state = Mutex(State())

  func open() {
    let waiting = state.withLock { state in
      state.isOpen = true
      return state.waiting
    }
    for continuation in waiting { continuation.resume() }
  }

  func pass() async {
    await withCheckedContinuation { continuation in
      let isOpen = state.withLock { state in
        if !state.isOpen { state.waiting.append(continuation) }
        return state.isOpen
      }
      if isOpen { continuation.resume() }
    }
  }
}

@Suite struct LifecycleTests {
  @Test func `deliveries of other partitions overtake a suspended handler, those of its own wait`() throws {
    let gate = Gate()
    let app = Application()
    app.on("slow") { event, context in
      await gate.pass()
      try context.emit("out", event.text)
    }
    app.on("fast") { event, context in try context.emit("out", event.text) }
    let node = try FakeNode(app, slots: ["slow", "fast"], routes: testRoutes)
    let slow = try node.deliver([.init(name: "slow", value: "a"), .init(name: "fast", value: "b")], partition: 0)
    let behind = try node.deliver([.init(name: "fast", value: "c")], partition: 0, base: 2)
    let other = try node.deliver([.init(name: "fast", value: "d")], partition: 1)
    #expect(try node.result().id == other)
    gate.open()
    let first = try node.result()
    #expect(first.id == slow && first.outputs.map(\.value) == ["a", "b"])
    #expect(first.tallies.map(\.succeeded) == [1, 1])
    #expect(try node.result().id == behind)
  }

  @Test func `async handlers stay on the worker's thread, suspended or not`() throws {
    let threads = Mutex<Set<UInt>>([])
    let app = Application()
    app.on("in") { _, _ in
      threads.withLock { _ = $0.insert(UInt(pthread_self())) }
      await Task.yield()
      threads.withLock { _ = $0.insert(UInt(pthread_self())) }
    }
    app.on("sync") { _, _ in threads.withLock { _ = $0.insert(UInt(pthread_self())) } }
    let node = try FakeNode(app, slots: ["in", "sync"])
    try node.deliver([.init(name: "in"), .init(name: "sync"), .init(name: "in")])
    #expect(try node.result().processed == 3)
    #expect(threads.withLock { $0.count } == 1)
  }

  @Test func `heartbeats come while a handler blocks, and tell its progress`() throws {
    let release = grape_eventfd()
    defer { close(release) }
    let app = Application()
    app.on("in") { event, _ in
      guard event.text == "block" else { return }
      var entry = pollfd(fd: release, events: Int16(POLLIN), revents: 0)
      poll(&entry, 1, 10_000)
    }
    let node = try FakeNode(app, slots: ["in"], limits: [.init("heartbeatMs", 20)])
    let id = try node.deliver([.init(name: "in"), .init(name: "in"), .init(name: "in", value: "block")])
    var beats = 0
    while beats < 3 {
      let beat = try node.read(.heartbeat)
      try node.send(.heartbeat, id: 0, beat.body.array)
      var reader = ByteReader(beat.body.unsafeBytes)
      let (delivery, done) = (try reader.u64(), try reader.u32())
      #expect(beat.body.count == 16)
      if delivery == id, done == 2 { beats += 1 }
    }
    LoopExecutor.wake(release)
    #expect(try node.result().processed == 3)
  }

  @Test func `DRAIN is answered after the deliveries at hand, and the worker ends with 0`() throws {
    let gate = Gate()
    let stopped = Mutex(false)
    let app = Application()
    app.on("in") { _, _ in await gate.pass() }
    app.onStop { _ in stopped.withLock { $0 = true } }
    let node = try FakeNode(app, slots: ["in"])
    let id = try node.deliver([.init(name: "in")])
    try node.send(.drain, id: 0, [])
    gate.open()
    #expect(try node.result().id == id)
    #expect(try node.read(.goodbye).json["reason"]?.string == "drained")
    #expect(node.ending.wait() == .drained)
    #expect(stopped.withLock { $0 })
  }

  @Test func `a request to end from outside drains as well`() throws {
    let node = try FakeNode(shouting(), slots: ["in"], routes: testRoutes)
    try node.deliver([.init(name: "in", value: "a")])
    _ = try node.result()
    node.worker.requestDrain()
    _ = try node.read(.goodbye)
    #expect(node.ending.wait() == .drained)
  }

  @Test func `onStart runs before the first event, and its failure ends the worker`() throws {
    let order = Mutex<[String]>([])
    let app = Application()
    app.onStart { context in
      await Task.yield()
      order.withLock { $0.append("start \(context.app)") }
      #expect(throws: EmitError.self) { try context.emit("out", "x") }
    }
    app.on("in") { _, _ in order.withLock { $0.append("event") } }
    let node = try FakeNode(app, slots: ["in"], routes: testRoutes)
    try node.deliver([.init(name: "in")])
    _ = try node.result()
    #expect(order.withLock { $0 } == ["start test", "event"])

    let failing = Application()
    failing.onStart { _ in throw Reject(message: "no database") }
    let other = try FakeNode(failing, slots: [])
    let end = other.ending.wait()
    #expect(end?.status == 1 && end?.message?.contains("no database") == true)
  }

  @Test func `log messages arrive before the result`() throws {
    let app = Application()
    app.on("in") { event, context in context.warning("odd event", ["text": .string(event.text)]) }
    let node = try FakeNode(app, slots: ["in"])
    try node.deliver([.init(name: "in", value: "v")])
    let log = try node.read(.log).json
    #expect(log == ["level": "warning", "message": "odd event", "fields": ["text": "v"]])
    _ = try node.result()
  }

  @Test func `the end of the connection ends the worker, even one that is busy`() throws {
    let release = grape_eventfd()
    defer { close(release) }
    let begun = grape_eventfd()
    defer { close(begun) }
    let app = Application()
    app.on("in") { _, _ in
      LoopExecutor.wake(begun)
      var entry = pollfd(fd: release, events: Int16(POLLIN), revents: 0)
      poll(&entry, 1, 10_000)
    }
    let node = try FakeNode(app, slots: ["in"], limits: [.init("heartbeatMs", 20)])
    try node.deliver([.init(name: "in")])
    var entry = pollfd(fd: begun, events: Int16(POLLIN), revents: 0)
    #expect(poll(&entry, 1, 10_000) == 1)
    shutdown(node.descriptor, Int32(SHUT_RDWR))
    let end = node.ending.wait()
    #expect(end?.status == 69 && end?.isForced == true)
    LoopExecutor.wake(release)
  }

  @Test func `a node silent for three heartbeats ends the worker`() throws {
    let node = try FakeNode(Application(), slots: [], limits: [.init("heartbeatMs", 20)])
    let end = node.ending.wait()
    #expect(end?.status == 69 && end?.message?.contains("three heartbeats") == true)
  }

  @Test func `the node's refusal is told`() throws {
    let node = try FakeNode(Application(), slots: [], welcomes: false)
    try node.send(.error, id: 0, (["status": 10, "name": "bad-token", "message": "used before"] as JSONValue).utf8)
    let end = node.ending.wait()
    #expect(end?.status == 69 && end?.message?.contains("bad-token: used before") == true)
  }

  @Test(
    arguments: [
      [0, 0, 0, 5, 0x30, 0, 0, 0],  // shorter than a header
      [0, 0, 0, 12, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],  // no such type
      [0, 0, 0, 12, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],  // EXEC is not for workers
      [0, 0, 0, 13, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9],  // DELIVER cut off
      [0xff, 0xff, 0xff, 0xff, 0x30, 0, 0, 0],  // beyond maxFrame
    ] as [[UInt8]])
  func `a malformed frame ends the worker with 70`(frame: [UInt8]) throws {
    let node = try FakeNode(shouting(), slots: ["in"], routes: testRoutes)
    try node.sendRaw(frame)
    #expect(node.ending.wait()?.status == 70)
  }

  @Test func `more deliveries than credits are a breach of the protocol`() throws {
    let gate = Gate()
    let app = Application()
    app.on("in") { _, _ in await gate.pass() }
    let node = try FakeNode(app, slots: ["in"], limits: [.init("credits", 2)])
    for base in 0..<3 { try node.deliver([.init(name: "in")], base: Int64(base)) }
    #expect(node.ending.wait()?.status == 70)
    gate.open()
  }
}
