internal import Crypto
internal import GrapeCore
internal import GrapeWire

/// What is remembered of a request with an idempotency key as it is taken: a record of `APP.requests` in the commit of the event
/// itself; where several nodes share the log, another one before it (docs/data-format.md, Requests).
struct RequestMarker: Hashable {
  enum Kind: UInt8 {
    /// The event is in the same commit.
    case placed = 0
    /// The event is to come, if no other claim to the name stands before this one.
    case claim = 1
    /// The event of the claim with this id will not come.
    case release = 2
  }

  /// Names the request: replies carry it as their key.
  var id: CorrelationID
  var isBlocking: Bool
  var kind = Kind.placed
  /// Of the event's key and data.
  var fingerprint: UInt64
  var partition: Int32
  /// The event's offset is at or above it.
  var offsetBound: Int64

  private static let version: UInt8 = 1
  private static let size = 38

  /// The same, as a record of another kind.
  func with(_ kind: Kind) -> RequestMarker {
    var marker = self
    marker.kind = kind
    return marker
  }

  init(id: CorrelationID, isBlocking: Bool, fingerprint: UInt64, partition: Int32, offsetBound: Int64) {
    self.id = id
    self.isBlocking = isBlocking
    self.fingerprint = fingerprint
    self.partition = partition
    self.offsetBound = offsetBound
  }

  /// Reads the record's value. `unsupported` if a later version wrote it, `malformed` if it is none.
  init(_ value: UnsafeRawBufferPointer) throws(WireError) {
    var reader = ByteReader(value)
    let version = try reader.u8()
    guard version == Self.version else { throw WireError(.unsupported, "request marker of version \(version)") }
    let flags = try reader.u8()
    isBlocking = flags & 1 != 0
    guard let kind = Kind(rawValue: flags >> 1) else {
      throw WireError(.unsupported, "request marker of kind \(flags >> 1)")
    }
    self.kind = kind
    fingerprint = try reader.u64()
    partition = try reader.i32()
    offsetBound = try reader.i64()
    id = CorrelationID(high: try reader.u64(), low: try reader.u64())
    guard reader.remaining == 0 else {
      throw WireError(.malformed, "\(reader.remaining) bytes behind a request marker")
    }
  }

  /// The record's value.
  var encoded: ByteSlice {
    var writer = ByteWriter(capacity: Self.size)
    writer.u8(Self.version)
    writer.u8(kind.rawValue << 1 | (isBlocking ? 1 : 0))
    writer.u64(fingerprint)
    writer.i32(partition)
    writer.i64(offsetBound)
    writer.u64(id.high)
    writer.u64(id.low)
    return writer.finish()
  }

  /// Tells requests apart that came under the same idempotency key: the first 8 bytes of a SHA-256 over the sizes and bytes of
  /// key and data, so that nobody can make two that look the same.
  static func fingerprint(key: UnsafeRawBufferPointer?, value: UnsafeRawBufferPointer?) -> UInt64 {
    var hash = SHA256()
    withUnsafeBytes(of: Int64(key?.count ?? -1).bigEndian) { hash.update(bufferPointer: $0) }
    if let key { hash.update(bufferPointer: key) }
    if let value { hash.update(bufferPointer: value) }
    return hash.finalize().withUnsafeBytes { UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self)) }
  }
}

/// The header of an event that makes it run once however often it is sent.
enum IdempotencyKey {
  static let header = "idempotency-key"
  /// Bytes.
  static let length = 1...255

  /// The request's name among those of its application: an idempotency key is one event's.
  static func name(event: String, key: UnsafeRawBufferPointer) -> ByteSlice {
    var writer = ByteWriter(capacity: event.utf8.count + 1 + key.count)
    writer.bytes(Array(event.utf8))
    // No event's name has it.
    writer.u8(0)
    writer.bytes(key)
    return writer.finish()
  }

  /// Event and key of a name; nil if it is none.
  static func split(_ name: ByteSlice) -> (event: ByteSlice, key: ByteSlice)? {
    guard let end = name.unsafeBytes.firstIndex(of: 0) else { return nil }
    return (name[0..<end], name[end + 1..<name.count])
  }
}
