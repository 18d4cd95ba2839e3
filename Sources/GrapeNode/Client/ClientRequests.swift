internal import GrapeCore
internal import GrapeLog
internal import GrapeWire

// Bodies of the frames that clients send (docs/protocol.md). What they point into is the body, which must outlive them.

/// EXEC: one event.
struct ExecRequest {
  /// nil: as the application's profile says.
  var durability: Durability?
  var isBlocking: Bool
  /// 0: no deadline, or the default of a blocking event.
  var timeoutMilliseconds: UInt32
  /// `app@event`, not checked.
  var target: String
  var key: UnsafeRawBufferPointer?
  var value: UnsafeRawBufferPointer?
  /// The event's own headers, in order; names are not checked.
  var headers: [(name: String, value: UnsafeRawBufferPointer?)] = []

  init(_ body: ByteSlice) throws(WireError) {
    var reader = ByteReader(body.unsafeBytes)
    durability = try reader.durability()
    let mode = try reader.u8()
    guard mode <= 1 else { throw WireError(.malformed, "mode \(mode): 0 or 1 is legal") }
    isBlocking = mode == 1
    _ = try reader.u16()
    timeoutMilliseconds = try reader.u32()
    target = try reader.string16()
    key = try reader.bytes32()
    value = try reader.bytes32()
    for _ in 0..<(try reader.u16()) { headers.append((try reader.string16(), try reader.bytes32())) }
    guard reader.remaining == 0 else { throw WireError(.malformed, "\(reader.remaining) bytes behind the headers") }
  }

  /// How long the event may wait, or its caller; 0: for ever.
  var milliseconds: Int64 { isBlocking && timeoutMilliseconds == 0 ? 30_000 : Int64(timeoutMilliseconds) }

  /// The value of the header `idempotency-key`, if there is one.
  var idempotencyKey: UnsafeRawBufferPointer? {
    get throws(StatusError) {
      let keys = headers.filter { $0.name == IdempotencyKey.header }
      guard let first = keys.first else { return nil }
      guard keys.count == 1 else {
        throw StatusError(.badRequest, "header \(IdempotencyKey.header) is there \(keys.count) times; once is right")
      }
      let count = first.value?.count ?? 0
      guard IdempotencyKey.length.contains(count) else {
        throw StatusError(
          .badRequest,
          "header \(IdempotencyKey.header) has \(count) bytes; \(IdempotencyKey.length.lowerBound) to \(IdempotencyKey.length.upperBound) are allowed"
        )
      }
      return first.value
    }
  }

  /// Key, value and headers, in bytes.
  var eventBytes: Int {
    headers.reduce((key?.count ?? 0) + (value?.count ?? 0)) { $0 + $1.name.utf8.count + ($1.value?.count ?? 0) }
  }
}

/// APPEND: record batches, not checked.
struct AppendRequest {
  /// nil: as the application's profile says.
  var durability: Durability?
  var app: String
  /// Partition -1: the node splits the batch by key. At least one.
  var batches: [(partition: Int32, batch: ByteSlice)] = []

  init(_ body: ByteSlice) throws(WireError) {
    var reader = ByteReader(body.unsafeBytes)
    durability = try reader.durability()
    _ = try reader.u8()
    let count = try reader.u16()
    app = try reader.string16()
    guard count > 0 else { throw WireError(.malformed, "no batch") }
    for _ in 0..<count {
      let partition = try reader.i32()
      let size = Int(try reader.u32())
      let start = reader.position
      _ = try reader.bytes(size)
      batches.append((partition, body[start..<start + size]))
    }
    guard reader.remaining == 0 else { throw WireError(.malformed, "\(reader.remaining) bytes behind the last batch") }
  }
}

/// FETCH: a place in a topic.
struct FetchRequest {
  var partition: TopicPartition
  /// -1: the end; -2: the start.
  var offset: Int64
  var maxBytes: Int
  /// At most ten minutes.
  var waitMilliseconds: Int64

  init(_ body: ByteSlice) throws(WireError) {
    var reader = ByteReader(body.unsafeBytes)
    let topic = try reader.string16()
    partition = TopicPartition(topic, try reader.i32())
    offset = try reader.i64()
    maxBytes = Int(try reader.u32())
    waitMilliseconds = Int64(min(try reader.u32(), 600_000))
    guard reader.remaining == 0, offset >= -2 else { throw WireError(.malformed, "offset \(offset)") }
  }
}

/// REQUEST: an administrative operation.
struct AdminRequest {
  var json: JSONValue
  var blob: ByteSlice

  init(_ body: ByteSlice) throws(WireError) {
    var reader = ByteReader(body.unsafeBytes)
    let text = try reader.bytes(Int(try reader.u32()))
    do throws(JSONError) { json = try JSONValue(parsing: text) } catch {
      throw WireError(.malformed, error.description)
    }
    blob = body[reader.position..<body.count]
  }
}

extension ByteReader {
  /// 0: the application's default, nil; else the durability asked for.
  fileprivate mutating func durability() throws(WireError) -> Durability? {
    let byte = try u8()
    guard byte > 0 else { return nil }
    guard let durability = Durability(rawValue: byte) else {
      throw WireError(.malformed, "durability \(byte): 0 to 3 is legal")
    }
    return durability
  }
}
