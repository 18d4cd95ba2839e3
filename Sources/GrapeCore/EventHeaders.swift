public import GrapeWire

/// Names of the record headers that belong to Grape (docs/protocol.md, "Header names").
public enum HeaderName {
  public static let event: StaticString = "g.e"
  public static let replyAddress: StaticString = "g.r"
  public static let deadline: StaticString = "g.d"
  public static let hops: StaticString = "g.h"
  public static let replyStatus: StaticString = "g.s"
  public static let deadLetter: StaticString = "g.x"
  /// Of a claim to an idempotency key: the node that claims it.
  public static let node: StaticString = "g.n"
  public static let traceparent: StaticString = "traceparent"
  /// Where an event that came from a topic of somebody else's stood there: `TOPIC/PARTITION:OFFSET`.
  public static let source: StaticString = "grape-source"

  /// Whether a header's name is reserved.
  @inlinable
  public static func isReserved(_ name: UnsafeRawBufferPointer) -> Bool {
    name.count >= 2 && name[0] == UInt8(ascii: "g") && name[1] == UInt8(ascii: ".")
  }
}

/// Where the reply to an event goes: the header `g.r`.
public struct ReplyAddress: Hashable, Sendable {
  /// 16 bytes that tell the waiting call apart from all others.
  public var correlation: CorrelationID
  public var partition: Int32
  public var topic: String

  public init(correlation: CorrelationID, partition: Int32, topic: String) {
    self.correlation = correlation
    self.partition = partition
    self.topic = topic
  }

  /// Reads the header's value.
  public init(_ value: UnsafeRawBufferPointer) throws(WireError) {
    var reader = ByteReader(value)
    correlation = CorrelationID(high: try reader.u64(), low: try reader.u64())
    partition = try reader.i32()
    guard let topic = String(validating: reader.rest(), as: UTF8.self), !topic.isEmpty else {
      throw WireError(.malformed, "the reply topic in \(HeaderName.replyAddress) is empty or not UTF-8")
    }
    self.topic = topic
  }

  /// The header's value.
  public var encoded: [UInt8] {
    var writer = ByteWriter(capacity: 20 + topic.utf8.count)
    writer.u64(correlation.high)
    writer.u64(correlation.low)
    writer.i32(partition)
    writer.bytes(Array(topic.utf8))
    return writer.finish().array
  }
}

/// Tells calls apart: unique over nodes and their lives.
public struct CorrelationID: Hashable, Sendable {
  public var high: UInt64
  public var low: UInt64

  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// Reads the 16 bytes of a reply's key; nil if there are not 16.
  public init?(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count == 16 else { return nil }
    high = UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self))
    low = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
  }

  /// The 16 bytes.
  public var encoded: [UInt8] {
    var writer = ByteWriter(capacity: 16)
    writer.u64(high)
    writer.u64(low)
    return writer.finish().array
  }
}

/// How an event ended, as its reply says it: the header `g.s`.
public struct ReplyStatus: Hashable, Sendable {
  public var status: Status
  public var ran: Ran
  /// No further reply follows.
  public var isFinal: Bool
  /// The handler's own code.
  public var code: Int32
  public var message: String

  public init(_ status: Status = .ok, ran: Ran = .yes, isFinal: Bool = true, code: Int32 = 0, message: String = "") {
    self.status = status
    self.ran = ran
    self.isFinal = isFinal
    self.code = code
    self.message = message
  }

  /// Reads the header's value.
  public init(_ value: UnsafeRawBufferPointer) throws(WireError) {
    var reader = ByteReader(value)
    status = Status(rawValue: try reader.u16())
    let ranByte = try reader.u8()
    guard let ran = Ran(rawValue: ranByte) else {
      throw WireError(.malformed, "\(HeaderName.replyStatus): ran is \(ranByte), 0 to 2 is legal")
    }
    self.ran = ran
    isFinal = try reader.u8() & 1 != 0
    code = try reader.i32()
    message = String(decoding: reader.rest(), as: UTF8.self)
  }

  /// The header's value.
  public var encoded: [UInt8] {
    var writer = ByteWriter(capacity: 8 + message.utf8.count)
    writer.u16(status.rawValue)
    writer.u8(ran.rawValue)
    writer.u8(isFinal ? 1 : 0)
    writer.i32(code)
    writer.bytes(Array(message.utf8))
    return writer.finish().array
  }
}

/// Grape's headers of an event, read from its record.
public struct EventHeaders {
  /// `g.e`, in place.
  public var event: UnsafeRawBufferPointer?
  /// `g.d`: milliseconds since 1970 UTC.
  public var deadline: Int64?
  /// `g.h`
  public var hops: UInt8 = 0
  /// `g.r`, in place.
  public var replyAddress: UnsafeRawBufferPointer?
  /// `traceparent`, in place.
  public var traceparent: UnsafeRawBufferPointer?
  /// Headers of the event's own.
  public var others = 0

  /// Reads a record's headers. `malformed` if they are not headers, or a value of Grape's is not what it must be.
  public init(_ record: Record) throws(WireError) {
    var headers = record.headers
    while let (name, value) = try headers.next() {
      guard HeaderName.isReserved(name), name.count == 3 else {
        if name.elementsEqual("traceparent".utf8) { traceparent = value } else { others += 1 }
        continue
      }
      guard let value else {
        throw WireError(.malformed, "header \(String(decoding: name, as: UTF8.self)) has no value")
      }
      switch name[2] {
      case UInt8(ascii: "e"): event = value
      case UInt8(ascii: "r"): replyAddress = value
      case UInt8(ascii: "d"):
        guard value.count == 8 else { throw WireError(.malformed, "header g.d has \(value.count) bytes, it takes 8") }
        deadline = Int64(bigEndian: value.loadUnaligned(as: Int64.self))
      case UInt8(ascii: "h"):
        guard value.count == 1 else { throw WireError(.malformed, "header g.h has \(value.count) bytes, it takes 1") }
        hops = value[0]
      default: break  // a later version's: handed through
      }
    }
  }
}

extension HeaderSection {
  /// Adds one of Grape's headers.
  public mutating func append(_ name: StaticString, _ value: UnsafeRawBufferPointer) {
    append(UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount), value)
  }

  /// Adds one of Grape's headers.
  public mutating func append(_ name: StaticString, _ value: [UInt8]) {
    value.withUnsafeBytes { append(name, $0) }
  }

  /// Adds `g.d`.
  public mutating func append(deadline: Int64) {
    withUnsafeBytes(of: deadline.bigEndian) { append(HeaderName.deadline, $0) }
  }
}
