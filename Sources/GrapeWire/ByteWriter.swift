/// Appends big-endian integers, strings and bytes to memory that grows as needed.
public struct ByteWriter: ~Copyable {
  private var storage: ByteStorage
  /// Bytes written so far.
  public private(set) var count = 0

  /// Starts with room for `capacity` bytes.
  public init(capacity: Int = 256) { storage = ByteStorage(capacity: max(capacity, 16)) }

  /// Makes room for `extra` more bytes. Amortised O(1) per byte.
  @inline(__always)
  public mutating func reserve(_ extra: Int) {
    if count + extra > storage.capacity { grow(extra) }
  }

  @inline(never)
  private mutating func grow(_ extra: Int) {
    let larger = ByteStorage(capacity: max(storage.capacity * 2, count + extra))
    larger.base.copyMemory(from: storage.base, byteCount: count)
    storage = larger
  }

  @inline(__always)
  private mutating func put<Value: FixedWidthInteger>(_ value: Value) {
    reserve(MemoryLayout<Value>.size)
    (storage.base + count).storeBytes(of: value.bigEndian, as: Value.self)
    count += MemoryLayout<Value>.size
  }

  public mutating func u8(_ value: UInt8) { put(value) }
  public mutating func u16(_ value: UInt16) { put(value) }
  public mutating func u32(_ value: UInt32) { put(value) }
  public mutating func u64(_ value: UInt64) { put(value) }
  public mutating func i32(_ value: Int32) { put(value) }
  public mutating func i64(_ value: Int64) { put(value) }

  /// Copies `bytes`.
  @inline(__always)
  public mutating func bytes(_ bytes: UnsafeRawBufferPointer) {
    guard let source = bytes.baseAddress, bytes.count > 0 else { return }
    reserve(bytes.count)
    (storage.base + count).copyMemory(from: source, byteCount: bytes.count)
    count += bytes.count
  }

  /// Copies `bytes`.
  public mutating func bytes(_ bytes: [UInt8]) { bytes.withUnsafeBytes { self.bytes($0) } }

  /// `str16`. Longer text than 65,535 bytes is cut at that length, on a character's boundary.
  public mutating func string16(_ text: String) {
    var text = text
    if text.utf8.count > 65_535 { text = text.prefix(utf8Bytes: 65_535) }
    text.withUTF8 {
      u16(UInt16($0.count))
      bytes(UnsafeRawBufferPointer($0))
    }
  }

  /// `bytes32`; nil is null.
  public mutating func bytes32(_ value: UnsafeRawBufferPointer?) {
    guard let value else { return i32(-1) }
    i32(Int32(value.count))
    bytes(value)
  }

  /// Zigzag varint.
  @inline(__always)
  public mutating func varint(_ value: Int64) {
    reserve(10)
    var rest = UInt64(bitPattern: (value << 1) ^ (value >> 63))
    while rest >= 0x80 {
      (storage.base + count).storeBytes(of: UInt8(truncatingIfNeeded: rest) | 0x80, as: UInt8.self)
      count += 1
      rest >>= 7
    }
    (storage.base + count).storeBytes(of: UInt8(rest), as: UInt8.self)
    count += 1
  }

  /// Where the next byte goes, with room for `size` bytes behind it: for writing many small values without
  /// looking at the limits for each. `endAppend` says how many were written.
  @inline(__always)
  mutating func appendPosition(reserving size: Int) -> UnsafeMutableRawPointer {
    reserve(size)
    return storage.base + count
  }

  /// Everything up to `position` was written. Precondition: it lies within what was reserved.
  @inline(__always)
  mutating func endAppend(at position: UnsafeMutableRawPointer) {
    count = position - storage.base
    assert(count <= storage.capacity)
  }

  /// Overwrites an integer written earlier, at byte `offset`. Precondition: it lies within what was written.
  public mutating func patch<Value: FixedWidthInteger>(_ value: Value, at offset: Int) {
    precondition(offset >= 0 && offset + MemoryLayout<Value>.size <= count)
    (storage.base + offset).storeBytes(of: value.bigEndian, as: Value.self)
  }

  /// Leaves out `size` bytes, to be patched later.
  public mutating func skip(_ size: Int) {
    reserve(size)
    (storage.base + count).initializeMemory(as: UInt8.self, repeating: 0, count: size)
    count += size
  }

  /// Forgets everything from byte `length` on. Precondition: `length <= count`.
  public mutating func truncate(to length: Int) {
    precondition(length >= 0 && length <= count)
    count = length
  }

  /// The bytes written so far, valid until the next change.
  @inline(__always)
  public var unsafeBytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: storage.base, count: count) }

  /// Ends the writing; copies nothing.
  public consuming func finish() -> ByteSlice { ByteSlice(storage: storage, offset: 0, count: count) }

  /// Takes what was written and starts anew with fresh memory.
  public mutating func take(nextCapacity: Int) -> ByteSlice {
    let slice = ByteSlice(storage: storage, offset: 0, count: count)
    storage = ByteStorage(capacity: nextCapacity)
    count = 0
    return slice
  }

  /// Forgets everything and starts anew: in the same memory if its size is in `capacities`, else in fresh memory of the
  /// least of them.
  mutating func restart(_ capacities: ClosedRange<Int>) {
    if !capacities.contains(storage.capacity) { storage = ByteStorage(capacity: capacities.lowerBound) }
    count = 0
  }
}

/// Number of bytes `value` takes as a zigzag varint.
@inlinable
public func varintSize(_ value: Int64) -> Int {
  let zigzag = UInt64(bitPattern: (value << 1) ^ (value >> 63))
  return (70 - (zigzag | 1).leadingZeroBitCount) / 7
}

extension String {
  /// The longest prefix of whole characters within `limit` bytes of UTF-8.
  func prefix(utf8Bytes limit: Int) -> String {
    var bytes = 0
    var end = startIndex
    for index in indices {
      bytes += self[index].utf8.count
      if bytes > limit { break }
      end = self.index(after: index)
    }
    return String(self[..<end])
  }
}
