import GrapeWire

@testable import GrapePackages

extension FuzzTarget {
  /// Archives of packages: tar, plain or compressed.
  static let archive = FuzzTarget("archive") {
    let manifest = "grape: 1\nname: flights\nruntime: python\nentry: app.py\nslots: {raw: {}}\n"
    let good = tar([
      ("grape.yaml", "0", "", manifest), ("app.py", "0", "", "pass\n"), ("data/", "5", "", ""),
      ("data/link", "2", "../app.py", ""),
    ])
    let extended = tar([
      ("pax", "x", "", "17 path=grape.yaml\n"), ("innocent", "0", "", manifest), ("L", "L", "", "app.py\u{0}"),
      ("x", "0", "", "pass\n"),
    ])
    let packed = try good.withUnsafeBytes { try ZstdCompressor().compress($0).array }
    // gzip, stored: as plain as it can be.
    let gzip: [UInt8] =
      [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 0, 2, 0xff, 0xfd] + [UInt8](repeating: 0, count: 512) + [
        0, 0, 0, 0, 0, 2, 0, 0,
      ]
    return [good, extended, packed, gzip]
  } body: { bytes in
    try tryArchive(bytes.array)
    try tryArchive(repairedTar(bytes.array))
  }

  private static func tryArchive(_ bytes: [UInt8]) throws {
    var limits = PackageLimits()
    limits.unpackedBytes = 1 << 18
    limits.files = 100
    guard let package = try taken(PackageError.self, { try Package.load(archive: bytes, limits: limits) }) else {
      return
    }
    try promise(package.files.count <= limits.files, "\(package.files.count) files")
    try promise(package.unpackedBytes <= limits.unpackedBytes, "\(package.unpackedBytes) bytes")
    try promise(Set(package.files.map(\.path)).count == package.files.count, "a path that is there twice")
    for file in package.files {
      let parts = file.path.split(separator: "/", omittingEmptySubsequences: false)
      try promise(!parts.contains("..") && !parts.contains("") && !parts.contains("."), "the path \(file.path)")
      try promise(file.path.unicodeScalars.allSatisfy { $0.value >= 0x20 }, "the path \(file.path)")
      try promise(file.size >= 0, "\(file.path) of \(file.size) bytes")
    }
  }

  /// The archive with checksums that fit, so that more than these is tried.
  private static func repairedTar(_ bytes: [UInt8]) -> [UInt8] {
    var bytes = bytes
    var position = 0
    while position + 512 <= bytes.count, bytes[position..<position + 512].contains(where: { $0 != 0 }) {
      for index in 148..<156 { bytes[position + index] = 0x20 }
      let sum = bytes[position..<position + 512].reduce(0) { $0 + Int($1) }
      bytes.replaceSubrange(position + 148..<position + 155, with: octal(sum, 6) + [0])
      let digits = bytes[position + 124..<position + 135].prefix { (0x30...0x37).contains($0) }
      let size = digits.reduce(0) { $0 << 3 | Int($1 - 0x30) }
      position += 512 + (min(size, bytes.count) + 511) / 512 * 512
    }
    return bytes
  }

  private static func octal(_ number: Int, _ width: Int) -> [UInt8] {
    let digits = String(number, radix: 8)
    return Array((String(repeating: "0", count: max(0, width - digits.count)) + digits).utf8)
  }

  private static func tar(_ entries: [(name: String, type: Character, link: String, data: String)]) -> [UInt8] {
    var bytes: [UInt8] = []
    for (name, type, link, data) in entries {
      var block = [UInt8](repeating: 0, count: 512)
      func put(_ field: [UInt8], _ offset: Int) { block.replaceSubrange(offset..<offset + field.count, with: field) }
      put(Array(name.utf8), 0)
      put(Array("0000644".utf8), 100)
      put(octal(data.utf8.count, 11), 124)
      put([type.asciiValue ?? 0], 156)
      put(Array(link.utf8), 157)
      put(Array("ustar\u{0}00".utf8), 257)
      bytes += block + Array(data.utf8) + [UInt8](repeating: 0, count: (512 - data.utf8.count % 512) % 512)
    }
    return repairedTar(bytes + [UInt8](repeating: 0, count: 1024))
  }
}
