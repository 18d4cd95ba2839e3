internal import CGrapeLinux

/// CRC-32C (Castagnoli), the checksum of record batches and commit groups.
public enum CRC32C {
  /// Checksum of `bytes`, continued from `initial` (0 to begin). O(n), about 10 to 30 GB/s with hardware support.
  public static func checksum(_ bytes: UnsafeRawBufferPointer, continuing initial: UInt32 = 0) -> UInt32 {
    guard let base = bytes.baseAddress else { return initial }
    return grape_crc32c(initial, base, bytes.count)
  }

  /// The same without the processor's CRC instruction.
  public static func portableChecksum(_ bytes: UnsafeRawBufferPointer, continuing initial: UInt32 = 0) -> UInt32 {
    guard let base = bytes.baseAddress else { return initial }
    return grape_crc32c_portable(initial, base, bytes.count)
  }
}
