import GrapeCore
import GrapeWire

/// What an ingest must remember to go on after an interruption.
///
/// Saved before each frame is sent. `acknowledged` may lag behind what the node has: the events in between are found in the
/// topic by the header of their batches.
struct IngestState: Equatable {
  /// What may not differ between an ingest and its continuation.
  struct Job: Equatable {
    var target: String
    var format: String
    var keyField: String?
    var eventField: String?
    var skipBad: Bool
    var files: [File]
  }

  /// An input, recognised by its first bytes.
  struct File: Equatable {
    var path: String
    /// Bytes looked at; 0 for standard input.
    var prefixBytes: Int
    var prefixChecksum: UInt32
  }

  static let version: Int64 = 2

  /// 16 random bytes, in hexadecimal: tells this ingest's events apart from all others in the topic. It is the source's id, too.
  var run: String
  /// Connections made so far: the source's epoch.
  var epoch: Int64
  var job: Job
  /// Where acknowledged events end: index of the file, and place in it.
  var file: Int
  var position: InputPosition
  /// Number of the first event that is not acknowledged.
  var acknowledged: Int64
  /// Number of the first event that was never sent.
  var sent: Int64
  /// Per partition: events of this run that are not acknowledged stand at or behind it.
  var ends: [Int64]

  var json: JSONValue {
    [
      "version": JSONValue(Self.version),
      "run": .string(run),
      "epoch": JSONValue(epoch),
      "target": .string(job.target),
      "format": .string(job.format),
      "keyField": JSONValue(job.keyField),
      "eventField": JSONValue(job.eventField),
      "skipBad": .bool(job.skipBad),
      "files": .array(
        job.files.map {
          [
            "path": .string($0.path), "prefixBytes": JSONValue($0.prefixBytes),
            "prefixChecksum": JSONValue($0.prefixChecksum),
          ]
        }),
      "file": JSONValue(file),
      "offset": JSONValue(position.offset),
      "line": JSONValue(position.line),
      "acknowledged": JSONValue(acknowledged),
      "sent": JSONValue(sent),
      "ends": .array(ends.map { JSONValue($0) }),
    ]
  }

  init(
    run: String, epoch: Int64 = 0, job: Job, file: Int = 0, position: InputPosition = InputPosition(offset: 0, line: 1),
    acknowledged: Int64 = 0,
    sent: Int64 = 0, ends: [Int64]
  ) {
    self.run = run
    self.epoch = epoch
    self.job = job
    self.file = file
    self.position = position
    self.acknowledged = acknowledged
    self.sent = sent
    self.ends = ends
  }

  /// Reads what `json` wrote. `path` is for the message.
  init(_ bytes: ByteSlice, path: String) throws {
    func refuse(_ what: String) -> CommandFailure {
      CommandFailure(.badInput, "\(path) is no state of an ingest: \(what); remove it to begin anew")
    }
    let json: JSONValue
    do throws(JSONError) {
      json = try bytes.withUnsafeBytes { (bytes) throws(JSONError) in try JSONValue(parsing: bytes) }
    } catch {
      throw refuse("\(error)")
    }
    guard json["version"]?.int == Self.version else { throw refuse("its version is not \(Self.version)") }
    func number(_ name: String) throws -> Int64 {
      guard let value = json[name]?.int, value >= 0 else { throw refuse("`\(name)` is no number") }
      return value
    }
    guard let run = json["run"]?.string, run.utf8.count == 32, let target = json["target"]?.string,
      let format = json["format"]?.string, let files = json["files"]?.array, let ends = json["ends"]?.array
    else { throw refuse("a member is missing") }
    self.run = run
    epoch = try number("epoch")
    job = Job(
      target: target, format: format, keyField: json["keyField"]?.string, eventField: json["eventField"]?.string,
      skipBad: json["skipBad"]?.bool ?? false,
      files: try files.map { file in
        guard let path = file["path"]?.string, let bytes = file["prefixBytes"]?.int,
          let checksum = file["prefixChecksum"]?.int, let bytes = Int(exactly: bytes),
          let checksum = UInt32(exactly: checksum)
        else { throw refuse("`files` is malformed") }
        return File(path: path, prefixBytes: bytes, prefixChecksum: checksum)
      })
    file = Int(try number("file"))
    position = InputPosition(offset: try number("offset"), line: max(1, try number("line")))
    acknowledged = try number("acknowledged")
    sent = try number("sent")
    self.ends = try ends.map { end in
      guard let end = end.int, end >= 0 else { throw refuse("`ends` is malformed") }
      return end
    }
    guard file < job.files.count, sent >= acknowledged else { throw refuse("its figures contradict each other") }
  }
}
