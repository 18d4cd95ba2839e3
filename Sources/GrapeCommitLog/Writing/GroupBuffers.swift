import GrapeWire

/// Memory that groups are serialised into. Small groups share a block; blocks that nobody reads any more are used
/// again, so that a steady flow of commits allocates nothing.
struct GroupBuffers {
  private static let blockBytes = 1 << 20
  private static let spareLimit = 4

  private var current: ByteStorage?
  private var used = 0
  private var spare: [ByteStorage] = []

  /// Room for `count` bytes, aligned to 8.
  mutating func reserve(_ count: Int) -> (storage: ByteStorage, offset: Int) {
    if let current, used + count <= current.capacity { return (current, used) }
    let block =
      takeSpare(count) ?? ByteStorage(capacity: (max(count, 1) + Self.blockBytes - 1) & ~(Self.blockBytes - 1))
    current = block
    used = 0
    return (block, 0)
  }

  /// Keeps the first `count` bytes of what was reserved last.
  mutating func commit(_ count: Int) { used += count }

  /// The next group begins a block of its own: its position does not follow the last one's.
  mutating func breakRun() { current = nil }

  /// Takes back blocks that the cache dropped, as far as no reader holds them.
  mutating func recycle(_ dropped: consuming [ByteStorage]) {
    while var block = dropped.popLast() {
      guard isKnownUniquelyReferenced(&block), spare.count < Self.spareLimit else { continue }
      spare.append(block)
    }
  }

  private mutating func takeSpare(_ count: Int) -> ByteStorage? {
    // Not one that is much too large: it would stay in the cache for little.
    guard let place = spare.firstIndex(where: { $0.capacity >= count && $0.capacity <= 2 * count + Self.blockBytes })
    else { return nil }
    return spare.remove(at: place)
  }
}
