internal import GrapeCore

/// What a package holds at a path.
enum EntryKind: Hashable, Sendable {
  case file(executable: Bool)
  case folder
  /// A symbolic link, by what it points to.
  case link(String)
}

/// An entry of an archive, its path checked.
struct TarEntry: Hashable, Sendable {
  var path: String
  var kind: EntryKind
  /// Bytes of data that follow; 0 for folders and links.
  var size: Int64
}

/// Reads a tar archive from its beginning to its end and lets through only what may be unpacked.
///
/// Knows ustar, pax and GNU tar's long names. Refuses paths that are absolute, too long, too deep, or that have `..`;
/// links out of the package; hard links, devices, pipes and sparse files; paths that are there twice or that lead
/// through a file or link; more files or bytes than the limits.
final class TarReader {
  private let source: any ByteSource
  private let limits: PackageLimits
  private let block = UnsafeMutableRawBufferPointer.allocate(byteCount: TarHeader.blockSize, alignment: 16)
  private var tree = PathTree()
  private var entries = 0
  private var files = 0
  private var bytes: Int64 = 0
  /// Data of the current entry that has not been read, and what pads it to whole blocks.
  private var remaining: Int64 = 0
  private var padding: Int64 = 0
  private var isFinished = false

  /// Longest extended header or long name, in bytes.
  private static let metadataLimit: Int64 = 64 << 10

  init(_ source: any ByteSource, limits: PackageLimits) {
    self.source = source
    self.limits = limits
  }

  deinit { block.deallocate() }

  /// The next entry; nil at the end. What is left of the current entry's data is skipped.
  func next() throws(PackageError) -> TarEntry? {
    if isFinished { return nil }
    var pax: PaxRecords?
    var longName: String?
    var longLink: String?
    while true {
      try skip(remaining + padding)
      remaining = 0
      padding = 0
      guard let header = try readHeader() else {
        try finish()
        return nil
      }
      let dataSize = pax?.size ?? header.size
      switch header.type {
      case UInt8(ascii: "x"): pax = try PaxRecords(try metadata(header))
      case UInt8(ascii: "g"):
        let records = try PaxRecords(try metadata(header))
        if records.path != nil || records.linkPath != nil || records.size != nil {
          throw PackageError(.unsupported, "the archive sets one path or size for all its files")
        }
      case UInt8(ascii: "L"): longName = try longText(header)
      case UInt8(ascii: "K"): longLink = try longText(header)
      default:
        let name = pax?.path ?? longName ?? header.name
        let link = pax?.linkPath ?? longLink ?? header.linkName
        let found = try entry(header, name: name, link: link, size: dataSize)
        pax = nil
        longName = nil
        longLink = nil
        if let found { return found }
      }
    }
  }

  /// Reads the current entry's data; 0 at its end.
  func read(into buffer: UnsafeMutableRawBufferPointer) throws(PackageError) -> Int {
    let count = Int(min(remaining, Int64(buffer.count)))
    if count == 0 { return 0 }
    let got = try source.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<count]))
    if got == 0 { throw Self.cutOff }
    remaining -= Int64(got)
    return got
  }

  private static var cutOff: PackageError { PackageError(.damaged, "the archive is cut off") }

  // MARK: Entries

  /// Checks an entry; nil if it is the package's own folder.
  private func entry(
    _ header: TarHeader, name: String, link: String, size: Int64
  ) throws(PackageError) -> TarEntry? {
    var path = name
    while path.hasPrefix("./") { path.removeFirst(2) }
    var isFolder = header.type == UInt8(ascii: "5")
    while path.hasSuffix("/"), path.count > 1 {
      path.removeLast()
      // Before there was a type for folders, a slash at the end of the name told them apart.
      if header.type == 0 || header.type == UInt8(ascii: "0") { isFolder = true }
    }
    if path.isEmpty || path == ".", isFolder, !name.isEmpty, size == 0 { return nil }
    if let problem = PackagePath.problem(path) {
      throw PackageError(.unsafePath, "the archive is refused: the path \(problem)")
    }
    let shown = path.quotedForMessage
    let kind: EntryKind
    if isFolder {
      kind = .folder
    } else {
      switch header.type {
      case UInt8(ascii: "0"), 0, UInt8(ascii: "7"): kind = .file(executable: header.mode & 0o111 != 0)
      case UInt8(ascii: "2"):
        if let problem = LinkRule.problem(target: link, at: path) {
          throw PackageError(
            .unsafePath, "the archive is refused: \(shown) is a link to \(link.quotedForMessage), \(problem)")
        }
        kind = .link(link)
      default:
        throw PackageError(
          .unsupported, "the archive is refused: \(shown) is \(Self.name(of: header.type)), which packages cannot hold")
      }
    }
    if case .file = kind {
      try admitFile(size, shown)
    } else if size != 0 {
      throw PackageError(.damaged, "the archive is refused: \(shown) is no file and yet has data")
    } else if kind != .folder {
      try admitFile(0, shown)
    }
    if let problem = tree.add(path, isFolder: kind == .folder) {
      throw PackageError(.unsafePath, "the archive is refused: \(problem)")
    }
    remaining = size
    padding = (512 - size % 512) % 512
    return TarEntry(path: path, kind: kind, size: size)
  }

  private func admitFile(_ size: Int64, _ shown: String) throws(PackageError) {
    files += 1
    guard files <= limits.files else {
      throw PackageError(.tooLarge, "the archive holds more than \(limits.files) files, the most a package may hold")
    }
    guard size <= limits.unpackedBytes - bytes else {
      let limit = ByteCountText.format(Int(limits.unpackedBytes))
      throw PackageError(
        .tooLarge, "the archive's files have more than \(limit) together with \(shown), the most a package may hold")
    }
    bytes += size
  }

  private static func name(of type: UInt8) -> String {
    switch type {
    case UInt8(ascii: "1"): "a hard link"
    case UInt8(ascii: "3"), UInt8(ascii: "4"): "a device"
    case UInt8(ascii: "6"): "a named pipe"
    case UInt8(ascii: "S"): "a sparse file"
    default: "an entry of the unknown type \(String(Character(Unicode.Scalar(type))).quotedForMessage)"
    }
  }

  // MARK: Blocks

  /// Nil for the block of zeros at the end.
  private func readHeader() throws(PackageError) -> TarHeader? {
    guard try source.readFully(into: block) == TarHeader.blockSize else {
      if entries == 0 {
        throw PackageError(.notAnArchive, "this is no tar archive, neither plain nor compressed with gzip or zstd")
      }
      throw Self.cutOff
    }
    entries += 1
    guard entries <= limits.files + limits.otherEntries else {
      throw PackageError(.tooLarge, "the archive has more than \(limits.files + limits.otherEntries) entries")
    }
    return try TarHeader(UnsafeRawBufferPointer(block), number: entries)
  }

  /// The data of an entry that describes the next one.
  private func metadata(_ header: TarHeader) throws(PackageError) -> [UInt8] {
    guard header.size <= Self.metadataLimit else {
      throw PackageError(
        .tooLarge, "an extended header of the archive has \(header.size) bytes: at most \(Self.metadataLimit) are read")
    }
    let bytes = try [UInt8](capacity: Int(header.size)) { (buffer) throws(PackageError) in
      try source.readFully(into: buffer)
    }
    guard bytes.count == Int(header.size) else { throw Self.cutOff }
    padding = (512 - header.size % 512) % 512
    return bytes
  }

  /// A long name of GNU tar: text that ends with a zero.
  private func longText(_ header: TarHeader) throws(PackageError) -> String {
    guard let text = String(validating: try metadata(header).prefix { $0 != 0 }, as: UTF8.self) else {
      throw PackageError(.unsafePath, "the archive holds a path that is not UTF-8")
    }
    return text
  }

  private func skip(_ count: Int64) throws(PackageError) {
    var left = count
    while left > 0 {
      let part = UnsafeMutableRawBufferPointer(rebasing: block[..<Int(min(left, Int64(block.count)))])
      let got = try source.readFully(into: part)
      if got < part.count { throw Self.cutOff }
      left -= Int64(got)
    }
  }

  /// Reads to the end, so that the compression's checksum is checked; nothing but zeros may follow.
  private func finish() throws(PackageError) {
    isFinished = true
    while true {
      let got = try source.read(into: block)
      if got == 0 { return }
      guard block[..<got].allSatisfy({ $0 == 0 }) else {
        throw PackageError(.damaged, "something follows the end of the archive")
      }
    }
  }
}
