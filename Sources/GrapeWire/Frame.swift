/// Types of frames of the client and worker protocol (docs/protocol.md).
public enum FrameType: UInt8, Sendable, CaseIterable {
  case hello = 0x01
  case welcome = 0x02
  case error = 0x03
  case heartbeat = 0x04
  case goodbye = 0x05
  case exec = 0x10
  case ack = 0x11
  case reply = 0x12
  case append = 0x13
  case appended = 0x14
  case fetch = 0x15
  case fetched = 0x16
  case cancel = 0x17
  case request = 0x20
  case response = 0x21
  case deliver = 0x30
  case result = 0x31
  case log = 0x32
  case drain = 0x33
  case state = 0x34
  case stated = 0x35
}

/// The 16 bytes before a frame's body.
public struct FrameHeader: Sendable, Hashable {
  public static let size = 16
  /// Limit on a frame before WELCOME, in bytes.
  public static let openingLimit = 65_536
  /// Limit on a frame after WELCOME unless configured, in bytes.
  public static let defaultLimit = 64 * 1024 * 1024 + 65_536

  public var type: FrameType
  public var flags: UInt8
  public var id: UInt64
  /// Bytes of the body.
  public var bodySize: Int

  public init(type: FrameType, flags: UInt8 = 0, id: UInt64, bodySize: Int) {
    self.type = type
    self.flags = flags
    self.id = id
    self.bodySize = bodySize
  }

  /// Reads a header; nil if fewer than 16 bytes are there. Throws on a length outside the limits or an unknown type, as soon as
  /// the bytes that show it are there.
  public init?(_ bytes: UnsafeRawBufferPointer, limit: Int) throws(WireError) {
    guard bytes.count >= 4 else { return nil }
    let length = Int(UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self)))
    guard length >= 12 else { throw WireError(.malformed, "frame length \(length): at least 12 is legal") }
    guard length + 4 <= limit else {
      throw WireError(.tooLarge, "a frame of \(length + 4) bytes; \(limit) are allowed")
    }
    guard bytes.count >= FrameHeader.size else { return nil }
    guard let type = FrameType(rawValue: bytes[4]) else {
      throw WireError(.malformed, "unknown frame type 0x\(String(bytes[4], radix: 16))")
    }
    guard bytes[6] == 0, bytes[7] == 0 else { throw WireError(.malformed, "the reserved bytes of the frame are not 0") }
    self.type = type
    flags = bytes[5]
    id = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
    bodySize = length - 12
  }

  /// Writes the header.
  public func write(to writer: inout ByteWriter) {
    writer.u32(UInt32(12 + bodySize))
    writer.u8(type.rawValue)
    writer.u8(flags)
    writer.u16(0)
    writer.u64(id)
  }
}

extension ByteWriter {
  /// Begins a frame whose size is not known yet; `endFrame` fills it in.
  public mutating func beginFrame(_ type: FrameType, flags: UInt8 = 0, id: UInt64) -> Int {
    let start = count
    FrameHeader(type: type, flags: flags, id: id, bodySize: 0).write(to: &self)
    return start
  }

  /// Ends the frame begun at `start`.
  public mutating func endFrame(_ start: Int) { patch(UInt32(count - start - 4), at: start) }
}
