public import GrapeWire

/// An event as a handler gets it.
///
/// Key and value lie in the memory they were received in and are copied by nobody. A handler that keeps them for
/// longer should keep a copy (`array`, `string`, `ByteSlice(copying:)`): a slice keeps the whole delivery alive.
public struct Event: Sendable {
  @usableFromInline let group: EventGroup
  @usableFromInline private(set) var keyOffset: Int
  // -1: null
  @usableFromInline private(set) var keyCount: Int
  @usableFromInline private(set) var valueOffset: Int
  // -1: null
  @usableFromInline private(set) var valueCount: Int
  private var headerOffset: Int
  private var headerCount: Int
  /// Where in its partition the event stands.
  public private(set) var offset: Int64
  /// When the event was made, in milliseconds since 1970 UTC.
  public private(set) var timestamp: Int64

  /// `pointer`s of `record` lie in the group's storage.
  @inline(__always)
  init(_ record: borrowing Record, in group: EventGroup, offset: Int64, timestamp: Int64) {
    self.group = group
    keyOffset = 0
    keyCount = -1
    valueOffset = 0
    valueCount = -1
    headerOffset = 0
    headerCount = 0
    self.offset = 0
    self.timestamp = 0
    move(to: record, offset: offset, timestamp: timestamp)
  }

  /// Makes this the event of another record of the same group.
  @inline(__always)
  mutating func move(to record: borrowing Record, offset: Int64, timestamp: Int64) {
    let base = UnsafeRawPointer(group.storage.base)
    if let key = record.key {
      keyOffset = key.baseAddress.unsafelyUnwrapped - base
      keyCount = key.count
    } else {
      keyOffset = 0
      keyCount = -1
    }
    if let value = record.value {
      valueOffset = value.baseAddress.unsafelyUnwrapped - base
      valueCount = value.count
    } else {
      valueOffset = 0
      valueCount = -1
    }
    headerOffset = record.headerSection.baseAddress.unsafelyUnwrapped - base
    headerCount = record.headerSection.count
    self.offset = offset
    self.timestamp = timestamp
  }

  /// The event's name within the application: that of the slot it is handled by.
  public var name: String { group.name }
  /// The key; nil if the event has none, which differs from an empty one.
  @inlinable public var key: ByteSlice? {
    keyCount < 0 ? nil : ByteSlice(storage: group.storage, offset: keyOffset, count: keyCount)
  }
  /// The data; empty if it is null.
  @inlinable public var value: ByteSlice {
    ByteSlice(storage: group.storage, offset: valueOffset, count: Swift.max(valueCount, 0))
  }
  /// The event has no data at all, which differs from empty data: where the event came from a topic that is not Grape's, it
  /// says that what has this key is gone.
  @inlinable public var isTombstone: Bool { valueCount < 0 }
  /// The data as text; bytes that are not UTF-8 are replaced by U+FFFD.
  public var text: String { value.string }
  /// The partition of the application's input that the event came from.
  public var partition: Int32 { group.partition }
  /// 1 for the first time the event is handed to a worker.
  public var attempt: UInt32 { group.attempt }
  /// Time of day in milliseconds since 1970 UTC after which the event is not started; nil: none.
  public var deadline: Int64? { group.headers.deadline }
  /// Whether a caller waits for a reply.
  public var isAwaited: Bool { group.headers.reply != nil }
  /// W3C trace context; handed on to what is emitted.
  public var traceparent: String? { group.headers.traceparent.map { String(decoding: $0, as: UTF8.self) } }

  /// One header of an event.
  public struct Header: Sendable, Equatable {
    public var name: String
    /// nil is null, which differs from empty.
    public var value: ByteSlice?

    public init(_ name: String, _ value: ByteSlice?) {
      self.name = name
      self.value = value
    }

    public init(_ name: String, _ text: String) { self.init(name, ByteSlice(text)) }
  }

  /// The event's own headers, in order: all but those that begin with `g.` and `traceparent`. Read anew each time, O(bytes).
  public var headers: [Header] {
    let base = UnsafeRawPointer(group.storage.base)
    var reader = RecordHeaders(section: UnsafeRawBufferPointer(start: base + headerOffset, count: headerCount))
    var headers: [Header] = []
    // The section was read once, whole, before the handler began: it cannot fail here.
    while let (name, value) = try? reader.next() {
      guard !EventHeaderNames.isGrapes(name) else { continue }
      let slice = value.map { bytes in
        ByteSlice(
          storage: group.storage, offset: bytes.baseAddress.map { $0 - base } ?? 0, count: bytes.count)
      }
      headers.append(Header(String(decoding: name, as: UTF8.self), slice))
    }
    return headers
  }

  /// The value of the first header of that name; nil if there is none or it is null.
  public func header(_ name: String) -> ByteSlice? { headers.first { $0.name == name }?.value }
}
