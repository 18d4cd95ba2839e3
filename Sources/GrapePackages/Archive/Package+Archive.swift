private import Crypto
private import GrapeCore

extension Package {
  /// Reads a package from an archive: tar, plain or compressed with gzip or zstd. Nothing is written.
  ///
  /// The manifest is at the root, or in the one folder that all the rest lies in too. Everything is checked: paths,
  /// sizes, checksums, the manifest, and that the program it starts is there. What `include` and `exclude` leave out
  /// is checked like the rest, but does not belong to the package.
  public static func load(archive path: String, limits: PackageLimits = PackageLimits()) throws(PackageError) -> Package
  {
    try ArchiveListing(try FileSource(path), limits: limits).package
  }

  /// Reads a package from an archive in memory.
  public static func load(archive bytes: [UInt8], limits: PackageLimits = PackageLimits()) throws(PackageError)
    -> Package
  {
    try ArchiveListing(MemorySource(bytes), limits: limits).package
  }
}

/// What an archive holds, read once from beginning to end.
struct ArchiveListing {
  let package: Package
  /// The folder of the archive that is the package's root: empty, or a name with a slash behind.
  let prefix: String
  /// Files of the archive that do not belong to the package, by their paths without the prefix.
  let excluded: Set<String>

  init(_ source: any ByteSource, limits: PackageLimits) throws(PackageError) {
    let reader = TarReader(try Decompression.open(source, limits: limits), limits: limits)
    var files: [PackageFile] = []
    var folders: [String] = []
    var texts: [String: [UInt8]] = [:]
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 128 << 10, alignment: 16)
    defer { buffer.deallocate() }
    while let entry = try reader.next() {
      switch entry.kind {
      case .folder: folders.append(entry.path)
      case .link(let target): files.append(PackageFile(link: entry.path, target: target))
      case .file(let executable):
        let isText = Self.mayBeManifest(entry.path)
        var text: [UInt8] = []
        var hash = SHA256()
        while true {
          let got = try reader.read(into: buffer)
          if got == 0 { break }
          let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<got])
          hash.update(bufferPointer: bytes)
          // One byte too many is enough for the manifest's reader to refuse it.
          if isText { text.append(contentsOf: bytes.prefix(YAMLLimits.bytes + 1 - text.count)) }
        }
        if isText { texts[entry.path] = text }
        files.append(
          PackageFile(
            path: entry.path, kind: executable ? .executable : .file, size: entry.size, digest: Array(hash.finalize())))
      }
    }
    prefix = try Self.root(files.map(\.path) + folders, texts)
    for index in files.indices { files[index].path.removeFirst(prefix.count) }
    // A link that stayed in the archive may lead out of the folder that becomes the package.
    for file in files {
      if case .link(let target) = file.kind, let problem = LinkRule.problem(target: target, at: file.path) {
        throw PackageError(
          .unsafePath,
          "the archive is refused: \(file.path.quotedForMessage) is a link to \(target.quotedForMessage), \(problem)")
      }
    }
    guard let yaml = texts[prefix + Manifest.fileName] else {
      preconditionFailure("the root was chosen by its manifest")
    }
    let manifest: Manifest
    do throws(ManifestError) {
      manifest = try Manifest(
        yaml: yaml, file: prefix + Manifest.fileName, profileYAML: texts[prefix + Profile.fileName],
        profileFile: prefix + Profile.fileName)
    } catch {
      throw PackageError(error)
    }
    // The same files make the same package, from a folder and from an archive that somebody made of it.
    let selection = try FileSelection(manifest)
    let selected = files.filter { selection.selects($0.path) }
    excluded = Set(files.map(\.path)).subtracting(selected.map(\.path))
    package = Package(manifest: manifest, files: selected)
    try package.checkEntry()
  }

  /// A manifest or profile at the root or one folder down.
  private static func mayBeManifest(_ path: String) -> Bool {
    let parts = path.split(separator: "/")
    return parts.count <= 2 && (parts.last == Substring(Manifest.fileName) || parts.last == Substring(Profile.fileName))
  }

  private static func root(_ paths: [String], _ texts: [String: [UInt8]]) throws(PackageError) -> String {
    if texts[Manifest.fileName] != nil { return "" }
    let tops = Set(paths.map { String($0.prefix { $0 != "/" }) })
    if tops.count == 1, let top = tops.first, texts["\(top)/\(Manifest.fileName)"] != nil { return top + "/" }
    throw PackageError(
      .noManifest,
      "the archive holds no \(Manifest.fileName), neither at its root nor in a single folder at its root")
  }
}
