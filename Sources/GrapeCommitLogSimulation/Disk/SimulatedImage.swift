/// A file's bytes. What was never written reads as zeros and takes no memory.
final class SimulatedImage {
  private(set) var size = 0
  private var bytes: UnsafeMutableRawPointer?
  private var capacity = 0
  /// Bytes from here to `size` are zeros that are not in memory.
  private var filled = 0

  deinit { bytes?.deallocate() }

  /// `source` nil: zeros.
  func write(_ source: UnsafeRawPointer?, count: Int, at offset: Int) {
    if count == 0 { return }
    size = max(size, offset + count)
    if source == nil && offset >= filled { return }
    reserve(offset + count)
    if offset > filled { (bytes! + filled).initializeMemory(as: UInt8.self, repeating: 0, count: offset - filled) }
    if let source {
      (bytes! + offset).copyMemory(from: source, byteCount: count)
    } else {
      (bytes! + offset).initializeMemory(as: UInt8.self, repeating: 0, count: count)
    }
    filled = max(filled, offset + count)
  }

  /// Returns the number of bytes read: fewer than asked for only at the end.
  func read(into target: UnsafeMutableRawPointer, count: Int, at offset: Int) -> Int {
    let count = min(count, size - offset)
    if count <= 0 { return 0 }
    let real = max(min(count, filled - offset), 0)
    if real > 0 { target.copyMemory(from: bytes! + offset, byteCount: real) }
    if count > real { (target + real).initializeMemory(as: UInt8.self, repeating: 0, count: count - real) }
    return count
  }

  func resize(to size: Int) {
    self.size = size
    filled = min(filled, size)
  }

  /// Where a byte is in memory. Precondition: it was written.
  func address(of offset: Int) -> UnsafeRawPointer {
    precondition(offset < filled)
    return UnsafeRawPointer(bytes! + offset)
  }

  /// Turns one bit over. Precondition: `offset` lies within.
  func flip(bit: Int, at offset: Int) {
    precondition(offset < size)
    var byte: UInt8 = 0
    _ = read(into: &byte, count: 1, at: offset)
    byte ^= 1 << UInt8(bit)
    write(&byte, count: 1, at: offset)
  }

  func become(_ other: SimulatedImage) {
    filled = 0
    if other.filled > 0 {
      reserve(other.filled)
      bytes!.copyMemory(from: other.bytes!, byteCount: other.filled)
      filled = other.filled
    }
    size = other.size
  }

  private func reserve(_ count: Int) {
    if count <= capacity { return }
    let larger = max(count, capacity * 2, 16 << 10)
    let fresh = UnsafeMutableRawPointer.allocate(byteCount: larger, alignment: 16)
    if let bytes {
      fresh.copyMemory(from: bytes, byteCount: filled)
      bytes.deallocate()
    }
    bytes = fresh
    capacity = larger
  }
}
