import CGrapeLinux
import Glibc
import GrapeCore
import GrapeWire
import Synchronization

@testable import Grape

/// A node's listener for tests: one connection, answered by a script.
///
/// The script gets every frame after the handshake and returns the bytes to send, in one piece or several; nil closes the connection.
final class FakeNode: Sendable {
  typealias Script = @Sendable (ReceivedFrame) -> [ByteSlice]?

  let path: String
  private let directory: String
  private let listener: Int32

  init(
    maxFrame: Int = FrameHeader.defaultLimit, maxEvent: Int = 8 << 20, welcome: ByteSlice? = nil,
    script: @escaping Script
  ) throws {
    var template = Array("/tmp/grape-client-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw ClientError(.unreachable, "no temporary folder") }
    directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    path = directory + "/node.sock"
    listener = grape_unix_listen(path, 4, 0o600)
    guard listener >= 0 else { throw ClientError(.unreachable, "cannot listen at \(path)") }
    let listener = listener
    let answer = welcome ?? Self.welcome(maxFrame: maxFrame, maxEvent: maxEvent)
    guard ClientThread.start({ Self.serve(listener, welcome: answer, maxFrame: maxFrame, script) }) else {
      throw ClientError(.unreachable, "no thread")
    }
  }

  deinit {
    shutdown(listener, Int32(SHUT_RDWR))
    close(listener)
    unlink(path)
    rmdir(directory)
  }

  private static func serve(_ listener: Int32, welcome: ByteSlice, maxFrame: Int, _ script: Script) {
    guard Poll.wait(listener, Poll.readable, until: .now + .seconds(20)).first & Poll.readable != 0 else { return }
    let connection = grape_accept(listener)
    guard connection >= 0 else { return }
    defer { close(connection) }
    var assembler = FrameAssembler()
    var greeted = false
    while true {
      guard Poll.wait(connection, Poll.readable, until: .now + .seconds(20)).first != 0 else { return }
      let room = assembler.room()
      let count = recv(connection, room.baseAddress, room.count, 0)
      guard count > 0 else { return }
      assembler.received(count)
      while let frame = try? assembler.next() {
        guard greeted else {
          greeted = true
          assembler.limit = maxFrame
          guard frame.type == .hello, send(connection, [welcome]) else { return }
          continue
        }
        guard let pieces = script(frame), send(connection, pieces) else { return }
      }
    }
  }

  private static func send(_ connection: Int32, _ pieces: [ByteSlice]) -> Bool {
    for piece in pieces {
      var sent = 0
      while sent < piece.count {
        let count = grape_send(connection, piece.unsafeBytes.baseAddress! + sent, piece.count - sent)
        if count > 0 {
          sent += count
        } else if errno == EAGAIN {
          guard Poll.wait(connection, Poll.writable, until: .now + .seconds(20)).first != 0 else { return false }
        } else {
          return false
        }
      }
    }
    return true
  }

  // MARK: Frames of a node

  static func welcome(maxFrame: Int, maxEvent: Int) -> ByteSlice {
    frame(.welcome, id: 0) {
      let json: JSONValue = [
        "protocol": 1, "node": "fake", "version": "0.1.0", "maxFrame": JSONValue(maxFrame),
        "maxEvent": JSONValue(maxEvent),
      ]
      $0.bytes(json.utf8)
    }
  }

  static func frame(_ type: FrameType, flags: UInt8 = 0, id: UInt64, _ body: (inout ByteWriter) -> Void) -> ByteSlice {
    var writer = ByteWriter()
    let start = writer.beginFrame(type, flags: flags, id: id)
    body(&writer)
    writer.endFrame(start)
    return writer.finish()
  }

  static func error(_ status: Status, _ message: String, id: UInt64) -> ByteSlice {
    frame(.error, id: id) {
      let json: JSONValue = [
        "status": JSONValue(status.rawValue), "name": .string(status.name), "message": .string(message),
      ]
      $0.bytes(json.utf8)
    }
  }

  static func ack(id: UInt64, topic: String, partition: Int32, offset: Int64) -> ByteSlice {
    frame(.ack, id: id) {
      $0.u8(3)
      $0.u8(0)
      $0.u16(0)
      $0.i32(partition)
      $0.i64(offset)
      $0.string16(topic)
    }
  }

  static func reply(
    id: UInt64, _ status: Status = .ok, ran: Ran = .yes, code: Int32 = 0, message: String = "", value: [UInt8]? = nil,
    isFinal: Bool = true
  ) -> ByteSlice {
    frame(.reply, flags: isFinal ? 1 : 0, id: id) { writer in
      writer.u16(status.rawValue)
      writer.u8(ran.rawValue)
      writer.u8(0)
      writer.i32(code)
      writer.string16(message)
      if let value {
        value.withUnsafeBytes { writer.bytes32($0) }
      } else {
        writer.bytes32(nil)
      }
    }
  }

  static func appended(id: UInt64, topic: String, _ entries: [(Int32, Int64)]) -> ByteSlice {
    frame(.appended, id: id) {
      $0.u8(3)
      $0.u8(0)
      $0.u16(UInt16(entries.count))
      $0.string16(topic)
      for (partition, offset) in entries {
        $0.i32(partition)
        $0.i64(offset)
      }
    }
  }

  static func response(id: UInt64, _ json: JSONValue, blob: [UInt8] = []) -> ByteSlice {
    frame(.response, id: id) {
      let text = json.utf8
      $0.u32(UInt32(text.count))
      $0.bytes(text)
      $0.bytes(blob)
    }
  }
}

/// An APPEND as a node reads it.
struct AppendFrame {
  var durability: UInt8
  var app: String
  var batches: [(partition: Int32, batch: ByteSlice)] = []

  init(_ frame: ReceivedFrame) throws {
    var reader = ByteReader(frame.body.unsafeBytes)
    durability = try reader.u8()
    _ = try reader.u8()
    let count = try reader.u16()
    app = try reader.string16()
    for _ in 0..<count {
      let partition = try reader.i32()
      let size = Int(try reader.u32())
      _ = try reader.bytes(size)
      batches.append((partition, frame.body[(reader.position - size)..<reader.position]))
    }
    guard reader.remaining == 0 else { throw WireError(.malformed, "bytes behind the batches") }
  }
}

/// A value that a script and a test share.
final class Shared<Value: Sendable>: Sendable {
  private let value: Mutex<Value>
  init(_ value: Value) { self.value = Mutex(value) }
  func callAsFunction() -> Value { value.withLock { $0 } }
  func change<Result: Sendable>(_ body: @Sendable (inout sending Value) -> Result) -> Result {
    value.withLock { body(&$0) }
  }
}
