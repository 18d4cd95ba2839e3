internal import GrapeWire

/// Cuts a stream of bytes into frames. Bodies are slices of the receive buffer: nothing is copied unless a frame straddles two buffers.
struct FrameAssembler: ~Copyable {
  private static let bufferSize = 256 * 1024
  /// Space below which it is better to begin a new buffer than to read into the old one.
  private static let leastRoom = 4096

  private var storage = ByteStorage(capacity: Self.bufferSize)
  private var start = 0
  private var end = 0
  /// Largest frame taken, in bytes: raised when WELCOME tells the node's.
  var limit = FrameHeader.openingLimit

  /// Room for the next bytes of the stream, valid until the next call of any method.
  mutating func room() -> UnsafeMutableRawBufferPointer {
    if start == end, isKnownUniquelyReferenced(&storage) {
      start = 0
      end = 0
    }
    let wanted = max(pendingSize - (end - start), Self.leastRoom)
    if storage.capacity - end < wanted {
      let fresh = ByteStorage(capacity: max(Self.bufferSize, end - start + wanted))
      fresh.base.copyMemory(from: storage.base + start, byteCount: end - start)
      storage = fresh
      end -= start
      start = 0
    }
    return UnsafeMutableRawBufferPointer(start: storage.base + end, count: storage.capacity - end)
  }

  /// Size of the frame that has begun to come, as far as it is known.
  private var pendingSize: Int {
    guard end - start >= 4 else { return FrameHeader.size }
    let length = Int(UInt32(bigEndian: (storage.base + start).loadUnaligned(as: UInt32.self)))
    return min(length + 4, limit)
  }

  /// Tells that `count` bytes were written into the room.
  mutating func received(_ count: Int) {
    end += count
    precondition(end <= storage.capacity)
  }

  /// The next whole frame; nil if more bytes are needed.
  mutating func next() throws(WireError) -> ReceivedFrame? {
    let bytes = UnsafeRawBufferPointer(start: storage.base + start, count: end - start)
    guard let header = try FrameHeader(bytes, limit: limit), bytes.count >= FrameHeader.size + header.bodySize else {
      return nil
    }
    let body = ByteSlice(storage: storage, offset: start + FrameHeader.size, count: header.bodySize)
    start += FrameHeader.size + header.bodySize
    return ReceivedFrame(type: header.type, flags: header.flags, id: header.id, body: body)
  }
}
