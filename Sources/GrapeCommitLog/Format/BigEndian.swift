// All integers of the log's files are big-endian.

extension UnsafeRawBufferPointer {
  func bigEndian<Value: FixedWidthInteger>(at offset: Int, as type: Value.Type = Value.self) -> Value {
    Value(bigEndian: loadUnaligned(fromByteOffset: offset, as: Value.self))
  }

  func part(_ offset: Int, _ count: Int) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: self[offset..<offset + count])
  }

  /// True if every byte is zero.
  var isZero: Bool {
    var place = 0
    while place + 8 <= count {
      if loadUnaligned(fromByteOffset: place, as: UInt64.self) != 0 { return false }
      place += 8
    }
    while place < count {
      if self[place] != 0 { return false }
      place += 1
    }
    return true
  }
}

extension UnsafeMutableRawPointer {
  func store<Value: FixedWidthInteger>(bigEndian value: Value, at offset: Int) {
    storeBytes(of: value.bigEndian, toByteOffset: offset, as: Value.self)
  }
}

/// `value` rounded up to a multiple of 8, the alignment of commit groups.
func aligned(_ value: Int) -> Int { (value + 7) & ~7 }
