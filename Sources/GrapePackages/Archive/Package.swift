public import GrapeCore
private import Crypto

/// An application ready to be deployed: its manifest, its profile and the files that it consists of.
public struct Package: Hashable, Sendable {
  /// With the profile in it.
  public var manifest: Manifest
  /// Names the content: 64 hexadecimal digits, the SHA-256 over paths, kinds, sizes and contents. However the files
  /// were packed, the same files give the same version.
  public var version: String
  /// In order of path (by bytes).
  public var files: [PackageFile]

  /// The version as people are shown it: its first 12 digits.
  public var shortVersion: String { String(version.prefix(12)) }
  /// Bytes of all files together.
  public var unpackedBytes: Int64 { files.reduce(0) { $0 + $1.size } }

  init(manifest: Manifest, files: [PackageFile]) {
    self.manifest = manifest
    self.files = files.sorted { $0.path.utf8.lexicographicallyPrecedes($1.path.utf8) }
    version = Self.version(of: self.files)
  }

  /// SHA-256 over `grape package 1\n` and per file, in order of path: kind (0 file, 1 executable file, 2 link),
  /// length of the path (32 bits, big-endian), path, size (64 bits, big-endian), SHA-256 of the content; a link's
  /// content is its target.
  private static func version(of files: [PackageFile]) -> String {
    var hash = SHA256()
    func add(_ bytes: [UInt8]) { hash.update(data: bytes) }
    func bigEndian(_ value: UInt64, bytes: Int) -> [UInt8] {
      (0..<bytes).reversed().map { UInt8(truncatingIfNeeded: value >> UInt64($0 * 8)) }
    }
    add(Array("grape package 1\n".utf8))
    for file in files {
      add([file.kind.number])
      add(bigEndian(UInt64(file.path.utf8.count), bytes: 4))
      add(Array(file.path.utf8))
      add(bigEndian(UInt64(file.size), bytes: 8))
      add(file.digest)
    }
    return hash.finalize().hex
  }

  /// Checks that what the manifest starts is there.
  func checkEntry() throws(PackageError) {
    guard let path = manifest.runtime.file else { return }
    let shown = path.quotedForMessage
    let field = if case .executable = manifest.runtime { "command" } else { "entry" }
    let place = "\(Manifest.fileName): \(field)"
    guard let file = files.first(where: { $0.path == path }) else {
      let remedy: String
      switch manifest.runtime {
      case .swift(let product):
        remedy =
          "build it with \"swift build -c release --product \(product)\" and put it there; grape deploy does both"
      case .python, .executable:
        let hint = Suggestion.nearest(to: path, among: files.map(\.path)).map {
          ": did you mean \($0.quotedForMessage)?"
        }
        remedy = hint ?? "add it, or look whether \"include\" or \"exclude\" leave it out"
        throw PackageError(
          .missingFile,
          "\(place): the package does not hold \(shown), which the manifest starts"
            + (hint == nil ? ": \(remedy)" : remedy))
      }
      throw PackageError(
        .missingFile, "\(place): the package does not hold \(shown), which the manifest starts: \(remedy)")
    }
    if case .python = manifest.runtime { return }
    if file.kind == .file {
      throw PackageError(
        .missingFile, "\(place): \(shown), which the manifest starts, is not executable: run chmod +x on it")
    }
  }
}

/// A file of a package.
public struct PackageFile: Hashable, Sendable {
  /// What it is.
  public enum Kind: Hashable, Sendable {
    case file
    case executable
    /// A symbolic link, by what it points to: a relative path within the package.
    case link(String)

    var number: UInt8 {
      switch self {
      case .file: 0
      case .executable: 1
      case .link: 2
      }
    }
  }

  /// Relative to the package's folder.
  public var path: String
  public var kind: Kind
  /// Bytes; of a link, those of its target's name.
  public var size: Int64
  /// SHA-256 of the content, 32 bytes; of a link, of its target's name.
  public var digest: [UInt8]
}
