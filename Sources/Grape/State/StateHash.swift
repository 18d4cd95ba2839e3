/// Hashes of keys. The seed is the process's own: keys come from outside, and must not be made to collide.
enum StateHash {
  private static let seed = UInt64.random(in: .min ... .max)
  private static let odd: UInt64 = 0x9e37_79b9_7f4a_7c15

  /// Where the hashing of `bytes` begins; made once.
  static let start = mix(seed, odd)

  /// A hash of `bytes`, 8 at a time.
  @inline(__always)
  static func hash(_ bytes: UnsafeRawBufferPointer, start: UInt64) -> UInt64 {
    var hash = start ^ UInt64(truncatingIfNeeded: bytes.count)
    guard let base = bytes.baseAddress else { return hash }
    var position = 0
    while position &+ 8 <= bytes.count {
      hash = mix(hash ^ (base + position).loadUnaligned(as: UInt64.self), odd)
      position &+= 8
    }
    let rest = bytes.count &- position
    if rest > 0 {
      var last: UInt64 = 0
      if bytes.count >= 8 {
        last = (base + bytes.count - 8).loadUnaligned(as: UInt64.self)
      } else {
        for index in 0..<rest { last = last << 8 | UInt64((base + index).load(as: UInt8.self)) }
      }
      hash = mix(hash ^ last, odd)
    }
    return mix(hash, start | 1)
  }

  /// Both halves of a product of 128 bits in one.
  @inline(__always)
  private static func mix(_ left: UInt64, _ right: UInt64) -> UInt64 {
    let product = left.multipliedFullWidth(by: right)
    return product.high ^ product.low
  }
}
