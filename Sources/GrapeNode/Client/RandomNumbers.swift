internal import Glibc

/// Numbers that nobody can foretell, from the kernel, many at a time: a system call for each would be felt.
struct RandomNumbers {
  private static let count = 64
  private var numbers: [UInt64] = []

  mutating func next() -> UInt64 {
    if numbers.isEmpty { refill() }
    return numbers.removeLast()
  }

  private mutating func refill() {
    numbers = [UInt64](unsafeUninitializedCapacity: Self.count) { buffer, initialized in
      let bytes = UnsafeMutableRawBufferPointer(buffer)
      // At most 256 bytes at a time.
      for start in stride(from: 0, to: bytes.count, by: 256) {
        let result = getentropy(bytes.baseAddress! + start, 256)
        precondition(result == 0, "getentropy: \(String(cString: strerror(errno)))")
      }
      initialized = Self.count
    }
  }
}
