public import GrapeWire

/// An entry as it is stored: value, expiry, tags (docs/protocol.md, State). A view of bytes that outlive it.
public struct StateEntry {
  /// The whole entry.
  public let bytes: UnsafeRawBufferPointer
  /// Time of day in milliseconds after which it is removed; nil: never.
  public let expiry: Int64?
  /// Where the tags lie: number, then length and bytes of each. Empty without tags.
  let tagBytes: UnsafeRawBufferPointer
  /// The value.
  public let value: UnsafeRawBufferPointer

  /// Reads an entry. `corrupt` if it is none, `unsupported` if it has flags of a later format.
  @inline(__always)
  public init(_ bytes: UnsafeRawBufferPointer) throws(StateError) {
    guard let flags = bytes.first else { throw StateError(.corrupt, "an entry is empty") }
    self.bytes = bytes
    if flags == 0 {
      expiry = nil
      tagBytes = UnsafeRawBufferPointer(start: nil, count: 0)
      value = UnsafeRawBufferPointer(rebasing: bytes[1...])
    } else {
      let parts = try StateEntry.parse(bytes, flags)
      expiry = parts.expiry
      tagBytes = UnsafeRawBufferPointer(rebasing: bytes[parts.tags])
      value = UnsafeRawBufferPointer(rebasing: bytes[parts.tags.upperBound...])
    }
  }

  @inline(never)
  private static func parse(
    _ bytes: UnsafeRawBufferPointer, _ flags: UInt8
  ) throws(StateError) -> (expiry: Int64?, tags: Range<Int>) {
    guard flags & ~3 == 0 else {
      throw StateError(.unsupported, "an entry has flags \(flags): this program knows 0 to 3")
    }
    var reader = ByteReader(bytes)
    do throws(WireError) {
      _ = try reader.u8()
      let expiry = flags & 1 != 0 ? try reader.i64() : nil
      let start = reader.position
      if flags & 2 != 0 {
        let count = Int(try reader.u8())
        guard (1...StateLimits.tags).contains(count) else {
          throw WireError(.malformed, "\(count) tags: 1 to \(StateLimits.tags) are legal")
        }
        var previous = UnsafeRawBufferPointer(start: nil, count: 0)
        for _ in 0..<count {
          let length = Int(try reader.u8())
          let tag = try reader.bytes(length)
          guard (1...StateLimits.tag).contains(length), precedes(previous, tag),
            String(validating: tag, as: UTF8.self) != nil
          else { throw WireError(.malformed, "tags are 1 to \(StateLimits.tag) bytes of UTF-8, ascending") }
          previous = tag
        }
      }
      return (expiry, start..<reader.position)
    } catch {
      throw StateError(.corrupt, "an entry is malformed: \(error.message)")
    }
  }

  /// The tags, ascending.
  public var tags: [String] {
    var tags: [String] = []
    forEachTag { tags.append(String(decoding: $0, as: UTF8.self)) }
    return tags
  }

  /// Calls `body` with each tag, ascending.
  public func forEachTag<Failure: Error>(_ body: (UnsafeRawBufferPointer) throws(Failure) -> Void) throws(Failure) {
    guard !tagBytes.isEmpty else { return }
    var at = 1
    for _ in 0..<tagBytes[0] {
      let length = Int(tagBytes[at])
      try body(UnsafeRawBufferPointer(rebasing: tagBytes[at + 1..<at + 1 + length]))
      at += 1 + length
    }
  }

  public var hasTags: Bool { !tagBytes.isEmpty }

  /// Whether it has all of `wanted`.
  public func hasTags(_ wanted: [String]) -> Bool {
    let own = Set(tags)
    return wanted.allSatisfy(own.contains)
  }

  /// Writes an entry. `tags` are sorted, and each is taken once; `invalidArgument` or `tooLarge` for what is not allowed.
  public static func write(
    value: UnsafeRawBufferPointer, expiry: Int64? = nil, tags: [String] = [], to writer: inout ByteWriter
  ) throws(StateError) {
    try check(value: value.count)
    writer.reserve(value.count + 16)
    guard expiry != nil || !tags.isEmpty else {
      writer.u8(0)
      return writer.bytes(value)
    }
    let tags = try checked(tags)
    writer.u8((expiry == nil ? 0 : 1) | (tags.isEmpty ? 0 : 2))
    if let expiry { writer.i64(expiry) }
    if !tags.isEmpty {
      writer.u8(UInt8(tags.count))
      for tag in tags {
        writer.u8(UInt8(tag.utf8.count))
        writer.bytes(Array(tag.utf8))
      }
    }
    writer.bytes(value)
  }

  /// An entry in memory of its own.
  public static func encoded(
    _ value: [UInt8], expiry: Int64? = nil, tags: [String] = []
  ) throws(StateError) -> ByteSlice {
    var writer = ByteWriter(capacity: value.count + 32)
    let value = ByteSlice(value)
    try write(value: value.unsafeBytes, expiry: expiry, tags: tags, to: &writer)
    withExtendedLifetime(value) {}
    return writer.finish()
  }

  /// `tooLarge` for a value of more than 64 MiB.
  public static func check(value count: Int) throws(StateError) {
    guard count <= StateLimits.value else {
      throw StateError(.tooLarge, "the value has \(count) bytes, \(StateLimits.value) are allowed")
    }
  }

  /// The tags as they are stored: ascending bytewise, each once.
  public static func checked(_ tags: [String]) throws(StateError) -> [String] {
    if tags.isEmpty { return [] }
    let sorted = Set(tags).sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    guard sorted.count <= StateLimits.tags else {
      throw StateError(.tooLarge, "\(sorted.count) tags, \(StateLimits.tags) are allowed")
    }
    for tag in sorted where !(1...StateLimits.tag).contains(tag.utf8.count) {
      throw StateError(
        .invalidArgument, "the tag \"\(tag)\" has \(tag.utf8.count) bytes of UTF-8, 1 to \(StateLimits.tag) are legal")
    }
    return sorted
  }
}
