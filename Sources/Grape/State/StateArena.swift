/// Memory that is given out piece by piece and taken back all at once. Pieces stay where they are.
struct StateArena: ~Copyable {
  private static let chunkSize = 64 * 1024
  /// Most bytes that are kept for later use.
  private static let keptBytes = 1024 * 1024

  private var chunks: [UnsafeMutableRawBufferPointer] = []
  /// Chunks in use.
  private var used = 0
  private var position = UnsafeMutableRawPointer(bitPattern: 8).unsafelyUnwrapped
  private var left = 0

  deinit { for chunk in chunks { chunk.deallocate() } }

  /// `count` bytes, aligned to 8.
  @inline(__always)
  mutating func allocate(_ count: Int) -> UnsafeMutableRawPointer {
    let size = (count &+ 7) & ~7
    if size > left { nextChunk(size) }
    let piece = position
    position += size
    left &-= size
    return piece
  }

  @inline(never)
  private mutating func nextChunk(_ size: Int) {
    // Chunks kept from before are taken as they come; one that is too small is passed over.
    while used < chunks.count {
      let chunk = chunks[used]
      used += 1
      if chunk.count >= size { return open(chunk) }
    }
    let last = chunks.last?.count ?? Self.chunkSize / 2
    let chunk = UnsafeMutableRawBufferPointer.allocate(
      byteCount: max(size, min(2 * last, Self.keptBytes / 2)), alignment: 16)
    chunks.append(chunk)
    used = chunks.count
    open(chunk)
  }

  private mutating func open(_ chunk: UnsafeMutableRawBufferPointer) {
    position = chunk.baseAddress.unsafelyUnwrapped
    left = chunk.count
  }

  /// Takes all pieces back.
  mutating func reset() {
    guard used > 0 else { return }
    if chunks.count == 1 { return open(chunks[0]) }
    var kept = 0
    var bytes = 0
    while kept < chunks.count, bytes + chunks[kept].count <= Self.keptBytes {
      bytes += chunks[kept].count
      kept += 1
    }
    for chunk in chunks[kept...] { chunk.deallocate() }
    chunks.removeSubrange(kept...)
    used = 0
    left = 0
    if !chunks.isEmpty { nextChunk(0) }
  }
}
