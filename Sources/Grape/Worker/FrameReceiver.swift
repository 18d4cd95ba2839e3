internal import GrapeWire
internal import Glibc

/// Reads frames from the node's socket into memory that their bodies stay in.
struct FrameReceiver: ~Copyable {
  enum Outcome {
    case received
    /// Nothing is there now.
    case wouldBlock
    /// The node has closed the connection, or it broke.
    case closed
  }

  struct Frame {
    var header: FrameHeader
    var body: ByteSlice
  }

  /// Room for several deliveries of the usual size, so that they come with few system calls.
  private static let usualCapacity = 1024 * 1024

  private let descriptor: Int32
  private var storage = ByteStorage(capacity: 65_536)
  /// Bytes before it were handed out.
  private var begin = 0
  /// Bytes up to it have come.
  private var end = 0
  /// Largest frame that is taken.
  var limit = FrameHeader.openingLimit

  init(descriptor: Int32) { self.descriptor = descriptor }

  /// Takes what the socket holds, without waiting, as far as there is room.
  mutating func receive() -> Outcome {
    makeRoom()
    while true {
      let count = recv(descriptor, storage.base + end, storage.capacity - end, Int32(MSG_DONTWAIT))
      if count > 0 {
        end += count
        return .received
      }
      if count == 0 { return .closed }
      switch errno {
      case EINTR: continue
      case EAGAIN: return .wouldBlock
      default: return .closed
      }
    }
  }

  /// The next whole frame; nil if it is not there yet.
  mutating func next() throws(WireError) -> Frame? {
    let bytes = UnsafeRawBufferPointer(start: storage.base + begin, count: end - begin)
    guard let header = try FrameHeader(bytes, limit: limit) else { return nil }
    let size = FrameHeader.size + header.bodySize
    guard bytes.count >= size else { return nil }
    let body = ByteSlice(storage: storage, offset: begin + FrameHeader.size, count: header.bodySize)
    begin += size
    return Frame(header: header, body: body)
  }

  /// Makes sure that at least a part of the frame that is coming fits behind `end`.
  private mutating func makeRoom() {
    let pending = end - begin
    var needed = FrameHeader.size
    if pending >= 4 {
      // A length beyond the limit is refused by `next`; it must not size memory here.
      let length = Int(UInt32(bigEndian: (storage.base + begin).loadUnaligned(as: UInt32.self)))
      needed = max(needed, min(length + 4, limit))
    }
    let isOurs = isKnownUniquelyReferenced(&storage)
    if pending == 0, isOurs, storage.capacity >= Self.usualCapacity {
      // One great frame is no reason to keep as much for ever.
      if storage.capacity > 4 * Self.usualCapacity { storage = ByteStorage(capacity: Self.usualCapacity) }
      begin = 0
      end = 0
      return
    }
    // Short of room only once the rest of the frame does not fit: what was received is moved as seldom as can be.
    if begin + needed <= storage.capacity, storage.capacity - end >= min(needed - pending, 4096), end < storage.capacity
    {
      return
    }
    if isOurs, storage.capacity >= max(needed, Self.usualCapacity), begin > 0 {
      storage.base.copyMemory(from: storage.base + begin, byteCount: pending)
    } else {
      let larger = ByteStorage(capacity: max(needed, limit > Self.usualCapacity ? Self.usualCapacity : limit))
      larger.base.copyMemory(from: storage.base + begin, byteCount: pending)
      storage = larger
    }
    begin = 0
    end = pending
  }
}
