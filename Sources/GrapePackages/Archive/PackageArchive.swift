internal import GrapeCore

/// Packs folders into archives and unpacks archives into folders.
public enum PackageArchive {
  /// An archive that was made.
  public struct Made: Hashable, Sendable {
    public var package: Package
    /// Size of the archive.
    public var bytes: Int64
    /// SHA-256 of the archive, in hexadecimal. Unlike the version it depends on the compression.
    public var sha256: String
  }

  /// Packs a folder into a canonical archive (tar, zstd level 3) at `path`, which must not exist.
  ///
  /// The files are those of `Package.load(folder:adding:)`. Files that change meanwhile are an error. If it fails
  /// nothing is left at `path`.
  public static func make(
    folder: String, adding: [String: String] = [:], to path: String, limits: PackageLimits = PackageLimits()
  ) throws(PackageError) -> Made {
    let reader = try FolderReader(folder, adding: adding, limits: limits)
    let sink = try FileSink(path)
    do throws(PackageError) {
      let package = try reader.read(into: TarWriter(try ZstdSink(sink)), requiringEntry: true)
      return Made(package: package, bytes: sink.count, sha256: sink.digest)
    } catch {
      do throws(PackageError) {
        try Folder.remove(path)
      } catch let leftover {
        throw PackageError(error.code, "\(error.message) (and \(leftover.message))", problems: error.problems)
      }
      throw error
    }
  }

  /// Packs a folder into a canonical archive in memory.
  public static func make(
    folder: String, adding: [String: String] = [:], limits: PackageLimits = PackageLimits()
  ) throws(PackageError) -> (package: Package, archive: [UInt8]) {
    let sink = MemorySink()
    let reader = try FolderReader(folder, adding: adding, limits: limits)
    let package = try reader.read(into: TarWriter(try ZstdSink(sink)), requiringEntry: true)
    return (package, sink.bytes)
  }

  /// An archive, where it lies.
  public enum Source: Sendable {
    case file(String)
    case bytes([UInt8])

    func open() throws(PackageError) -> any ByteSource {
      switch self {
      case .file(let path): try FileSource(path)
      case .bytes(let bytes): MemorySource(bytes)
      }
    }
  }

  /// What was unpacked, and where to.
  public struct Unpacked: Hashable, Sendable {
    public var package: Package
    /// The folder, which bears the version's name.
    public var folder: String
  }

  /// Unpacks an archive into the folder `store/VERSION`, whole or not at all.
  ///
  /// The archive is checked from beginning to end before anything is written. The files are written to a temporary
  /// folder in `store`, made durable, and renamed. If the version is there already, nothing is written. `expecting`:
  /// the version it must have. The modes are 0644 and 0755.
  public static func unpack(
    _ source: Source, into store: String, expecting version: String? = nil, limits: PackageLimits = PackageLimits()
  ) throws(PackageError) -> Unpacked {
    let listing = try ArchiveListing(try source.open(), limits: limits)
    let package = listing.package
    if let version, version != package.version {
      throw PackageError(
        .changed, "the archive holds version \(package.version) of \(package.manifest.name), not \(version) as expected"
      )
    }
    let folder = store + "/" + package.version
    if try File.status(of: folder) == nil {
      try Unpacker(listing, store: store).unpack(try source.open(), limits: limits, to: folder)
    }
    return Unpacked(package: package, folder: folder)
  }

  /// Removes what unpacking left behind in `store` when the process died. Only while nothing else unpacks there.
  public static func removeLeftovers(in store: String) throws(PackageError) {
    guard try File.status(of: store) != nil else { return }
    for name in try Folder.names(in: store) where name.hasPrefix(Unpacker.temporaryPrefix) {
      try Folder.remove(store + "/" + name)
    }
  }
}
