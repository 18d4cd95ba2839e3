public import GrapeCore
public import GrapeWire

/// An event to be sent, as EXEC carries it.
public struct OutgoingEvent: Sendable {
  /// `app@event`
  public var target: String
  /// nil: no key, any partition.
  public var key: ByteSlice?
  public var value: ByteSlice
  public var headers: [Header]

  /// A header of the event's own.
  public struct Header: Sendable {
    public var name: String
    public var value: ByteSlice?
    public init(_ name: String, _ value: ByteSlice?) {
      self.name = name
      self.value = value
    }
  }

  public init(_ target: String, key: ByteSlice? = nil, value: ByteSlice = ByteSlice([]), headers: [Header] = []) {
    self.target = target
    self.key = key
    self.value = value
    self.headers = headers
  }

  /// Makes the event run once within the application's window, however often it is sent with this key: a repeat gets the answer of the
  /// first (docs/protocol.md, "Idempotency keys"). 1 to 255 bytes of UTF-8; nil: none. It is the header `idempotency-key`.
  public var idempotencyKey: String? {
    get {
      headers.first { $0.name == Self.idempotencyHeader }?.value.map {
        String(decoding: $0.unsafeBytes, as: UTF8.self)
      }
    }
    set {
      headers.removeAll { $0.name == Self.idempotencyHeader }
      if let newValue { headers.append(Header(Self.idempotencyHeader, ByteSlice(newValue))) }
    }
  }

  private static let idempotencyHeader = "idempotency-key"

  /// Bytes of key, value and headers together: what the node's `maxEvent` bounds.
  public var byteCount: Int {
    headers.reduce(value.count + (key?.count ?? 0)) { $0 + $1.name.utf8.count + ($1.value?.count ?? 0) }
  }
}

/// Frames that a client sends, encoded whole.
public enum ClientFrame {
  /// HELLO of a client.
  public static func hello(agent: String, source: SourceEpoch? = nil) -> ByteSlice {
    var members: [JSONValue.Member] = [
      .init("role", "client"), .init("protocol", [1]), .init("agent", .string(agent)),
    ]
    if let source { members.append(.init("source", ["id": .string(source.id), "epoch": .int(source.epoch)])) }
    let hello = JSONValue.object(members)
    return frame(.hello, id: 0) { $0.bytes(hello.utf8) }
  }

  /// EXEC. `timeout` in milliseconds: see docs/protocol.md, "EXEC".
  public static func exec(
    _ event: OutgoingEvent, id: UInt64, durability: AckDurability, blocking: Bool, timeoutMilliseconds: UInt32
  ) -> ByteSlice {
    frame(.exec, id: id, capacity: 64 + event.byteCount + 8 * event.headers.count) { writer in
      writer.u8(durability.rawValue)
      writer.u8(blocking ? 1 : 0)
      writer.u16(0)
      writer.u32(timeoutMilliseconds)
      writer.string16(event.target)
      writer.bytes32(event.key?.unsafeBytes)
      writer.bytes32(event.value.unsafeBytes)
      writer.u16(UInt16(event.headers.count))
      for header in event.headers {
        writer.string16(header.name)
        writer.bytes32(header.value?.unsafeBytes)
      }
      withExtendedLifetime(event) {}
    }
  }

  /// FETCH. Offset -1: the end, -2: the first there is.
  public static func fetch(
    topic: String, partition: Int32, offset: Int64, maxBytes: UInt32, waitMilliseconds: UInt32, id: UInt64
  ) -> ByteSlice {
    frame(.fetch, id: id) { writer in
      writer.string16(topic)
      writer.i32(partition)
      writer.i64(offset)
      writer.u32(maxBytes)
      writer.u32(waitMilliseconds)
    }
  }

  /// CANCEL of the request `id`.
  public static func cancel(id: UInt64) -> ByteSlice { frame(.cancel, id: id) { _ in } }

  /// GOODBYE.
  public static func goodbye(reason: String) -> ByteSlice {
    let body: JSONValue = ["reason": .string(reason)]
    return frame(.goodbye, id: 0) { $0.bytes(body.utf8) }
  }

  /// REQUEST of the operation `op` with further members and a blob.
  public static func request(_ op: String, _ members: [JSONValue.Member], blob: ByteSlice?, id: UInt64) -> ByteSlice {
    let json = JSONValue.object([JSONValue.Member("op", .string(op))] + members).utf8
    return frame(.request, id: id, capacity: 32 + json.count + (blob?.count ?? 0)) { writer in
      writer.u32(UInt32(json.count))
      writer.bytes(json)
      if let blob { writer.bytes(blob.unsafeBytes) }
      withExtendedLifetime(blob) {}
    }
  }

  /// APPEND of batches, as pieces to be sent one after the other: the batches themselves are not copied.
  /// Precondition: 1 to 65,535 batches.
  public static func append(
    app: String, batches: [(partition: Int32, bytes: ByteSlice)], durability: AckDurability, id: UInt64
  ) -> [ByteSlice] {
    precondition(!batches.isEmpty && batches.count <= Int(UInt16.max), "an APPEND carries 1 to 65,535 batches")
    var writer = ByteWriter(capacity: 64 + app.utf8.count + 8 * batches.count)
    var cuts: [Int] = [0]
    let start = writer.beginFrame(.append, id: id)
    writer.u8(durability.rawValue)
    writer.u8(0)
    writer.u16(UInt16(batches.count))
    writer.string16(app)
    var payload = 0
    for (partition, bytes) in batches {
      writer.i32(partition)
      writer.u32(UInt32(bytes.count))
      cuts.append(writer.count)
      payload += bytes.count
    }
    writer.patch(UInt32(writer.count - start - 4 + payload), at: start)
    let prefaces = writer.finish()
    var pieces: [ByteSlice] = []
    pieces.reserveCapacity(2 * batches.count)
    for (index, batch) in batches.enumerated() {
      pieces.append(prefaces[cuts[index]..<cuts[index + 1]])
      pieces.append(batch.bytes)
    }
    return pieces
  }

  private static func frame(
    _ type: FrameType, id: UInt64, capacity: Int = 128, _ body: (inout ByteWriter) -> Void
  ) -> ByteSlice {
    var writer = ByteWriter(capacity: capacity)
    let start = writer.beginFrame(type, id: id)
    body(&writer)
    writer.endFrame(start)
    return writer.finish()
  }
}
