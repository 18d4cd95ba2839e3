/// Memory that is filled, read in place, and filled again: no reference counting or bounds checks per byte.
final class ScratchBytes {
  private var base: UnsafeMutableRawPointer
  private var capacity = 4096
  private(set) var count = 0

  init() { base = .allocate(byteCount: capacity, alignment: 16) }

  deinit { base.deallocate() }

  /// All bytes, valid until the next change.
  var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: count) }

  /// The bytes from `begin` to before `end`, valid until the next change.
  subscript(begin: Int, end: Int) -> UnsafeRawBufferPointer {
    precondition(begin >= 0 && begin <= end && end <= count)
    return UnsafeRawBufferPointer(start: base + begin, count: end - begin)
  }

  func removeAll() { count = 0 }

  func append(_ byte: UInt8) {
    if count == capacity { grow(1) }
    base.storeBytes(of: byte, toByteOffset: count, as: UInt8.self)
    count += 1
  }

  func append(_ bytes: UnsafeRawBufferPointer) {
    guard let source = bytes.baseAddress, bytes.count > 0 else { return }
    if capacity - count < bytes.count { grow(bytes.count) }
    (base + count).copyMemory(from: source, byteCount: bytes.count)
    count += bytes.count
  }

  private func grow(_ extra: Int) {
    capacity = max(capacity * 2, count + extra)
    let larger = UnsafeMutableRawPointer.allocate(byteCount: capacity, alignment: 16)
    larger.copyMemory(from: base, byteCount: count)
    base.deallocate()
    base = larger
  }
}
