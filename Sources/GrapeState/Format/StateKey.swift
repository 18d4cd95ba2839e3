internal import Glibc
public import GrapeWire

/// The bounds of what can be stored (docs/protocol.md, State).
public enum StateLimits {
  /// Bytes of a key, 1 to this.
  public static let key = 480
  /// Bytes of a store's name.
  public static let storeName = 30
  /// Bytes of a value.
  public static let value = 64 * 1024 * 1024
  /// Tags of an entry.
  public static let tags = 16
  /// Bytes of a tag, 1 to this.
  public static let tag = 63
  /// Bytes of a full key at most: what LMDB takes.
  public static let fullKey = 1 + storeName + key
}

/// A store's name and a key in it, as one string of bytes: the length of the name, the name, the key. Entries of a store lie together, in
/// order of their keys.
public struct StateKey: Hashable, Sendable, Comparable, CustomStringConvertible {
  /// The full key.
  public let bytes: ByteSlice

  /// A key of a store. `invalidArgument` or `tooLarge` for what is not allowed.
  public init(store: String = "", _ key: UnsafeRawBufferPointer) throws(StateError) {
    try StateKey.check(store: store)
    try StateKey.check(key)
    var writer = ByteWriter(capacity: 1 + store.utf8.count + key.count)
    StateKey.writePrefix(store, to: &writer)
    writer.bytes(key)
    bytes = writer.finish()
  }

  /// A key of a store.
  public init(store: String = "", _ key: [UInt8]) throws(StateError) {
    let key = ByteSlice(key)
    self = try key.withUnsafeBytes { (bytes) throws(StateError) in try StateKey(store: store, bytes) }
  }

  /// A full key as it came; `corrupt` if it is none.
  public init(full bytes: ByteSlice) throws(StateError) {
    _ = try StateKey.split(bytes.unsafeBytes)
    self.bytes = bytes
  }

  /// The store's name.
  public var store: String {
    bytes.withUnsafeBytes { String(decoding: $0[1..<1 + Int($0[0])], as: UTF8.self) }
  }

  /// The key in the store.
  public var key: ByteSlice { bytes[prefixCount..<bytes.count] }

  private var prefixCount: Int { 1 + Int(bytes.unsafeBytes[0]) }

  public static func < (left: StateKey, right: StateKey) -> Bool {
    precedes(left.bytes.unsafeBytes, right.bytes.unsafeBytes)
  }

  public var description: String {
    let name = store.isEmpty ? "" : "\(store)/"
    return name + readable(key.unsafeBytes)
  }

  /// `invalidArgument` unless it is empty (the default store) or `[a-z][a-z0-9-]{0,29}`.
  public static func check(store: String) throws(StateError) {
    let bytes = store.utf8
    guard let first = bytes.first else { return }
    let isLegal =
      bytes.count <= StateLimits.storeName && (0x61...0x7a).contains(first)
      && bytes.allSatisfy { (0x61...0x7a).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2d }
    guard isLegal else {
      throw StateError(
        .invalidArgument, "\"\(store)\" is no store's name: a small letter, then up to 29 of a-z, 0-9 and -")
    }
  }

  /// `invalidArgument` or `tooLarge` unless the key has 1 to 480 bytes.
  public static func check(_ key: UnsafeRawBufferPointer) throws(StateError) {
    guard !key.isEmpty else {
      throw StateError(.invalidArgument, "the key is empty: 1 to \(StateLimits.key) bytes are legal")
    }
    guard key.count <= StateLimits.key else {
      throw StateError(.tooLarge, "the key \(readable(key)) has \(key.count) bytes, \(StateLimits.key) are allowed")
    }
  }

  /// Where the key begins in a full key. `corrupt` if it is none.
  public static func split(_ full: UnsafeRawBufferPointer) throws(StateError) -> Int {
    guard let length = full.first.map(Int.init), full.count > 1 + length, full.count <= 1 + length + StateLimits.key,
      let name = String(validating: full[1..<1 + length], as: UTF8.self)
    else {
      throw StateError(.corrupt, "\(readable(full)) is no full key: the length of the store's name, the name, a key")
    }
    try check(store: name)
    return 1 + length
  }

  /// Writes what all full keys of a store begin with.
  public static func writePrefix(_ store: String, to writer: inout ByteWriter) {
    var store = store
    store.withUTF8 {
      writer.u8(UInt8($0.count))
      writer.bytes(UnsafeRawBufferPointer($0))
    }
  }

  /// The full keys of `store` that begin with `prefix`, as a range: first, and the one behind the last.
  public static func range(store: String, prefix: [UInt8] = []) throws(StateError) -> Range<ByteSlice> {
    try check(store: store)
    var writer = ByteWriter(capacity: 64)
    writePrefix(store, to: &writer)
    writer.bytes(prefix)
    let first = writer.finish()
    return first..<successor(of: first)
  }

  /// All full keys there can be: a store's name has at most 30 bytes.
  public static var allStores: Range<ByteSlice> { ByteSlice([0])..<ByteSlice([UInt8(StateLimits.storeName + 1)]) }

  /// The least bytes that are greater than all that begin with `prefix`, which has a byte below 0xff.
  public static func successor(of prefix: ByteSlice) -> ByteSlice {
    var bytes = prefix.array
    while bytes.last == 0xff { bytes.removeLast() }
    precondition(!bytes.isEmpty, "nothing comes behind 0xff")
    bytes[bytes.count - 1] += 1
    return ByteSlice(bytes)
  }
}

/// Bytewise order; a prefix comes before what it begins.
public func precedes(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> Bool {
  guard let leftBase = left.baseAddress, left.count > 0 else { return right.count > 0 }
  guard let rightBase = right.baseAddress, right.count > 0 else { return false }
  let order = memcmp(leftBase, rightBase, min(left.count, right.count))
  return order < 0 || (order == 0 && left.count < right.count)
}

/// Text if it is text, otherwise hexadecimal; shortened.
package func readable(_ bytes: UnsafeRawBufferPointer) -> String {
  let shown = bytes.prefix(40)
  let rest = bytes.count > 40 ? "…" : ""
  if let text = String(validating: shown, as: UTF8.self), !text.unicodeScalars.contains(where: { $0.value < 32 }) {
    return "\"\(text)\(rest)\""
  }
  let digits = Array("0123456789abcdef")
  return "0x" + String(shown.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }) + rest
}
