public import GrapeWire

/// Bytes as text, by RFC 4648.
public enum Base64 {
  /// The bytes that base64 stands for; nil if it is none. Padding must be there.
  public static func bytes(_ text: String) -> ByteSlice? {
    var text = text
    return text.withUTF8 { text -> ByteSlice? in
      guard text.count % 4 == 0 else { return nil }
      let padding = text.last != UInt8(ascii: "=") ? 0 : text[text.count - 2] == UInt8(ascii: "=") ? 2 : 1
      let count = text.count / 4 * 3 - padding
      let storage = ByteStorage(capacity: max(1, text.count / 4 * 3))
      var position = 0
      for group in stride(from: 0, to: text.count, by: 4) {
        var bits: UInt32 = 0
        for index in group..<group + 4 {
          let digit: UInt32
          switch text[index] {
          case 0x41...0x5a: digit = UInt32(text[index]) - 0x41
          case 0x61...0x7a: digit = UInt32(text[index]) - 0x61 + 26
          case 0x30...0x39: digit = UInt32(text[index]) - 0x30 + 52
          case UInt8(ascii: "+"): digit = 62
          case UInt8(ascii: "/"): digit = 63
          case UInt8(ascii: "=") where index >= text.count - padding: digit = 0
          default: return nil
          }
          bits = bits << 6 | digit
        }
        for shift in [16, 8, 0] as [UInt32] {
          storage.base.storeBytes(of: UInt8(truncatingIfNeeded: bits >> shift), toByteOffset: position, as: UInt8.self)
          position += 1
        }
      }
      return ByteSlice(storage: storage, offset: 0, count: count)
    }
  }
}
