import CGrapeLinux
import Glibc
import GrapeCore
import GrapeWire
import Testing

@testable import Grape

@Suite(.timeLimit(.minutes(1))) struct NodeConnectionTests {
  @Test func `a path that nobody listens at is reported with what to do`() throws {
    let error = #expect(throws: ClientError.self) { try NodeConnection(path: "/tmp/no-such-folder/node.sock") }
    #expect(error?.code == .unreachable)
    #expect(error?.message.contains("/tmp/no-such-folder/node.sock") == true)
    #expect(error?.message.contains("is `grape serve` running?") == true)
  }

  @Test func `WELCOME's limits are kept`() throws {
    let node = try FakeNode(maxFrame: 100_000, maxEvent: 5000) { _ in [] }
    let connection = try NodeConnection(path: node.path)
    #expect(connection.welcome == NodeWelcome(node: "fake", version: "0.1.0", maxFrame: 100_000, maxEvent: 5000))
  }

  @Test func `a refusal of HELLO arrives as such`() throws {
    let refusal = FakeNode.error(.unsupportedVersion, "protocol versions [7] are known here", id: 0)
    let node = try FakeNode(welcome: refusal) { _ in [] }
    let error = #expect(throws: ClientError.self) { try NodeConnection(path: node.path) }
    #expect(error?.message.contains("protocol versions [7] are known here") == true)
  }

  @Test func `EXEC carries every field, and its ACK comes back whole`() throws {
    let body = Shared<[UInt8]>([])
    let node = try FakeNode { frame in
      body.change { $0 = frame.body.array }
      return [FakeNode.ack(id: frame.id, topic: "shop.events", partition: 3, offset: 1 << 40)]
    }
    let connection = try NodeConnection(path: node.path)
    let event = OutgoingEvent(
      "shop@order", key: ByteSlice("k"), value: ByteSlice("data"),
      headers: [.init("a", ByteSlice("1")), .init("none", nil)])
    let receipt = try connection.exec(event, durability: .os, expiry: .milliseconds(1500))
    #expect(receipt == Receipt(topic: "shop.events", partition: 3, offset: 1 << 40, durability: .disk))
    var expected = ByteWriter()
    expected.bytes([2, 0, 0, 0, 0, 0, 0x05, 0xdc, 0, 10])
    expected.bytes(Array("shop@order".utf8))
    expected.bytes([0, 0, 0, 1] + Array("k".utf8) + [0, 0, 0, 4] + Array("data".utf8))
    expected.bytes([0, 2, 0, 1] + Array("a".utf8) + [0, 0, 0, 1] + Array("1".utf8))
    expected.bytes([0, 4] + Array("none".utf8) + [0xff, 0xff, 0xff, 0xff])
    let bytes = expected.finish().array
    #expect(body() == bytes)
  }

  @Test func `an event without a key sends a null key, and one with an empty key an empty one`() throws {
    let keys = Shared<[Int32]>([])
    let node = try FakeNode { frame in
      var reader = ByteReader(frame.body.unsafeBytes)
      let length = try? {
        _ = try reader.bytes(8)
        _ = try reader.string16()
        return try reader.i32()
      }()
      keys.change { $0.append(length ?? 99) }
      return [FakeNode.ack(id: frame.id, topic: "a.events", partition: 0, offset: 0)]
    }
    let connection = try NodeConnection(path: node.path)
    _ = try connection.exec(OutgoingEvent("a@b"))
    _ = try connection.exec(OutgoingEvent("a@b", key: ByteSlice([])))
    #expect(keys() == [-1, 0])
  }

  @Test func `a refusal of EXEC is thrown with its status, whether it comes as REPLY or as ERROR`() throws {
    let node = try FakeNode { frame in
      frame.id == 1
        ? [FakeNode.reply(id: 1, .noSuchSlot, ran: .never, message: "shop has no slot `x`")]
        : [FakeNode.error(.queueFull, "later", id: frame.id)]
    }
    let connection = try NodeConnection(path: node.path)
    let first = #expect(throws: StatusError.self) { try connection.exec(OutgoingEvent("shop@x")) }
    #expect(first == StatusError(.noSuchSlot, "shop has no slot `x`", ran: .never))
    let second = #expect(throws: StatusError.self) { try connection.exec(OutgoingEvent("shop@x")) }
    #expect(second?.status == .queueFull)
  }

  @Test func `progressive replies come in order and the final one ends the call`() throws {
    let node = try FakeNode { frame in
      [
        FakeNode.reply(id: frame.id, value: [1], isFinal: false),
        FakeNode.reply(id: frame.id, value: [2], isFinal: false),
        FakeNode.reply(id: frame.id, .handlerError, code: 42, message: "no", value: [3]),
      ]
    }
    let connection = try NodeConnection(path: node.path)
    var progress: [[UInt8]] = []
    let reply = try connection.call(OutgoingEvent("a@b")) { progress.append($0.value.array) }
    #expect(progress == [[1], [2]])
    #expect(reply.failure == StatusError(.handlerError, "no", code: 42, ran: .yes))
    #expect(reply.value.array == [3])
  }

  @Test func `a request that gets no answer ends at its deadline`() throws {
    let node = try FakeNode { _ in [] }
    let connection = try NodeConnection(path: node.path)
    let error = #expect(throws: ClientError.self) {
      try connection.request("node.info", timeout: .milliseconds(20))
    }
    #expect(error?.code == .deadlineExceeded)
  }

  @Test func `an answer that comes after its request was given up does not disturb the next`() throws {
    let node = try FakeNode { frame in
      // The first request is answered late: together with the second.
      frame.id == 1
        ? [] : [FakeNode.response(id: 1, ["n": 1]), FakeNode.response(id: frame.id, ["n": 2], blob: [7])]
    }
    let connection = try NodeConnection(path: node.path)
    _ = try? connection.request("slow", timeout: .milliseconds(5))
    let response = try connection.request("next")
    #expect(response.json["n"]?.int == 2)
    #expect(response.blob.array == [7])
  }

  @Test func `a node that closes ends the wait, and its reason is told if it gave one`() throws {
    let silent = try FakeNode { _ in nil }
    let first = #expect(throws: ClientError.self) {
      try NodeConnection(path: silent.path).request("node.info")
    }
    #expect(first?.code == .disconnected)
    let speaking = try FakeNode { _ in [FakeNode.error(.badRequest, "frame type 99", id: 0)] }
    let second = #expect(throws: ClientError.self) {
      try NodeConnection(path: speaking.path).request("node.info")
    }
    #expect(second?.code == .refused)
    #expect(second?.message.contains("frame type 99") == true)
  }

  @Test func `a frame that is no frame is a protocol violation`() throws {
    let node = try FakeNode { _ in [ByteSlice([0, 0, 0, 12, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])] }
    let connection = try NodeConnection(path: node.path)
    let error = #expect(throws: ClientError.self) { try connection.request("node.info") }
    #expect(error?.code == .protocolViolation)
    #expect(error?.message.contains("0x7f") == true)
  }

  @Test func `FETCHED is split into its batches`() throws {
    var builder = RecordBatchBuilder()
    let empty = HeaderSection.empty
    builder.append(key: nil, value: ByteSlice("x").unsafeBytes, headerSection: empty.unsafeBytes, timestamp: 5)
    let batch = try builder.take().bytes
    let node = try FakeNode { frame in
      [
        FakeNode.frame(.fetched, id: frame.id) {
          $0.i64(1)
          $0.i64(9)
          $0.i64(7)
          $0.bytes(batch.unsafeBytes)
          $0.bytes(batch.unsafeBytes)
        }
      ]
    }
    let result = try NodeConnection(path: node.path).fetch(topic: "a.events", partition: 0, offset: -2)
    #expect((result.startOffset, result.endOffset, result.nextOffset) == (1, 9, 7))
    #expect(result.batches == [batch, batch])
  }

  @Test func `frames larger than the receive buffer arrive whole`() throws {
    let blob = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
    let node = try FakeNode { frame in [FakeNode.response(id: frame.id, [:], blob: blob)] }
    let connection = try NodeConnection(path: node.path)
    for _ in 0..<3 { #expect(try connection.request("big").blob.array == blob) }
  }

  @Test func `a readable interrupt descriptor ends the wait`() throws {
    let node = try FakeNode { _ in [] }
    let connection = try NodeConnection(path: node.path)
    let wake = try WakeDescriptor()
    connection.interruptDescriptor = wake.descriptor
    wake.signal()
    let error = #expect(throws: ClientError.self) { try connection.receive(until: .now + .seconds(20)) }
    #expect(error?.code == .interrupted)
  }
}
