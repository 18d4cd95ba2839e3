private import Crypto
private import GrapeCore

extension Package {
  /// Reads a package from its folder: what `include` and `exclude` let through, without packing it.
  ///
  /// `adding` puts files from elsewhere into the package (path in the package to path on disk), in place of those of
  /// the same path: what a build has made. `requiringEntry: false` leaves unchecked whether the manifest's program is
  /// there, for the time before the build. Empty folders are not part of a package.
  public static func load(
    folder: String, adding: [String: String] = [:], requiringEntry: Bool = true, limits: PackageLimits = PackageLimits()
  ) throws(PackageError) -> Package {
    try FolderReader(folder, adding: adding, limits: limits).read(into: nil, requiringEntry: requiringEntry)
  }
}

/// Goes through a folder, and writes what it finds to an archive if there is one.
struct FolderReader {
  private let root: String
  private let limits: PackageLimits
  private let manifest: Manifest
  private let manifestDigests: [String: [UInt8]]
  private let selection: FileSelection
  private let added: [String: String]

  /// Reads and checks the manifest.
  init(_ folder: String, adding: [String: String], limits: PackageLimits) throws(PackageError) {
    root = folder
    self.limits = limits
    added = adding
    guard let status = try File.status(of: folder + "/.") else {
      throw PackageError(.notFound, "there is no folder \(folder)")
    }
    guard status.kind == .folder else { throw PackageError(.notFound, "\(folder) is not a folder") }
    for path in adding.keys.sorted() {
      if let problem = PackagePath.problem(path) { throw PackageError(.unsafePath, "the path \(problem)") }
    }
    let manifestPath = folder + "/" + Manifest.fileName
    guard try File.status(of: manifestPath) != nil else {
      let near = ["grape.yml", "manifest.yaml", "Grape.yaml"].first { (try? File.status(of: folder + "/" + $0)) != nil }
      throw PackageError(
        .noManifest,
        "\(folder) holds no \(Manifest.fileName)"
          + (near.map { ": rename \($0) to \(Manifest.fileName)" }
            ?? ": an application's folder does; \"grape init NAME\" makes one"))
    }
    let yaml = try File.contents(manifestPath, limit: YAMLLimits.bytes)
    var digests = [Manifest.fileName: Array(SHA256.hash(data: yaml))]
    let profilePath = folder + "/" + Profile.fileName
    var profile: [UInt8]?
    if try File.status(of: profilePath) != nil {
      let bytes = try File.contents(profilePath, limit: YAMLLimits.bytes)
      digests[Profile.fileName] = Array(SHA256.hash(data: bytes))
      profile = bytes
    }
    manifestDigests = digests
    do throws(ManifestError) {
      manifest = try Manifest(yaml: yaml, file: manifestPath, profileYAML: profile, profileFile: profilePath)
    } catch {
      throw PackageError(error)
    }
    selection = try FileSelection(manifest)
  }

  func read(into archive: TarWriter?, requiringEntry: Bool) throws(PackageError) -> Package {
    var found: [String: String] = [:]
    try list("", isExcluded: false, into: &found)
    for (path, source) in added {
      // The node reads the archive by the same patterns.
      guard selection.selects(path) else {
        throw PackageError(
          .missingFile, "\(path) was made for the package, but \(root)/\(Manifest.fileName) excludes it")
      }
      found[path] = source
    }
    let paths = found.keys.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    guard paths.count <= limits.files else {
      throw PackageError(
        .tooLarge,
        "\(root) holds \(paths.count) files: a package may hold \(limits.files); list what it needs under "
          + "\"include\" in \(Manifest.fileName)"
      )
    }
    var tree = PathTree()
    var files: [PackageFile] = []
    var total: Int64 = 0
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 128 << 10, alignment: 16)
    defer { buffer.deallocate() }
    for path in paths {
      if let problem = tree.add(path, isFolder: false) { throw PackageError(.unsafePath, problem) }
      let file = try take(path, from: found[path] ?? "", &total, buffer, archive)
      if let expected = manifestDigests[path], expected != file.digest { throw Self.changed(path) }
      files.append(file)
    }
    let package = Package(manifest: manifest, files: files)
    if requiringEntry { try package.checkEntry() }
    try archive?.finish()
    return package
  }

  /// Adds the files of a folder, by its path in the package, to those found.
  private func list(
    _ folder: String, isExcluded: Bool, into found: inout [String: String]
  ) throws(PackageError) {
    for name in try Folder.names(in: folder.isEmpty ? root : root + "/" + folder) {
      let path = folder.isEmpty ? name : folder + "/" + name
      let place = root + "/" + path
      guard let status = try File.status(of: place) else { throw Self.changed(place) }
      if status.kind == .folder {
        let isExcluded = isExcluded || selection.excludes(path, isFolder: true)
        if isExcluded, !selection.needsPart(of: path) { continue }
        try list(path, isExcluded: isExcluded, into: &found)
      } else if selection.selects(path, inExcludedFolder: isExcluded) {
        if let problem = PackagePath.problem(path) { throw PackageError(.unsafePath, "in \(root): \(problem)") }
        found[path] = place
      }
      // Far beyond the limit there is no point in going on; the exact number is for the message.
      guard found.count <= limits.files * 10 else {
        throw PackageError(
          .tooLarge,
          "\(root) holds more than \(limits.files * 10) files: a package may hold \(limits.files); "
            + "list what it needs under \"include\" in \(Manifest.fileName)")
      }
    }
  }

  private func take(
    _ path: String, from place: String, _ total: inout Int64, _ buffer: UnsafeMutableRawBufferPointer,
    _ archive: TarWriter?
  ) throws(PackageError) -> PackageFile {
    guard let status = try File.status(of: place) else { throw PackageError(.notFound, "there is no file \(place)") }
    switch status.kind {
    case .link where added[path] == nil:
      let target = try Folder.target(ofLink: place)
      if let problem = LinkRule.problem(target: target, at: path) {
        throw PackageError(
          .unsafePath,
          "\(place) is a link to \(target.quotedForMessage), \(problem); exclude it in \(Manifest.fileName) "
            + "or copy the file"
        )
      }
      try archive?.begin(path, .link(target), size: 0)
      return PackageFile(link: path, target: target)
    case .file, .link: break
    case .folder, .other:
      throw PackageError(
        .unsupported,
        "\(place) is not a regular file; exclude it in \(Manifest.fileName), for instance exclude: [\(path)]")
    }
    let file = try File(reading: place)
    let opened = try file.status()
    guard opened.kind == .file else { throw PackageError(.unsupported, "\(place) is not a regular file") }
    guard opened.size <= limits.unpackedBytes - total else {
      let limit = ByteCountText.format(Int(limits.unpackedBytes))
      throw PackageError(
        .tooLarge,
        "\(root) holds more than \(limit), the most a package may hold: with \(path) it is too much; "
          + "exclude what workers do not need"
      )
    }
    total += opened.size
    try archive?.begin(path, .file(executable: opened.isExecutable), size: opened.size)
    var hash = SHA256()
    var count: Int64 = 0
    while true {
      let got = try file.read(into: buffer)
      if got == 0 { break }
      count += Int64(got)
      if count > opened.size { throw Self.changed(place) }
      let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<got])
      hash.update(bufferPointer: bytes)
      try archive?.write(bytes)
    }
    if count != opened.size { throw Self.changed(place) }
    try archive?.pad(opened.size)
    return PackageFile(
      path: path, kind: opened.isExecutable ? .executable : .file, size: opened.size, digest: Array(hash.finalize()))
  }

  private static func changed(_ path: String) -> PackageError {
    PackageError(.changed, "\(path) changed while it was being packed: try again")
  }
}

extension PackageFile {
  init(link path: String, target: String) {
    self.init(
      path: path, kind: .link(target), size: Int64(target.utf8.count),
      digest: Array(SHA256.hash(data: Array(target.utf8))))
  }
}
