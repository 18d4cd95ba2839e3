private import GrapeCore

/// A header block of a tar archive: ustar (POSIX 1003.1-1988), and what GNU tar and pax put in its place.
struct TarHeader {
  static let blockSize = 512

  var name: String
  var mode: Int64
  var size: Int64
  var type: UInt8
  var linkName: String

  /// Nil for a block of zeros, which ends an archive.
  init?(_ block: UnsafeRawBufferPointer, number: Int) throws(PackageError) {
    if block.allSatisfy({ $0 == 0 }) { return nil }
    let place = "entry \(number) of the archive"
    guard let stored = Self.octal(block[148..<156]), stored == Self.checksum(block) else {
      if number == 1 {
        throw PackageError(.notAnArchive, "this is no tar archive, neither plain nor compressed with gzip or zstd")
      }
      throw PackageError(.damaged, "\(place) has a wrong checksum: the archive is damaged")
    }
    guard let size = Self.number(block[124..<136]), let mode = Self.number(block[100..<108]) else {
      throw PackageError(.damaged, "\(place) has a size or mode that is no number: the archive is damaged")
    }
    self.size = size
    self.mode = mode
    type = block[156]
    let isUstar = block[257..<263].elementsEqual([0x75, 0x73, 0x74, 0x61, 0x72, 0])
    guard var name = Self.text(block[0..<100]), let linkName = Self.text(block[157..<257]),
      let prefix = Self.text(isUstar ? block[345..<500] : block[0..<0])
    else { throw PackageError(.unsafePath, "\(place) has a name that is not UTF-8") }
    if !prefix.isEmpty { name = prefix + "/" + name }
    self.name = name
    self.linkName = linkName
  }

  /// Sum of the block's bytes, its own field counted as spaces.
  static func checksum(_ block: UnsafeRawBufferPointer) -> Int64 {
    var sum: Int64 = 0
    for (index, byte) in block.enumerated() { sum += 148..<156 ~= index ? 0x20 : Int64(byte) }
    return sum
  }

  /// Text up to the first zero.
  private static func text(_ field: Slice<UnsafeRawBufferPointer>) -> String? {
    String(validating: field.prefix { $0 != 0 }, as: UTF8.self)
  }

  /// Octal digits, or the binary form that GNU tar uses for what does not fit; nil if neither or negative.
  private static func number(_ field: Slice<UnsafeRawBufferPointer>) -> Int64? {
    guard let first = field.first, first & 0x80 != 0 else { return octal(field) }
    var value = Int64(first & 0x7f)
    guard first & 0x40 == 0 else { return nil }
    for byte in field.dropFirst() {
      guard value < 1 << 54 else { return nil }
      value = value << 8 | Int64(byte)
    }
    return value
  }

  /// Octal digits between spaces and zeros; an empty field is 0.
  private static func octal(_ field: Slice<UnsafeRawBufferPointer>) -> Int64? {
    var value: Int64 = 0
    var isDone = false
    var hasDigit = false
    for byte in field {
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "7"):
        guard !isDone else { return nil }
        value = value << 3 | Int64(byte & 7)
        hasDigit = true
      case UInt8(ascii: " "), 0: if hasDigit { isDone = true }
      default: return nil
      }
    }
    return value
  }
}

/// Records of a pax extended header: `LENGTH key=value\n`.
struct PaxRecords {
  var path: String?
  var linkPath: String?
  var size: Int64?

  init(_ bytes: [UInt8]) throws(PackageError) {
    let damaged = PackageError(.damaged, "an extended header of the archive is damaged")
    var rest = bytes[...]
    while !rest.isEmpty {
      guard let space = rest.firstIndex(of: UInt8(ascii: " ")), space - rest.startIndex <= 10,
        let length = Int(String(decoding: rest[..<space], as: UTF8.self)), length > space - rest.startIndex + 1,
        length <= rest.count, rest[rest.startIndex + length - 1] == 0x0a
      else { throw damaged }
      let record = rest[(space + 1)..<(rest.startIndex + length - 1)]
      rest = rest.dropFirst(length)
      guard let equals = record.firstIndex(of: UInt8(ascii: "=")),
        let key = String(validating: record[..<equals], as: UTF8.self)
      else { throw damaged }
      try take(key, record[(equals + 1)...], damaged)
    }
  }

  private mutating func take(_ key: String, _ bytes: ArraySlice<UInt8>, _ damaged: PackageError) throws(PackageError) {
    func text() throws(PackageError) -> String {
      guard let text = String(validating: bytes, as: UTF8.self), !bytes.contains(0) else {
        throw PackageError(.unsafePath, "the archive holds a path that is not UTF-8")
      }
      return text
    }
    switch key {
    case "path": path = try text()
    case "linkpath": linkPath = try text()
    case "size":
      guard let number = Int64(try text()), number >= 0 else { throw damaged }
      size = number
    default:
      if key.hasPrefix("GNU.sparse.") {
        throw PackageError(.unsupported, "the archive holds a sparse file: pack it without --sparse")
      }
    }
  }
}
