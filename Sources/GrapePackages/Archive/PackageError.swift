/// Why a package cannot be read, made or unpacked.
public struct PackageError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The kind of failure; new ones may be added.
  public struct Code: Hashable, Sendable, CustomStringConvertible {
    private enum Kind: String {
      case notFound, system, notAnArchive, damaged, unsafePath, tooLarge, noManifest, invalidManifest, missingFile
      case unsupported, changed
    }
    private let kind: Kind
    private init(_ kind: Kind) { self.kind = kind }
    /// There is no such file or folder.
    public static let notFound = Code(.notFound)
    /// The operating system refused.
    public static let system = Code(.system)
    /// Not a tar archive, plain or compressed with gzip or zstd.
    public static let notAnArchive = Code(.notAnArchive)
    /// Cut off, or a checksum is wrong.
    public static let damaged = Code(.damaged)
    /// A path or link that leads, or could lead, out of the package, or that is there twice.
    public static let unsafePath = Code(.unsafePath)
    /// More bytes, files or folders than allowed.
    public static let tooLarge = Code(.tooLarge)
    /// There is no `grape.yaml`.
    public static let noManifest = Code(.noManifest)
    /// The manifest or profile is wrong; `PackageError.problems` says how.
    public static let invalidManifest = Code(.invalidManifest)
    /// The manifest names a file that the package does not hold.
    public static let missingFile = Code(.missingFile)
    /// Something that packages do not hold: a device, a hard link, a sparse file.
    public static let unsupported = Code(.unsupported)
    /// Not what it was a moment ago, or not what was expected.
    public static let changed = Code(.changed)
    public var description: String { kind.rawValue }
  }

  public var code: Code
  /// What, where, and what would be right.
  public var message: String
  /// What is wrong with the manifest; empty for other failures.
  public var problems: [SourceProblem]

  public init(_ code: Code, _ message: String, problems: [SourceProblem] = []) {
    self.code = code
    self.message = message
    self.problems = problems
  }

  init(_ error: ManifestError) {
    self.init(.invalidManifest, error.description, problems: error.problems)
  }

  public var description: String { message }
}

/// What an archive or folder may hold at most.
public struct PackageLimits: Hashable, Sendable {
  /// Bytes of all files together, unpacked.
  public var unpackedBytes: Int64 = 256 << 20
  /// Files and links.
  public var files = 10_000
  /// Unpacked bytes per byte of archive, once more than 16 MiB were unpacked.
  public var ratio: Int64 = 250

  public init() {}

  /// Entries of an archive that are no files: folders, extended headers.
  var otherEntries: Int { files * 3 }
  /// Bytes of a tar stream, with headers and padding.
  var streamBytes: Int64 { unpackedBytes + Int64(files + otherEntries) * 1024 }
}
