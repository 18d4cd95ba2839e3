internal import CGrapeLinux
internal import Crypto
package import GrapeCore
internal import GrapeStore
internal import GrapeWire
internal import Glibc

/// A backup of an application's state: a directory with a copy per partition and a manifest (docs/data-format.md, Backups).
package struct StateBackup: Sendable {
  package struct Partition: Sendable {
    package var partition: Int32
    /// nil: nothing was ever written in this partition.
    package var file: String?
    package var changelog: Int64
    package var processed: Int64
    package var entries: Int
    package var bytes: Int
    package var sha256: String
  }

  package var app: String
  package var version: String
  package var node: String
  /// Milliseconds since 1970.
  package var takenMs: Int64
  package var partitions: [Partition]

  static let format: Int64 = 1
  package static let manifestName = "manifest.json"
  private static let manifestLimit = 64 * 1024 * 1024

  // MARK: The manifest

  package var json: JSONValue {
    [
      "grapeStateBackup": .int(Self.format), "app": .string(app), "version": .string(version), "node": .string(node),
      "takenMs": .int(takenMs), "partitions": JSONValue(partitions.count),
      "files": .array(
        partitions.map {
          [
            "partition": JSONValue($0.partition), "file": JSONValue($0.file), "changelog": .int($0.changelog),
            "processed": .int($0.processed), "entries": JSONValue($0.entries), "bytes": JSONValue($0.bytes),
            "sha256": .string($0.sha256),
          ]
        }),
    ]
  }

  /// Reads the manifest of a backup. `notFound` if there is none, `badRequest` if it is not what it should be.
  package init(directory: String) throws(StatusError) {
    let path = "\(directory)/\(Self.manifestName)"
    guard Files.exists(path) else {
      throw StatusError(.notFound, "\(directory) is no backup: it has no \(Self.manifestName)")
    }
    let json: JSONValue
    do {
      let content = try Files.read(path)
      guard content.count <= Self.manifestLimit else { throw NodeError("\(path) has \(content.count) bytes") }
      json = try JSONValue(parsing: String(decoding: content, as: UTF8.self))
    } catch {
      throw StatusError(.badRequest, "\(path): \(error)")
    }
    func wrong(_ what: String) -> StatusError { StatusError(.badRequest, "\(path): \(what)") }
    guard let format = json["grapeStateBackup"]?.int else { throw wrong("it is no manifest of a backup of state") }
    guard format == Self.format else { throw wrong("it is of format \(format), this program knows \(Self.format)") }
    guard let app = json["app"]?.string, let takenMs = json["takenMs"]?.int, let files = json["files"]?.array,
      let count = json["partitions"]?.int, files.count == count
    else { throw wrong("it lacks \"app\", \"takenMs\", \"partitions\" or one of its \"files\"") }
    self.app = app
    version = json["version"]?.string ?? ""
    node = json["node"]?.string ?? ""
    self.takenMs = takenMs
    partitions = []
    for (index, item) in files.enumerated() {
      guard item["partition"]?.int == Int64(index), let changelog = item["changelog"]?.int,
        let processed = item["processed"]?.int, let entries = item["entries"]?.int, let bytes = item["bytes"]?.int
      else { throw wrong("\"files\" is not in order of partitions, or lacks something at partition \(index)") }
      let file = item["file"]?.string
      // Nothing outside the directory is read, whatever the manifest says.
      if let file, file.contains("/") || file.hasPrefix(".") { throw wrong("\"\(file)\" is not the name of a file") }
      partitions.append(
        Partition(
          partition: Int32(index), file: file, changelog: changelog, processed: processed, entries: Int(entries),
          bytes: Int(bytes), sha256: item["sha256"]?.string ?? ""))
    }
  }

  init(app: String, version: String, node: String, takenMs: Int64, partitions: [Partition]) {
    self.app = app
    self.version = version
    self.node = node
    self.takenMs = takenMs
    self.partitions = partitions
  }

  // MARK: Checking

  /// Something that is not as the manifest says, or not whole.
  package struct Problem: Sendable {
    package var partition: Int32
    package var message: String
  }

  /// Checks every file: size, hash, structure, checksums, indexes, position, number of entries. Empty: all is well.
  ///
  /// - Parameter progress: told the partition, bytes hashed and bytes to hash; false: it is broken off.
  package func problems(in directory: String, progress: (Int32, Int, Int) -> Bool) throws(StatusError) -> [Problem] {
    var problems: [Problem] = []
    for partition in partitions {
      guard let name = partition.file else { continue }
      let path = "\(directory)/\(name)"
      func note(_ message: String) { problems.append(Problem(partition: partition.partition, message: message)) }
      let (bytes, hash): (Int, String)
      do throws(StateError) {
        (bytes, hash) = try Self.hash(of: path) { progress(partition.partition, $0, partition.bytes) }
      } catch {
        if error.code == .unavailable { throw StateJobControl.cancelled }
        note(error.message)
        continue
      }
      if bytes != partition.bytes {
        note("\(path) has \(bytes) bytes, the manifest says \(partition.bytes)")
      } else if hash != partition.sha256 {
        note("\(path) is not the file that was written: its SHA-256 is \(hash)")
      }
      do throws(StateError) {
        let content = try StateCopy.check(path)
        if content.position.changelog != partition.changelog || content.position.processed != partition.processed {
          note(
            "\(path) stands at \(content.position.changelog) of the changelog and \(content.position.processed) of the input, the manifest says \(partition.changelog) and \(partition.processed)"
          )
        }
        if content.entries != partition.entries {
          note("\(path) has \(content.entries) entries, the manifest says \(partition.entries)")
        }
      } catch {
        note(error.message)
      }
    }
    return problems
  }

  /// Bytes and SHA-256 of a file. `unavailable` if it was broken off.
  static func hash(of path: String, progress: (Int) -> Bool) throws(StateError) -> (bytes: Int, sha256: String) {
    let file = grape_open(path, O_RDONLY, 0)
    guard file >= 0 else { throw failure("open \(path)") }
    defer { close(file) }
    var hash = SHA256()
    var buffer = [UInt8](repeating: 0, count: 1024 * 1024)
    var total = 0
    while true {
      let count = read(file, &buffer, buffer.count)
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else { throw failure("read \(path)") }
      if count == 0 { break }
      buffer.withUnsafeBytes { hash.update(bufferPointer: UnsafeRawBufferPointer(rebasing: $0[..<count])) }
      total += count
      guard progress(total) else { throw StateError(.unavailable, "it was broken off") }
    }
    return (total, hash.finalize().map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined())
  }

  static func failure(_ what: String) -> StateError {
    StateError(errno == ENOENT ? .notFound : .system, "\(what): \(String(cString: strerror(errno)))")
  }
}
