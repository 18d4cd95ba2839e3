private import Crypto
private import GrapeCore

/// Writes the files of a checked archive to a folder.
struct Unpacker {
  static let temporaryPrefix = ".unpack-"

  private let listing: ArchiveListing
  private let store: String
  private let temporary: String

  init(_ listing: ArchiveListing, store: String) {
    self.listing = listing
    self.store = store
    let number = UInt64.random(in: 0 ... .max)
    temporary = "\(store)/\(Self.temporaryPrefix)\(listing.package.shortVersion)-\(String(number, radix: 16))"
  }

  func unpack(_ source: any ByteSource, limits: PackageLimits, to folder: String) throws(PackageError) {
    try Folder.create(store)
    do throws(PackageError) {
      try Folder.create(temporary)
      try write(source, limits: limits)
      if try !Folder.rename(temporary, to: folder) {
        // Somebody else has unpacked the same version meanwhile: it is the same.
        try Folder.remove(temporary)
      }
    } catch {
      do throws(PackageError) {
        try Folder.remove(temporary)
      } catch let leftover {
        throw PackageError(error.code, "\(error.message) (and \(leftover.message))")
      }
      throw error
    }
    try Folder.sync(store)
  }

  private func write(_ source: any ByteSource, limits: PackageLimits) throws(PackageError) {
    var expected: [String: PackageFile] = [:]
    for file in listing.package.files { expected[file.path] = file }
    let reader = TarReader(try Decompression.open(source, limits: limits), limits: limits)
    var folders: Set<String> = [""]
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 128 << 10, alignment: 16)
    defer { buffer.deallocate() }
    while let entry = try reader.next() {
      if entry.kind == .folder { continue }
      guard entry.path.hasPrefix(listing.prefix) else { throw changed }
      let path = String(entry.path.dropFirst(listing.prefix.count))
      if listing.excluded.contains(path) { continue }
      guard let file = expected.removeValue(forKey: path) else { throw changed }
      try makeFolders(of: path, &folders)
      switch entry.kind {
      case .link(let target):
        guard file.kind == .link(target) else { throw changed }
        try Folder.createLink(temporary + "/" + path, to: target)
      case .file(let executable):
        guard file.kind == (executable ? .executable : .file) else { throw changed }
        let digest = try copy(reader, to: temporary + "/" + path, mode: executable ? 0o755 : 0o644, buffer)
        guard digest == file.digest else { throw changed }
      case .folder: break
      }
    }
    guard expected.isEmpty else { throw changed }
    for folder in folders { try Folder.sync(folder.isEmpty ? temporary : temporary + "/" + folder) }
  }

  private func copy(
    _ reader: TarReader, to path: String, mode: UInt32, _ buffer: UnsafeMutableRawBufferPointer
  ) throws(PackageError) -> [UInt8] {
    let file = try File(creating: path)
    var hash = SHA256()
    while true {
      let got = try reader.read(into: buffer)
      if got == 0 { break }
      let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<got])
      hash.update(bufferPointer: bytes)
      try file.write(bytes)
    }
    try file.setMode(mode)
    try file.sync()
    return Array(hash.finalize())
  }

  private func makeFolders(of path: String, _ made: inout Set<String>) throws(PackageError) {
    var end = path.startIndex
    while let slash = path[end...].firstIndex(of: "/") {
      let folder = String(path[..<slash])
      if made.insert(folder).inserted { try Folder.create(temporary + "/" + folder) }
      end = path.index(after: slash)
    }
  }

  /// The archive is read twice; it must be the same both times.
  private var changed: PackageError {
    PackageError(.changed, "the archive changed while it was being unpacked: try again")
  }
}
