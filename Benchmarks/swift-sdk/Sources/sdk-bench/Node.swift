import CGrapeLinux
import Glibc
import GrapeCore
import GrapeWire

/// What a run gave.
struct Figures: CustomStringConvertible {
  var handler: String
  var events: Int
  var seconds: Double
  /// Time on the processor that the worker used, of both kinds.
  var workerSeconds: Double
  var outputBytes: Int

  var description: String {
    let name = handler + String(repeating: " ", count: max(1, 18 - handler.utf8.count))
    return "\(name)\(perSecond(seconds)) M events/s, \(perSecond(workerSeconds)) M per second of one core's time, "
      + "\(Int(workerSeconds * 1e9 / Double(events))) ns each"
  }

  private func perSecond(_ time: Double) -> String {
    let hundredths = Int(Double(events) / time / 1e4)
    let rest = hundredths % 100
    return "\(hundredths / 100).\(rest < 10 ? "0" : "")\(rest)"
  }
}

struct Failure: Error {
  var message: String
  init(_ message: String) { self.message = "\(message): \(String(cString: strerror(errno)))" }
}

/// Events of a delivery, 256 KiB of them: 100 bytes of text, keys of 8 bytes, of which there are a thousand.
private func makeDelivery() throws -> (frame: [UInt8], events: Int) {
  var section = HeaderSection()
  section.append(HeaderName.event, Array("in".utf8))
  let headers = section.finish()
  let value = ByteSlice((0..<100).map { UInt8(0x61 + $0 % 26) })
  var builder = RecordBatchBuilder()
  var events = 0
  while builder.byteCount < 256 * 1024 {
    let number = String(events * 7919 % 1000)
    let key = ByteSlice("key-" + String(repeating: "0", count: 4 - number.utf8.count) + number)
    builder.append(
      key: key.unsafeBytes, value: value.unsafeBytes, headerSection: headers.unsafeBytes, timestamp: 1_700_000_000_000)
    events += 1
  }
  let batch = try builder.take().bytes
  var writer = ByteWriter()
  let start = writer.beginFrame(.deliver, id: 0)
  writer.i32(0)
  writer.u32(1)
  writer.i64(0)
  writer.i64(Int64(events))
  writer.u32(0)
  writer.bytes(batch.unsafeBytes)
  writer.endFrame(start)
  return (writer.finish().array, events)
}

/// Runs a worker for `seconds` under a node that keeps four deliveries at it.
func measure(_ handler: String, seconds: Double) throws -> Figures {
  let path = "/tmp/grape-sdk-bench-\(getpid()).sock"
  unlink(path)
  let listener = grape_unix_listen(path, 1, 0o600)
  guard listener >= 0 else { throw Failure("listen") }
  defer {
    close(listener)
    unlink(path)
  }
  setenv("GRAPE_SOCKET", path, 1)
  setenv("GRAPE_TOKEN", "t", 1)
  var child = pid_t()
  let program = CommandLine.arguments[0]
  var arguments: [UnsafeMutablePointer<CChar>?] = [strdup(program), strdup(handler), nil]
  let error = posix_spawn(&child, program, nil, nil, &arguments, environ)
  for argument in arguments { free(argument) }
  unsetenv("GRAPE_SOCKET")
  guard error == 0 else { throw Failure("spawn \(error)") }
  var entry = pollfd(fd: listener, events: Int16(POLLIN), revents: 0)
  guard poll(&entry, 1, 10_000) == 1 else { throw Failure("the worker did not connect") }
  let socket = grape_accept(listener)
  guard socket >= 0, grape_set_nonblocking(socket, false) == 0 else { throw Failure("accept") }
  defer { close(socket) }
  var node = Feeder(socket: socket)
  try node.welcome()
  let (frame, events) = try makeDelivery()
  try node.feed(frame, seconds: 0.3)
  let before = try processorSeconds(child)
  let begin = grape_monotonic_ns()
  let (deliveries, bytes) = try node.feed(frame, seconds: seconds)
  let wall = Double(grape_monotonic_ns() - begin) / 1e9
  let used = try processorSeconds(child) - before
  try node.drain()
  var status: Int32 = 0
  waitpid(child, &status, 0)
  guard status == 0 else { throw Failure("the worker ended with \(status)") }
  return Figures(
    handler: handler, events: deliveries * events, seconds: wall, workerSeconds: used, outputBytes: bytes)
}

/// User and system time of a process so far.
private func processorSeconds(_ process: pid_t) throws -> Double {
  var clock = clockid_t()
  var time = timespec()
  guard clock_getcpuclockid(process, &clock) == 0, clock_gettime(clock, &time) == 0 else { throw Failure("clock") }
  return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

/// The node's end of the socket.
private struct Feeder {
  let socket: Int32
  private var buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 8 << 20, alignment: 16)
  private var begin = 0
  private var end = 0

  init(socket: Int32) { self.socket = socket }

  /// Sends, reading meanwhile: a worker that waits for its results to be taken takes no deliveries.
  private mutating func send(_ bytes: UnsafeRawBufferPointer) throws {
    var sent = 0
    while sent < bytes.count {
      let count = Glibc.send(
        socket, bytes.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
      if count > 0 {
        sent += count
        continue
      }
      guard errno == EAGAIN else { throw Failure("send") }
      let wanted = end - begin < buffer.count ? POLLIN | POLLOUT : POLLOUT
      var entry = pollfd(fd: socket, events: Int16(wanted), revents: 0)
      guard poll(&entry, 1, 10_000) == 1 else { throw Failure("the worker takes nothing") }
      if entry.revents & Int16(POLLIN) != 0 { try fill() }
    }
  }

  private mutating func send(_ type: FrameType, _ body: [UInt8]) throws {
    var writer = ByteWriter()
    let start = writer.beginFrame(type, id: 0)
    writer.bytes(body)
    writer.endFrame(start)
    try send(writer.unsafeBytes)
  }

  private mutating func fill() throws {
    if begin == end {
      begin = 0
      end = 0
    } else if end == buffer.count {
      buffer.baseAddress!.copyMemory(from: buffer.baseAddress! + begin, byteCount: end - begin)
      end -= begin
      begin = 0
    }
    let count = recv(socket, buffer.baseAddress! + end, buffer.count - end, 0)
    guard count > 0 else { throw Failure("recv") }
    end += count
  }

  /// Passes over the next frame.
  private mutating func skipFrame() throws -> FrameHeader {
    while end - begin < FrameHeader.size { try fill() }
    let bytes = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer)[begin..<end])
    guard let header = try FrameHeader(bytes, limit: FrameHeader.defaultLimit) else { throw Failure("header") }
    begin += FrameHeader.size
    var left = header.bodySize
    while left > 0 {
      if begin == end { try fill() }
      let step = min(left, end - begin)
      begin += step
      left -= step
    }
    return header
  }

  mutating func welcome() throws {
    guard try skipFrame().type == .hello else { throw Failure("no HELLO") }
    let routes: JSONValue = ["out": [["topic": "next.events", "event": "next", "partitions": 4]]]
    let welcome: JSONValue = [
      "protocol": 1, "node": "n", "app": "bench", "version": "1", "worker": "bench-1", "heartbeatMs": 2000,
      "credits": 4, "slots": ["in"], "routes": routes,
    ]
    try send(.welcome, welcome.utf8)
  }

  /// Keeps four deliveries at the worker; how many were answered, with how many bytes.
  @discardableResult
  mutating func feed(_ frame: [UInt8], seconds: Double) throws -> (deliveries: Int, bytes: Int) {
    let deadline = grape_monotonic_ns() + Int64(seconds * 1e9)
    var answered = 0
    var bytes = 0
    var sent = 0
    while true {
      while sent - answered < 4, grape_monotonic_ns() < deadline {
        try frame.withUnsafeBytes { try send($0) }
        sent += 1
      }
      if sent == answered { return (answered, bytes) }
      let header = try skipFrame()
      switch header.type {
      case .result:
        answered += 1
        bytes += header.bodySize
      case .heartbeat: try send(.heartbeat, [UInt8](repeating: 0, count: 16))
      default: throw Failure("\(header.type)")
      }
    }
  }

  mutating func drain() throws {
    try send(.drain, [])
    while try skipFrame().type != .goodbye {}
  }
}
