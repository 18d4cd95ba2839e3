/// Which partition a key belongs to: Kafka's default partitioner, so that other Kafka clients agree with us.
public enum Partitioner {
  /// Partition of `key` among `partitions`. O(key length). Precondition: `partitions > 0`.
  @inlinable
  public static func partition(forKey key: UnsafeRawBufferPointer, of partitions: Int32) -> Int32 {
    Int32(bitPattern: murmur2(key) & 0x7fff_ffff) % partitions
  }

  /// MurmurHash2, 32 bits, by Austin Appleby, with the seed that Kafka uses.
  @inlinable
  public static func murmur2(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
    let multiplier: UInt32 = 0x5bd1_e995
    var hash: UInt32 = 0x9747_b28c ^ UInt32(truncatingIfNeeded: bytes.count)
    var position = 0
    while position + 4 <= bytes.count {
      var word = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: position, as: UInt32.self))
      word &*= multiplier
      word ^= word >> 24
      word &*= multiplier
      hash &*= multiplier
      hash ^= word
      position += 4
    }
    let rest = bytes.count - position
    if rest >= 3 { hash ^= UInt32(bytes[position + 2]) << 16 }
    if rest >= 2 { hash ^= UInt32(bytes[position + 1]) << 8 }
    if rest >= 1 {
      hash ^= UInt32(bytes[position])
      hash &*= multiplier
    }
    hash ^= hash >> 13
    hash &*= multiplier
    hash ^= hash >> 15
    return hash
  }
}
