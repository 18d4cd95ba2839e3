internal import CGrapeLinux
internal import Crypto
internal import GrapeCore
internal import GrapeLog
internal import GrapePackages
internal import GrapeReactor
internal import GrapeWire
internal import Glibc

/// What is deployed, kept in the log: applications under the keys `app/NAME`, the archives of their packages in pieces under `package/VERSION/N`
/// in the topic `_grape.registry`. The last record of a key holds; one without value ends it. Unpacked packages on the disk are a copy
/// that is made again when it is missing.
///
/// Works with files, so it has a thread of its own.
actor Deployer {
  /// A deployed application, as the registry has it.
  struct Entry: Sendable, Hashable {
    var app: String
    /// Content hash of the package.
    var version: String
    /// The version before this one; nil: the first.
    var previous: String?
    /// Pieces and bytes of the package's archive.
    var pieces: Int
    var bytes: Int
    var isStopped: Bool
    var deployedMs: Int64

    var json: JSONValue {
      [
        "app": .string(app), "version": .string(version), "previous": JSONValue(previous), "pieces": JSONValue(pieces),
        "bytes": JSONValue(bytes), "stopped": .bool(isStopped), "deployedMs": .int(deployedMs),
      ]
    }
  }

  /// A package that has come in and been found good.
  struct Candidate: Sendable {
    var package: Package
    var directory: String
    var archive: String
  }

  private struct Upload {
    var path: String
    var bytes: Int
    var received = 0
    var sha256: String
    var hash = SHA256()
    var begunAt: Int64
  }

  private static let pieceBytes = 1024 * 1024
  private static let uploadLimit = 16
  private static let archiveLimit = 256 * 1024 * 1024
  /// An upload that has not ended by then is given up, nanoseconds.
  private static let uploadTimeout: Int64 = 600_000_000_000

  private let thread: WorkThread
  private let log: any EventLog
  private let topics: TopicKeeper
  private let store: String
  private let uploadDirectory: String
  private let place = TopicPartition(SystemTopic.registry, 0)
  private var entries: [String: Entry] = [:]
  /// Offset of the registry's record that each entry comes from; of removed applications, too.
  private var offsets: [String: Int64] = [:]
  /// Where the registry was read to when the node started.
  private(set) var position: Int64 = 0
  private var uploads: [String: Upload] = [:]
  private var isDeploying = false
  private var queue: [CheckedContinuation<Void, Never>] = []

  nonisolated var unownedExecutor: UnownedSerialExecutor { thread.asUnownedSerialExecutor() }

  init(dataDirectory: String, log: any EventLog, topics: TopicKeeper, thread: WorkThread) {
    self.log = log
    self.topics = topics
    self.thread = thread
    store = dataDirectory + "/packages"
    uploadDirectory = dataDirectory + "/uploads"
  }

  func entry(_ app: String) -> Entry? { entries[app] }

  /// Paths of a package's files.
  func files(in directory: String) throws(StatusError) -> [String] {
    do throws(PackageError) { return try Package.load(folder: directory).files.map(\.path) } catch {
      throw StatusError(.internal, error.message)
    }
  }

  // MARK: Starting

  /// Reads the registry, unpacks what is missing, and says what to run.
  func load() async throws(NodeError) -> [InstalledApp] {
    do throws(PackageError) {
      try PackageArchive.removeLeftovers(in: store)
    } catch {
      throw NodeError(error.message)
    }
    try Files.makeDirectory(store)
    try Files.makeDirectory(uploadDirectory)
    try await readEntries()
    var apps: [InstalledApp] = []
    for entry in entries.values.sorted(by: { $0.app < $1.app }) {
      let unpacked = try await unpack(entry)
      let manifest = unpacked.package.manifest
      apps.append(
        InstalledApp(
          manifest: manifest, version: entry.version, directory: unpacked.folder, isStopped: entry.isStopped,
          problem: try await problem(ofTopics: manifest)))
    }
    return apps
  }

  /// What is wrong with an application's topics and can be mended by people alone. What is missing is created: applications deployed by an earlier
  /// version of this program may not have all of them.
  ///
  /// Errors: the log cannot be asked.
  func problem(ofTopics manifest: Manifest) async throws(NodeError) -> String? {
    do throws(LogError) {
      try await topics.ensure(TopicPlan.application(manifest))
      return nil
    } catch {
      switch error.code {
      case .invalidArgument, .unauthorized: return error.message
      default: throw NodeError("the topics of \(manifest.name) cannot be looked at: \(error.message)")
      }
    }
  }

  private func readEntries() async throws(NodeError) {
    var found: [String: Entry] = [:]
    position = try await forEachRecord { key, value in
      guard key.hasPrefix("app/") else { return }
      let app = String(key.dropFirst(4))
      found[app] = value.flatMap { Entry($0) }
    }
    entries = found
  }

  /// Calls `body` with each record of the registry, and returns where it ends.
  @discardableResult
  private func forEachRecord(_ body: (String, UnsafeRawBufferPointer?) -> Void) async throws(NodeError) -> Int64 {
    var position: Int64 = 0
    do throws(LogError) {
      position = try await log.bounds(of: place).start
      while true {
        let read = try await log.read(place, from: position, maxBytes: 4 * Self.pieceBytes)
        guard let last = read.batches.last else { return read.bounds.end }
        for batch in read.batches {
          do throws(WireError) {
            let unpacked = try RecordBatch.unpack(batch.bytes, checkingCRC: true, limit: FrameHeader.defaultLimit)
            var reader = unpacked.reader()
            while let record = try reader.next() {
              body(record.key.map { String(decoding: $0, as: UTF8.self) } ?? "", record.value)
            }
            withExtendedLifetime(unpacked) {}
          } catch {
            throw LogError(.corrupt, "\(place), offset \(batch.baseOffset): \(error.message)")
          }
        }
        position = last.lastOffset + 1
      }
    } catch {
      throw NodeError("the registry (\(place)) cannot be read at \(position): \(error)")
    }
  }

  /// The unpacked package of an entry: as it lies on the disk, else made anew from the registry.
  private func unpack(_ entry: Entry) async throws(NodeError) -> (package: Package, folder: String) {
    let folder = store + "/" + entry.version
    do throws(PackageError) {
      if Files.exists(folder) {
        let package = try Package.load(folder: folder)
        if package.version == entry.version { return (package, folder) }
        throw PackageError(
          .changed, "\(folder) does not hold what was deployed; remove the folder, it will be made anew from the log")
      }
    } catch {
      throw NodeError("package of \(entry.app): \(error)")
    }
    var pieces: [Int: [UInt8]] = [:]
    let prefix = "package/\(entry.version)/"
    try await forEachRecord { key, value in
      guard key.hasPrefix(prefix), let number = Int(key.dropFirst(prefix.count)), let value else { return }
      pieces[number] = [UInt8](value)
    }
    guard pieces.count >= entry.pieces else {
      throw NodeError("the registry has \(pieces.count) of \(entry.pieces) pieces of \(entry.app)'s package")
    }
    do throws(PackageError) {
      let archive = (0..<entry.pieces).flatMap { pieces[$0] ?? [] }
      let unpacked = try PackageArchive.unpack(.bytes(archive), into: store, expecting: entry.version)
      return (unpacked.package, unpacked.folder)
    } catch {
      throw NodeError("package of \(entry.app): \(error)")
    }
  }

  // MARK: Changes made at other nodes

  /// A record of the registry that is about an application.
  struct Change: Sendable {
    var app: String
    /// nil: it is removed.
    var entry: Entry?
    var offset: Int64

    /// nil: the record is about something else.
    init?(_ placed: PlacedRecord) {
      guard let key = placed.record.key.map({ String(decoding: $0, as: UTF8.self) }), key.hasPrefix("app/") else {
        return nil
      }
      app = String(key.dropFirst(4))
      entry = placed.record.value.flatMap { Entry($0) }
      offset = placed.offset
    }
  }

  /// What a node must do to be as the registry says.
  enum Step: Sendable, CustomStringConvertible {
    case install(InstalledApp)
    case start
    case stop
    case remove

    var description: String {
      switch self {
      case .install(let app): "version \(app.version.prefix(12)) deployed"
      case .start: "started"
      case .stop: "stopped"
      case .remove: "removed"
      }
    }
  }

  /// Takes over what another node has recorded; says what is to be done, nil: nothing. What this node recorded itself comes by here, too, and
  /// what others recorded before it. Within `beginChange` and `endChange`.
  func adopt(_ change: Change) async throws(StatusError) -> Step? {
    guard change.offset > offsets[change.app] ?? -1 else { return nil }
    let before = entries[change.app]
    guard let entry = change.entry else {
      note(change)
      return before == nil ? nil : .remove
    }
    guard entry.version == before?.version else {
      do throws(NodeError) {
        let unpacked = try await unpack(entry)
        note(change)
        return .install(
          InstalledApp(
            manifest: unpacked.package.manifest, version: entry.version, directory: unpacked.folder,
            isStopped: entry.isStopped))
      } catch {
        throw StatusError(.unavailable, error.message)
      }
    }
    note(change)
    if entry.isStopped == before?.isStopped { return nil }
    return entry.isStopped ? .stop : .start
  }

  private func note(_ change: Change) {
    offsets[change.app] = change.offset
    entries[change.app] = change.entry
  }

  // MARK: Uploads

  /// Makes room for an archive of `bytes` whose SHA-256 is `sha256`; returns the upload's name.
  func beginUpload(bytes: Int, sha256: String) throws(StatusError) -> String {
    let now = grape_monotonic_ns()
    for (id, upload) in uploads where now - upload.begunAt > Self.uploadTimeout { drop(id, upload) }
    guard bytes > 0, bytes <= Self.archiveLimit else {
      throw StatusError(.tooLarge, "an archive of \(bytes) bytes; 1 to \(Self.archiveLimit) are allowed")
    }
    guard uploads.count < Self.uploadLimit else {
      throw StatusError(.queueFull, "\(Self.uploadLimit) uploads are under way; try later")
    }
    let id = String(UInt64.random(in: .min ... .max), radix: 36)
    let path = uploadDirectory + "/" + id
    do throws(NodeError) { try Files.write(UnsafeRawBufferPointer(start: nil, count: 0), to: path) } catch {
      throw StatusError(.unavailable, error.message)
    }
    uploads[id] = Upload(path: path, bytes: bytes, sha256: sha256, begunAt: now)
    return id
  }

  /// Takes a piece; returns the bytes received so far.
  func takeChunk(_ id: String, offset: Int, _ bytes: ByteSlice) throws(StatusError) -> Int {
    guard var upload = uploads[id] else { throw StatusError(.notFound, "no upload \"\(id)\"") }
    guard offset == upload.received, offset + bytes.count <= upload.bytes else {
      throw StatusError(
        .badRequest, "\(bytes.count) bytes at \(offset): \(upload.received) of \(upload.bytes) have come so far")
    }
    let file = grape_open(upload.path, O_WRONLY | O_APPEND, 0)
    guard file >= 0 else { throw StatusError(.unavailable, "open \(upload.path): \(String(cString: strerror(errno)))") }
    defer { close(file) }
    do throws(NodeError) { try Files.append(bytes.unsafeBytes, to: file, path: upload.path) } catch {
      throw StatusError(.unavailable, error.message)
    }
    upload.hash.update(bufferPointer: bytes.unsafeBytes)
    upload.received += bytes.count
    uploads[id] = upload
    return upload.received
  }

  /// Opens what was uploaded: unpacks it and checks all of it. Its archive stays until `endUpload`.
  func open(_ id: String) throws(StatusError) -> Candidate {
    guard let upload = uploads[id] else { throw StatusError(.notFound, "no upload \"\(id)\"") }
    guard upload.received == upload.bytes else {
      throw StatusError(.badRequest, "\(upload.received) of \(upload.bytes) bytes have come")
    }
    do throws(PackageError) {
      let digest = upload.hash.finalize().map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
      guard digest == upload.sha256 else {
        throw PackageError(.changed, "the archive's SHA-256 is \(digest), \(upload.sha256) was announced")
      }
      let unpacked = try PackageArchive.unpack(.file(upload.path), into: store)
      return Candidate(package: unpacked.package, directory: unpacked.folder, archive: upload.path)
    } catch {
      throw StatusError(.badRequest, error.description)
    }
  }

  func endUpload(_ id: String) {
    if let upload = uploads[id] { drop(id, upload) }
  }

  private func drop(_ id: String, _ upload: Upload) {
    uploads[id] = nil
    unlink(upload.path)
  }

  // MARK: Changes, one after the other

  /// Waits until no other change is under way. To be followed by `endChange`.
  func beginChange() async {
    if isDeploying {
      await withCheckedContinuation { queue.append($0) }
    } else {
      isDeploying = true
    }
  }

  func endChange() {
    if queue.isEmpty { isDeploying = false } else { queue.removeFirst().resume() }
  }

  /// Creates the application's topics and records it with its package: from then on it is deployed, whatever happens to the node.
  func record(_ candidate: Candidate, stopped: Bool) async throws(StatusError) -> Entry {
    let manifest = candidate.package.manifest
    do throws(LogError) {
      try await topics.ensure(TopicPlan.application(manifest))
    } catch {
      throw error.code == .invalidArgument ? StatusError(.conflict, error.message) : StatusError(error)
    }
    let archive: [UInt8]
    do throws(NodeError) { archive = try Files.read(candidate.archive) } catch {
      throw StatusError(.unavailable, error.message)
    }
    var pieces = 0
    for start in stride(from: 0, to: archive.count, by: Self.pieceBytes) {
      let piece = Array(archive[start..<min(start + Self.pieceBytes, archive.count)])
      _ = try await append("package/\(candidate.package.version)/\(pieces)", piece)
      pieces += 1
    }
    let previous = entries[manifest.name.text]
    let entry = Entry(
      app: manifest.name.text, version: candidate.package.version,
      previous: previous?.version == candidate.package.version ? previous?.previous : previous?.version, pieces: pieces,
      bytes: archive.count, isStopped: stopped, deployedMs: grape_realtime_ms())
    try await record(entry)
    return entry
  }

  /// Notes whether the application is to run.
  func setStopped(_ app: String, _ stopped: Bool) async throws(StatusError) {
    guard var entry = entries[app], entry.isStopped != stopped else { return }
    entry.isStopped = stopped
    try await record(entry)
  }

  /// Ends the application's entry.
  func remove(_ app: String) async throws(StatusError) {
    offsets[app] = try await append("app/" + app, nil)
    entries[app] = nil
  }

  private func record(_ entry: Entry) async throws(StatusError) {
    offsets[entry.app] = try await append("app/" + entry.app, entry.json.utf8)
    entries[entry.app] = entry
  }

  /// The record's offset.
  private func append(_ key: String, _ value: [UInt8]?) async throws(StatusError) -> Int64 {
    var builder = RecordBatchBuilder(capacity: (value?.count ?? 0) + 256)
    builder.append(
      key: ByteSlice(key), value: value.map { ByteSlice($0) }, headerSection: HeaderSection.empty,
      timestamp: grape_realtime_ms())
    let batch: FinishedBatch
    do throws(WireError) { batch = try builder.take() } catch { throw StatusError(.internal, error.message) }
    do throws(LogError) {
      let receipt = try await log.commit(
        Transaction(appends: [
          .init(place, batch: batch.bytes, maxTimestamp: batch.maxTimestamp, recordCount: batch.recordCount)
        ]))
      return receipt.baseOffsets[0]
    } catch {
      throw StatusError(error)
    }
  }
}

extension Deployer.Entry {
  /// Reads a registry record; nil if it is none.
  init?(_ value: UnsafeRawBufferPointer) {
    guard let json = try? JSONValue(parsing: value), let app = json["app"]?.string,
      let version = json["version"]?.string,
      let pieces = json["pieces"]?.int, let bytes = json["bytes"]?.int
    else { return nil }
    self.init(
      app: app, version: version, previous: json["previous"]?.string, pieces: Int(pieces), bytes: Int(bytes),
      isStopped: json["stopped"]?.bool ?? false, deployedMs: json["deployedMs"]?.int ?? 0)
  }
}
