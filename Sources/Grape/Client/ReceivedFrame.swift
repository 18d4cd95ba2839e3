public import GrapeCore
public import GrapeWire

/// A frame as it came from the node.
public struct ReceivedFrame: Sendable {
  public var type: FrameType
  public var flags: UInt8
  public var id: UInt64
  public var body: ByteSlice

  public init(type: FrameType, flags: UInt8, id: UInt64, body: ByteSlice) {
    self.type = type
    self.flags = flags
    self.id = id
    self.body = body
  }
}

/// Where an event or a batch was appended.
public struct Receipt: Sendable, Hashable {
  public var topic: String
  public var partition: Int32
  public var offset: Int64
  /// Reached before the node answered.
  public var durability: AckDurability
}

/// An answer of a handler (or of the node in its place).
public struct CallReply: Sendable {
  public var status: Status
  public var ran: Ran
  /// The handler's own code.
  public var code: Int32
  public var message: String
  /// The handler's data; empty if it sent none.
  public var value: ByteSlice
  /// No further reply follows.
  public var isFinal: Bool

  /// The reply as an error; nil if its status is ok.
  public var failure: StatusError? {
    status == .ok ? nil : StatusError(status, message, code: code, ran: ran)
  }
}

/// Where the batches of one APPEND went.
public struct AppendReceipt: Sendable, Hashable {
  /// One batch's place.
  public struct Entry: Sendable, Hashable {
    public var partition: Int32
    /// Offset of the batch's first record.
    public var baseOffset: Int64
  }
  public var topic: String
  public var durability: AckDurability
  /// In the order of the batches sent; more of them where the node split a batch by key.
  public var entries: [Entry]
}

/// What a FETCH brought.
public struct FetchResult: Sendable {
  /// First offset that the log still has.
  public var startOffset: Int64
  /// Next offset to be assigned.
  public var endOffset: Int64
  /// Where to continue.
  public var nextOffset: Int64
  /// Record batches, one slice each. The first may begin before the offset asked for.
  public var batches: [ByteSlice]
}

/// The answer to an administrative operation.
public struct AdminResponse: Sendable {
  public var json: JSONValue
  public var blob: ByteSlice
}

extension ReceivedFrame {
  private func unexpected(_ wanted: String) -> ClientError {
    ClientError(.protocolViolation, "the node answered request \(id) with a frame \(type) where \(wanted) is due")
  }

  private func parse<Value>(_ what: String, _ body: (inout ByteReader) throws(WireError) -> Value) throws(ClientError)
    -> Value
  {
    var reader = ByteReader(self.body.unsafeBytes)
    defer { withExtendedLifetime(self.body) {} }
    do throws(WireError) {
      return try body(&reader)
    } catch {
      throw ClientError(.protocolViolation, "the node sent a malformed \(what): \(error.message)")
    }
  }

  /// What an ERROR frame says; nil for a frame of another type.
  public var failure: StatusError? {
    guard type == .error else { return nil }
    guard let json = try? JSONValue(parsing: body.unsafeBytes) else {
      return StatusError(.internal, "the node sent an ERROR frame that is not JSON")
    }
    withExtendedLifetime(body) {}
    let status = json["status"]?.int.flatMap { UInt16(exactly: $0) }.map { Status(rawValue: $0) } ?? .internal
    return StatusError(status, json["message"]?.string ?? "")
  }

  /// The body of an ACK.
  public func receipt() throws(ClientError) -> Receipt {
    guard type == .ack else { throw unexpected("ACK") }
    return try parse("ACK") { (reader) throws(WireError) in
      let durability = AckDurability(rawValue: try reader.u8()) ?? .applicationDefault
      _ = try reader.bytes(3)
      let partition = try reader.i32()
      let offset = try reader.i64()
      return Receipt(topic: try reader.string16(), partition: partition, offset: offset, durability: durability)
    }
  }

  /// The body of a REPLY.
  public func reply() throws(ClientError) -> CallReply {
    guard type == .reply else { throw unexpected("REPLY") }
    return try parse("REPLY") { (reader) throws(WireError) in
      let status = Status(rawValue: try reader.u16())
      let ran = Ran(rawValue: try reader.u8()) ?? .unknown
      _ = try reader.u8()
      let code = try reader.i32()
      let message = try reader.string16()
      let value = try reader.bytes32()
      let slice = body[(reader.position - (value?.count ?? 0))..<reader.position]
      return CallReply(status: status, ran: ran, code: code, message: message, value: slice, isFinal: flags & 1 != 0)
    }
  }

  /// The body of an APPENDED.
  public func appendReceipt() throws(ClientError) -> AppendReceipt {
    guard type == .appended else { throw unexpected("APPENDED") }
    return try parse("APPENDED") { (reader) throws(WireError) in
      let durability = AckDurability(rawValue: try reader.u8()) ?? .applicationDefault
      _ = try reader.u8()
      let count = Int(try reader.u16())
      let topic = try reader.string16()
      var entries: [AppendReceipt.Entry] = []
      entries.reserveCapacity(count)
      for _ in 0..<count {
        let partition = try reader.i32()
        entries.append(AppendReceipt.Entry(partition: partition, baseOffset: try reader.i64()))
      }
      return AppendReceipt(topic: topic, durability: durability, entries: entries)
    }
  }

  /// The body of a FETCHED.
  public func fetchResult() throws(ClientError) -> FetchResult {
    guard type == .fetched else { throw unexpected("FETCHED") }
    return try parse("FETCHED") { (reader) throws(WireError) in
      let start = try reader.i64()
      let end = try reader.i64()
      let next = try reader.i64()
      let batches = try RecordBatch.split(body[reader.position..<body.count])
      return FetchResult(startOffset: start, endOffset: end, nextOffset: next, batches: batches)
    }
  }

  /// The body of a RESPONSE.
  public func adminResponse() throws(ClientError) -> AdminResponse {
    guard type == .response else { throw unexpected("RESPONSE") }
    let (text, blob) = try parse("RESPONSE") { (reader) throws(WireError) in
      let size = Int(try reader.u32())
      _ = try reader.bytes(size)
      return (body[4..<(4 + size)], body[(4 + size)..<body.count])
    }
    do throws(JSONError) {
      let json = try JSONValue(parsing: text.unsafeBytes)
      withExtendedLifetime(text) {}
      return AdminResponse(json: json, blob: blob)
    } catch {
      throw ClientError(.protocolViolation, "the node sent a RESPONSE whose JSON does not parse: \(error)")
    }
  }
}
