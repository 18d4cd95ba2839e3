import CGrapeLinux
import CRawState
import Glibc
import GrapeCore
import GrapeWire

struct Failure: Error {
  var message: String
  init(_ message: String) { self.message = "\(message): \(String(cString: strerror(errno)))" }
}

/// A node that does nothing but feed one worker deliveries, one at a time per partition, and see what it writes.
final class Feeder {
  private let socket: Int32
  private let child: pid_t
  private var buffer: [UInt8] = []

  /// Starts this program as a worker.
  init(_ handler: String, state: String, partitions: Int32) throws {
    let path = "/tmp/grape-state-bench-\(getpid()).sock"
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
    var arguments: [UnsafeMutablePointer<CChar>?] = [strdup(CommandLine.arguments[0]), strdup(handler), nil]
    let error = posix_spawn(&child, "/proc/self/exe", nil, nil, &arguments, environ)
    for argument in arguments { free(argument) }
    unsetenv("GRAPE_SOCKET")
    guard error == 0 else { throw Failure("spawn \(error)") }
    var entry = pollfd(fd: listener, events: Int16(POLLIN), revents: 0)
    guard poll(&entry, 1, 10_000) == 1 else { throw Failure("the worker did not connect") }
    socket = grape_accept(listener)
    self.child = child
    guard socket >= 0, grape_set_nonblocking(socket, false) == 0 else { throw Failure("accept") }
    guard try next().header.type == .hello else { throw Failure("no HELLO") }
    let welcome: JSONValue = [
      "protocol": 1, "node": "n", "app": "bench", "version": "1", "worker": "bench-1", "heartbeatMs": 10_000,
      "credits": 4, "slots": ["in"], "routes": .object([]),
      "state": [
        "topic": "bench.state", "partitions": JSONValue(partitions), "access": "map", "path": .string(state),
      ],
    ]
    var writer = ByteWriter()
    let start = writer.beginFrame(.welcome, id: 0)
    writer.bytes(welcome.utf8)
    writer.endFrame(start)
    try send(writer.finish())
  }

  deinit { close(socket) }

  func send(_ bytes: ByteSlice) throws {
    var sent = 0
    while sent < bytes.count {
      let count = Glibc.send(socket, bytes.unsafeBytes.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL))
      guard count > 0 else { throw Failure("send") }
      sent += count
    }
  }

  func next() throws -> (header: FrameHeader, body: ByteSlice) {
    while true {
      let frame = try buffer.withUnsafeBytes { bytes -> (FrameHeader, ByteSlice)? in
        guard let header = try FrameHeader(bytes, limit: FrameHeader.defaultLimit) else { return nil }
        let size = FrameHeader.size + header.bodySize
        guard bytes.count >= size else { return nil }
        return (header, ByteSlice(copying: UnsafeRawBufferPointer(rebasing: bytes[FrameHeader.size..<size])))
      }
      if let frame {
        buffer.removeFirst(FrameHeader.size + frame.1.count)
        return frame
      }
      var chunk = [UInt8](repeating: 0, count: 1 << 20)
      let count = recv(socket, &chunk, chunk.count, 0)
      guard count > 0 else { throw Failure("recv") }
      buffer += chunk[..<count]
    }
  }

  /// The next RESULT.
  func result() throws -> (id: UInt64, body: ByteSlice) {
    while true {
      let frame = try next()
      if frame.header.type == .result { return (frame.header.id, frame.body) }
      guard frame.header.type == .heartbeat else { throw Failure("\(frame.header.type)") }
    }
  }

  /// User and system time of the worker so far.
  func processorSeconds() throws -> Double {
    var clock = clockid_t()
    var time = timespec()
    guard clock_getcpuclockid(child, &clock) == 0, clock_gettime(clock, &time) == 0 else { throw Failure("clock") }
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }

  func end() throws {
    var writer = ByteWriter()
    let start = writer.beginFrame(.drain, id: 0)
    writer.endFrame(start)
    try send(writer.finish())
    while try next().header.type != .goodbye {}
    var status: Int32 = 0
    waitpid(child, &status, 0)
    guard status == 0 else { throw Failure("the worker ended with \(status)") }
  }
}

/// A DELIVER frame of one batch, to be sent again and again with other offsets.
struct Delivery {
  let frame: ByteSlice
  let events: Int

  private static let partition = FrameHeader.size
  private static let first = FrameHeader.size + 8
  private static let batch = FrameHeader.size + 28

  init(_ build: (inout RecordBatchBuilder, ByteSlice) -> Int) throws {
    var section = HeaderSection()
    section.append(HeaderName.event, Array("in".utf8))
    var builder = RecordBatchBuilder()
    events = build(&builder, section.finish())
    let batch = try builder.take().bytes
    var writer = ByteWriter(capacity: batch.count + 64)
    let start = writer.beginFrame(.deliver, id: 0)
    writer.i32(0)
    writer.u32(1)
    writer.i64(0)
    writer.i64(0)
    writer.u32(0)
    writer.bytes(batch.unsafeBytes)
    writer.endFrame(start)
    frame = writer.finish()
  }

  /// The frame, with its place. Valid until it is placed anew.
  func placed(id: UInt64, partition: Int32, first: Int64) -> ByteSlice {
    let base = frame.storage.base
    base.storeBytes(of: id.bigEndian, toByteOffset: 8, as: UInt64.self)
    base.storeBytes(of: partition.bigEndian, toByteOffset: Self.partition, as: Int32.self)
    base.storeBytes(of: first.bigEndian, toByteOffset: Self.first, as: Int64.self)
    base.storeBytes(of: (first + Int64(events)).bigEndian, toByteOffset: Self.first + 8, as: Int64.self)
    RecordBatch.setBaseOffset(
      first, in: UnsafeMutableRawBufferPointer(start: base + Self.batch, count: frame.count - Self.batch))
    return frame
  }
}
