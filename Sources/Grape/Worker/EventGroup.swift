internal import GrapeCore
internal import GrapeWire

/// What consecutive events of one batch have in common: made once, shared by all whose header bytes are equal.
@usableFromInline
final class EventGroup: Sendable {
  /// The memory that keys, values and headers lie in.
  @usableFromInline let storage: ByteStorage
  let headers: OriginHeaders
  let name: String
  /// nil: the application has no such slot.
  let slot: Slot?
  let partition: Int32
  let attempt: UInt32

  init(
    storage: ByteStorage, headers: OriginHeaders, name: String, slot: Slot?, partition: Int32, attempt: UInt32
  ) {
    self.storage = storage
    self.headers = headers
    self.name = name
    self.slot = slot
    self.partition = partition
    self.attempt = attempt
  }
}

/// Grape's headers of an event being handled, as far as they bear on what is emitted while it is.
struct OriginHeaders: Sendable {
  var deadline: Int64?
  var hops: UInt8
  var reply: ReplyTarget?
  var traceparent: [UInt8]?

  init(_ headers: EventHeaders) throws(WireError) {
    deadline = headers.deadline
    hops = headers.hops
    if let address = headers.replyAddress {
      reply = ReplyTarget(encoded: [UInt8](address), address: try ReplyAddress(address))
    }
    traceparent = headers.traceparent.map { [UInt8]($0) }
  }

  /// Nothing but the hops is handed on, so that the headers of what is emitted are the same for many events.
  var isPlain: Bool { deadline == nil && reply == nil && traceparent == nil }
}

/// Where the answer goes.
struct ReplyTarget: Sendable {
  /// The header's value, to be handed on as it came.
  var encoded: [UInt8]
  var address: ReplyAddress
}

enum EventHeaderNames {
  /// Whether the header is no business of the application's.
  static func isGrapes(_ name: UnsafeRawBufferPointer) -> Bool {
    HeaderName.isReserved(name) || isTraceparent(name)
  }

  static func isTraceparent(_ name: UnsafeRawBufferPointer) -> Bool {
    name.count == HeaderName.traceparent.utf8CodeUnitCount && name.elementsEqual("traceparent".utf8)
  }
}
