import CGrapeLinux
import Glibc
import GrapeCore
import GrapeWire
import Synchronization
import Testing

@testable import Grape

/// The node's side of a worker's connection, for tests: speaks bytes, checks nothing but frames.
final class FakeNode {
  /// How a worker's thread ended.
  final class Ending: Sendable {
    private let state = Mutex<WorkerEnd?>(nil)
    let descriptor = grape_eventfd()

    deinit { close(descriptor) }

    func set(_ end: WorkerEnd) {
      state.withLock { $0 = end }
      LoopExecutor.wake(descriptor)
    }

    /// Waits up to ten seconds for the worker's end.
    func wait() -> WorkerEnd? {
      var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
      guard poll(&entry, 1, 10_000) == 1 else { return nil }
      return state.withLock { $0 }
    }
  }

  struct Failure: Error, CustomStringConvertible {
    var description: String
  }

  let descriptor: Int32
  let worker: Worker
  let ending = Ending()
  private(set) var hello = JSONValue.null
  /// What the worker said while answers were given.
  private(set) var logs: [JSONValue] = []
  private var buffer: [UInt8] = []
  private var nextID: UInt64 = 100

  /// Starts a worker for `app` and greets it.
  init(
    _ app: Application, slots: [String], routes: JSONValue = .object([]), config: JSONValue = .object([]),
    limits: [JSONValue.Member] = [], welcomes: Bool = true
  ) throws {
    var pair: [Int32] = [0, 0]
    guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &pair) == 0 else {
      throw Failure(description: "socketpair")
    }
    descriptor = pair[0]
    var timeout = timeval(tv_sec: 10, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
    setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
    let executor = try #require(LoopExecutor())
    let ending = ending
    let worker = Worker(
      application: app, environment: WorkerEnvironment(socket: "", token: "secret"), descriptor: pair[1],
      executor: executor, end: { ending.set($0) })
    self.worker = worker
    guard let thread = SystemThread({ worker.run() }) else { throw Failure(description: "no thread") }
    thread.detach()
    let first = try read()
    guard first.header.type == .hello else { throw Failure(description: "\(first.header.type) instead of HELLO") }
    hello = try JSONValue(parsing: first.body.unsafeBytes)
    guard welcomes else { return }
    var members: [JSONValue.Member] = [
      .init("protocol", 1), .init("node", "n1"), .init("app", "test"), .init("version", "v1"),
      .init("worker", "test-1"), .init("heartbeatMs", 2000), .init("maxFrame", 67_174_400),
      .init("maxEvent", 8_388_608), .init("maxHops", 64), .init("credits", 4),
      .init("slots", JSONValue(strings: slots)), .init("config", config), .init("routes", routes),
    ]
    for limit in limits {
      if let index = members.firstIndex(where: { $0.name == limit.name }) {
        members[index] = limit
      } else {
        members.append(limit)
      }
    }
    try send(.welcome, id: 0, JSONValue.object(members).utf8)
  }

  deinit { close(descriptor) }

  // MARK: Frames

  struct Frame {
    var header: FrameHeader
    var body: ByteSlice
    var json: JSONValue { (try? JSONValue(parsing: body.unsafeBytes)) ?? .null }
  }

  func sendRaw(_ bytes: [UInt8]) throws {
    var position = 0
    while position < bytes.count {
      let count = bytes[position...].withUnsafeBytes {
        Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
      }
      guard count > 0 else { throw Failure(description: "send: errno \(errno)") }
      position += count
    }
  }

  func send(_ type: FrameType, id: UInt64, _ body: [UInt8]) throws {
    var writer = ByteWriter()
    let start = writer.beginFrame(type, id: id)
    writer.bytes(body)
    writer.endFrame(start)
    try sendRaw(writer.finish().array)
  }

  /// The next frame of any type.
  func read() throws -> Frame {
    while true {
      let frame = try buffer.withUnsafeBytes { bytes -> (Frame, Int)? in
        guard let header = try FrameHeader(bytes, limit: FrameHeader.defaultLimit),
          bytes.count >= FrameHeader.size + header.bodySize
        else { return nil }
        let size = FrameHeader.size + header.bodySize
        return (Frame(header: header, body: ByteSlice(copying: .init(rebasing: bytes[FrameHeader.size..<size]))), size)
      }
      if let (frame, size) = frame {
        buffer.removeFirst(size)
        return frame
      }
      var chunk = [UInt8](repeating: 0, count: 262_144)
      let count = recv(descriptor, &chunk, chunk.count, 0)
      guard count > 0 else { throw Failure(description: count == 0 ? "the worker closed" : "recv: errno \(errno)") }
      buffer += chunk[..<count]
    }
  }

  /// The next frame of a type; answers heartbeats, ignores others.
  func read(_ type: FrameType) throws -> Frame {
    while true {
      let frame = try read()
      if frame.header.type == .heartbeat, type != .heartbeat { try send(.heartbeat, id: 0, frame.body.array) }
      if frame.header.type == type { return frame }
    }
  }

  // MARK: Deliveries

  /// An event of a delivery.
  struct Input {
    var name: String
    var key: String?
    var value: String = ""
    var deadline: Int64?
    var hops: UInt8?
    var reply: ReplyAddress?
    var headers: [(String, String)] = []
  }

  static func batch(_ events: [Input], base: Int64 = 0, timestamp: Int64 = 1_000, compressed: Bool = false) throws
    -> [UInt8]
  {
    var builder = RecordBatchBuilder()
    for event in events {
      var section = HeaderSection()
      section.append(HeaderName.event, Array(event.name.utf8))
      if let hops = event.hops { section.append(HeaderName.hops, [hops]) }
      if let deadline = event.deadline { section.append(deadline: deadline) }
      if let reply = event.reply { section.append(HeaderName.replyAddress, reply.encoded) }
      for (name, value) in event.headers { section.append(name, Array(value.utf8)) }
      let headers = section.finish()
      let key = event.key.map { ByteSlice($0) }
      let value = ByteSlice(event.value)
      builder.append(
        key: key?.unsafeBytes, value: value.unsafeBytes, headerSection: headers.unsafeBytes, timestamp: timestamp)
    }
    let bytes = try builder.take(compressor: compressed ? ZstdCompressor() : nil).bytes
    var array = bytes.array
    array.withUnsafeMutableBytes { RecordBatch.setBaseOffset(base, in: $0) }
    return array
  }

  /// Sends a delivery of one batch; its id.
  @discardableResult
  func deliver(
    _ events: [Input], partition: Int32 = 0, attempt: UInt32 = 1, base: Int64 = 0, first: Int64? = nil,
    end: Int64? = nil, skips: [Int64] = [], compressed: Bool = false, gone: Set<Int64> = []
  ) throws -> UInt64 {
    nextID += 1
    var batch = ByteSlice(try FakeNode.batch(events, base: base, compressed: compressed))
    switch try RecordBatch.filtering(
      batch, checkingCRC: true, limit: 1 << 24, keeping: { !gone.contains($0.offset) })
    {
    case .unchanged: break
    case .empty: batch = ByteSlice([])
    case .batch(let filtered): batch = filtered
    }
    var writer = ByteWriter()
    writer.i32(partition)
    writer.u32(attempt)
    writer.i64(first ?? base)
    writer.i64(end ?? base + Int64(events.count))
    writer.u32(UInt32(skips.count))
    for skip in skips { writer.i64(skip) }
    writer.bytes(batch.unsafeBytes)
    try send(.deliver, id: nextID, writer.finish().array)
    return nextID
  }

  func result() throws -> ResultFrame { try ResultFrame(try read(.result)) }

  /// The next RESULT; answers questions about state until it comes.
  func resultAnswering(_ base: (Int32) -> MemoryBase) throws -> ResultFrame {
    while true {
      let frame = try read()
      switch frame.header.type {
      case .result: return try ResultFrame(frame)
      case .state: try answer(frame, base)
      case .log: logs.append(frame.json)
      case .heartbeat: try send(.heartbeat, id: 0, frame.body.array)
      case let type: throw Failure(description: "\(type) where RESULT is expected")
      }
    }
  }

  /// Answers a question about state.
  func answer(_ question: Frame, _ base: (Int32) -> MemoryBase) throws {
    #expect(question.header.type == .state && question.header.id > 0)
    try send(.stated, id: question.header.id, try TestAuthority.answer(question.body, base).array)
  }
}

/// A RESULT frame, taken apart.
struct ResultFrame {
  struct Verdict: Equatable {
    var offset: Int64
    var kind: UInt8
    var code: Int32 = 0
    var delay: UInt32 = 0
    var message: String
  }

  struct Tally: Equatable {
    var slot: UInt16
    var succeeded: UInt32
    var failed: UInt32
    var nanoseconds: UInt64 = 0
  }

  struct Output: Equatable {
    var topic: String
    var partition: Int32
    var name = ""
    var key: String?
    var value: String?
    var deadline: Int64?
    var hops: UInt8 = 0
    var origin: ReplyAddress?
    var status: ReplyStatus?
    var headers: [String] = []
  }

  var id: UInt64
  var processed: Int64
  var verdicts: [Verdict] = []
  var tallies: [Tally] = []
  var outputs: [Output] = []
  /// Sizes of the batches.
  var batchSizes: [Int] = []

  init(_ frame: FakeNode.Frame) throws {
    id = frame.header.id
    var reader = ByteReader(frame.body.unsafeBytes)
    processed = try reader.i64()
    for _ in 0..<(try reader.u32()) {
      let offset = try reader.i64()
      let kind = try reader.u8()
      _ = try reader.u8()
      _ = try reader.u16()
      verdicts.append(
        Verdict(
          offset: offset, kind: kind, code: try reader.i32(), delay: try reader.u32(), message: try reader.string16()))
    }
    for _ in 0..<(try reader.u16()) {
      tallies.append(
        Tally(
          slot: try reader.u16(), succeeded: try reader.u32(), failed: try reader.u32(),
          nanoseconds: try reader.u64()))
    }
    for _ in 0..<(try reader.u32()) {
      let topic = try reader.string16()
      let partition = try reader.i32()
      let bytes = ByteSlice(copying: try reader.bytes(Int(try reader.u32())))
      batchSizes.append(bytes.count)
      var outputs: [Output] = []
      _ = try RecordBatch.validate(bytes, checkingCRC: true, limit: 1 << 27) { (record) throws(WireError) in
        var output = Output(topic: topic, partition: partition)
        let headers = try EventHeaders(record)
        output.name = headers.event.map { String(decoding: $0, as: UTF8.self) } ?? ""
        output.key = record.key.map { String(decoding: $0, as: UTF8.self) }
        output.value = record.value.map { String(decoding: $0, as: UTF8.self) }
        output.deadline = headers.deadline
        output.hops = headers.hops
        output.origin = try headers.replyAddress.map { (bytes) throws(WireError) in try ReplyAddress(bytes) }
        var all = record.headers
        while let (name, value) = try all.next() {
          let name = String(decoding: name, as: UTF8.self)
          if name == "g.s" { output.status = try ReplyStatus(value!) }
          output.headers.append(name)
        }
        outputs.append(output)
      }
      self.outputs += outputs
    }
    #expect(reader.remaining == 0)
  }
}
