/// The notes that go with a committed offset are bytes here and text on Kafka, whose brokers bound its length in
/// characters (4,096 by default). Each byte becomes the character of that number; 0, which C strings cannot hold,
/// becomes U+0100.
enum OffsetMetadata {
  /// UTF-8.
  static func encode(_ bytes: [UInt8]) -> [UInt8] {
    var text: [UInt8] = []
    text.reserveCapacity(bytes.count * 2)
    for byte in bytes {
      let scalar: UInt16 = byte == 0 ? 0x100 : UInt16(byte)
      if scalar < 0x80 {
        text.append(UInt8(scalar))
      } else {
        text.append(0xC0 | UInt8(scalar >> 6))
        text.append(0x80 | UInt8(scalar & 0x3F))
      }
    }
    return text
  }

  /// Text that was not made by `encode` comes out as its UTF-8.
  static func decode(_ text: [UInt8]) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(text.count)
    for scalar in String(decoding: text, as: UTF8.self).unicodeScalars {
      switch scalar.value {
      case 0x100: bytes.append(0)
      case 1...0xFF: bytes.append(UInt8(scalar.value))
      default: return text
      }
    }
    return bytes
  }
}
