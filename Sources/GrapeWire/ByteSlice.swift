internal import Glibc

/// A block of memory with one owner per reference count, freed with the last reference.
///
/// The bytes may be written only while one piece of code holds every reference (a socket filling a buffer, a
/// builder); after that they are read-only by convention, which is what makes sharing between threads sound.
public final class ByteStorage: @unchecked Sendable {
  /// First byte. Aligned to 16.
  public let base: UnsafeMutableRawPointer
  /// Size in bytes.
  public let capacity: Int

  /// Allocates `capacity` uninitialised bytes.
  public init(capacity: Int) {
    self.capacity = capacity
    self.base = UnsafeMutableRawPointer.allocate(byteCount: max(capacity, 16), alignment: 16)
  }

  deinit { base.deallocate() }
}

/// A read-only range of a `ByteStorage`: what batches, keys and values travel as. Copying it copies no bytes.
public struct ByteSlice: Sendable {
  /// The memory the slice lies in.
  public let storage: ByteStorage
  /// Where the slice begins in the storage, in bytes.
  public let offset: Int
  /// Size in bytes.
  public let count: Int

  /// A range of `storage`. Precondition: it lies within.
  @inlinable
  public init(storage: ByteStorage, offset: Int, count: Int) {
    precondition(offset >= 0 && count >= 0 && offset + count <= storage.capacity)
    self.storage = storage
    self.offset = offset
    self.count = count
  }

  /// Copies `bytes` into storage of its own.
  public init(copying bytes: UnsafeRawBufferPointer) {
    storage = ByteStorage(capacity: bytes.count)
    offset = 0
    count = bytes.count
    if let source = bytes.baseAddress, bytes.count > 0 { storage.base.copyMemory(from: source, byteCount: bytes.count) }
  }

  /// Copies `bytes` into storage of its own.
  public init(_ bytes: [UInt8]) {
    self = bytes.withUnsafeBytes { ByteSlice(copying: $0) }
  }

  /// Copies the UTF-8 of `text` into storage of its own.
  public init(_ text: String) {
    var text = text
    self = text.withUTF8 { ByteSlice(copying: UnsafeRawBufferPointer($0)) }
  }

  /// The bytes, valid while the slice (or another of the same storage) is alive.
  @inlinable
  public var unsafeBytes: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: UnsafeRawPointer(storage.base) + offset, count: count)
  }

  /// Calls `body` with the bytes. They must not escape it.
  @inlinable
  public func withUnsafeBytes<Result, Failure: Error>(
    _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try body(unsafeBytes)
  }

  /// A part of the slice, by offsets counted from its beginning. Precondition: it lies within.
  @inlinable
  public subscript(range: Range<Int>) -> ByteSlice {
    precondition(range.lowerBound >= 0 && range.upperBound <= count)
    return ByteSlice(storage: storage, offset: offset + range.lowerBound, count: range.count)
  }

  /// A copy as an array.
  public var array: [UInt8] { [UInt8](unsafeBytes) }

  /// A copy as text; bytes that are not UTF-8 are replaced by U+FFFD.
  public var string: String { String(decoding: unsafeBytes, as: UTF8.self) }
}

extension ByteSlice: Hashable {
  /// Equal bytes, wherever they are stored. O(n).
  public static func == (left: ByteSlice, right: ByteSlice) -> Bool {
    left.count == right.count && (left.count == 0 || memcmp(left.base, right.base, left.count) == 0)
  }

  /// O(n).
  public func hash(into hasher: inout Hasher) { hasher.combine(bytes: unsafeBytes) }

  private var base: UnsafeRawPointer { UnsafeRawPointer(storage.base) + offset }
}

extension ByteSlice: Comparable {
  /// Bytewise order; a prefix comes before what it begins. O(n).
  public static func < (left: ByteSlice, right: ByteSlice) -> Bool {
    let order = memcmp(left.base, right.base, min(left.count, right.count))
    return order < 0 || (order == 0 && left.count < right.count)
  }
}
