import Glibc

/// Searches in bytes, by the C library's vectorised routine.
enum ByteSearch {
  /// Index of the first `byte` at or after `from`; nil if there is none.
  static func first(_ byte: UInt8, in bytes: UnsafeRawBufferPointer, from: Int = 0) -> Int? {
    guard let base = bytes.baseAddress, from < bytes.count else { return nil }
    guard let found = memchr(base + from, Int32(byte), bytes.count - from) else { return nil }
    return UnsafeRawPointer(found) - base
  }
}
