private import GrapeCore

/// Takes bytes in order.
protocol ByteSink: AnyObject {
  func write(_ bytes: UnsafeRawBufferPointer) throws(PackageError)
  /// Everything has been written.
  func finish() throws(PackageError)
}

/// Writes a tar archive that depends on nothing but paths, executable bits and contents: no owner, no times, the
/// modes 0644 and 0755 only. Paths that ustar cannot hold get a pax header.
struct TarWriter {
  let sink: any ByteSink
  private static let zeros = [UInt8](repeating: 0, count: 1024)

  init(_ sink: any ByteSink) { self.sink = sink }

  /// Writes an entry's header; as many bytes of data as `size` says must follow, then `pad`.
  func begin(_ path: String, _ kind: EntryKind, size: Int64) throws(PackageError) {
    var target = ""
    if case .link(let text) = kind { target = text }
    var records: [UInt8] = []
    let split = Self.split(path)
    if split == nil { records += Self.record("path", path) }
    if target.utf8.count > 100 { records += Self.record("linkpath", target) }
    if !records.isEmpty {
      try block(("", Array("pax".utf8)), type: "x", mode: 0o644, size: Int64(records.count), link: [])
      try write(records)
      try pad(Int64(records.count))
    }
    // What the pax header holds is cut off here: readers that know pax do not look at it.
    let name = split ?? ("", Array(path.utf8.suffix(100)))
    switch kind {
    case .file(let executable): try block(name, type: "0", mode: executable ? 0o755 : 0o644, size: size, link: [])
    case .folder: try block(name, type: "5", mode: 0o755, size: 0, link: [])
    case .link: try block(name, type: "2", mode: 0o777, size: 0, link: Array(target.utf8.prefix(100)))
    }
  }

  func write(_ bytes: UnsafeRawBufferPointer) throws(PackageError) { try sink.write(bytes) }

  /// Fills up the last block of an entry's data.
  func pad(_ size: Int64) throws(PackageError) {
    let surplus = Int(size % 512)
    if surplus > 0 { try write(Self.zeros.prefix(512 - surplus)) }
  }

  /// Two blocks of zeros end an archive.
  func finish() throws(PackageError) {
    try write(Self.zeros[...])
    try sink.finish()
  }

  private func write(_ bytes: some Collection<UInt8>) throws(PackageError) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 16)
    defer { buffer.deallocate() }
    buffer.copyBytes(from: bytes)
    try sink.write(UnsafeRawBufferPointer(buffer))
  }

  /// A path as ustar holds it: all in the name, or a prefix and a name; nil if it fits neither way.
  private static func split(_ path: String) -> (prefix: String, name: [UInt8])? {
    let bytes = Array(path.utf8)
    if bytes.count <= 100 { return ("", bytes) }
    guard let slash = bytes.indices.first(where: { bytes[$0] == UInt8(ascii: "/") && bytes.count - $0 - 1 <= 100 }),
      slash <= 155, slash > 0, slash < bytes.count - 1
    else { return nil }
    return (String(decoding: bytes[..<slash], as: UTF8.self), Array(bytes[(slash + 1)...]))
  }

  /// A pax record, whose length counts its own digits.
  private static func record(_ key: String, _ value: String) -> [UInt8] {
    let rest = " \(key)=\(value)\n"
    var length = rest.utf8.count
    while length != rest.utf8.count + String(length).utf8.count { length = rest.utf8.count + String(length).utf8.count }
    return Array("\(length)\(rest)".utf8)
  }

  private func block(
    _ name: (prefix: String, name: [UInt8]), type: Unicode.Scalar, mode: Int, size: Int64, link: [UInt8]
  ) throws(PackageError) {
    var block = [UInt8](repeating: 0, count: TarHeader.blockSize)
    func put(_ bytes: some Collection<UInt8>, at offset: Int) {
      block.replaceSubrange(offset..<offset + bytes.count, with: bytes)
    }
    func octal(_ value: Int64, digits: Int, at offset: Int) {
      let text = String(value, radix: 8)
      put((String(repeating: "0", count: digits - text.utf8.count) + text).utf8, at: offset)
    }
    put(name.name, at: 0)
    octal(Int64(mode), digits: 7, at: 100)
    octal(0, digits: 7, at: 108)
    octal(0, digits: 7, at: 116)
    octal(size, digits: 11, at: 124)
    octal(0, digits: 11, at: 136)
    block[156] = UInt8(ascii: type)
    put(link, at: 157)
    put("ustar\u{0}00".utf8, at: 257)
    octal(0, digits: 7, at: 329)
    octal(0, digits: 7, at: 337)
    put(name.prefix.utf8, at: 345)
    let sum = block.withUnsafeBytes { TarHeader.checksum($0) }
    octal(sum, digits: 6, at: 148)
    block[155] = UInt8(ascii: " ")
    try write(block)
  }
}
