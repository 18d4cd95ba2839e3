import CGrapeLinux
import Grape
import GrapeCore
import GrapeWire

/// A record as `grape log produce` writes it.
struct PlainRecord {
  var key: ByteSlice?
  /// nil is null: a tombstone.
  var value: ByteSlice?
  var headers: [OutgoingEvent.Header]

  /// What is wrong with a line.
  struct Problem: Error {
    var message: String
  }

  init(key: ByteSlice?, value: ByteSlice?, headers: [OutgoingEvent.Header]) {
    self.key = key
    self.value = value
    self.headers = headers
  }

  /// A line of text: the value, or key and value with `separator` between them.
  init(
    line: UnsafeRawBufferPointer, key: String?, separator: [UInt8]?, headers: [OutgoingEvent.Header]
  ) throws(Problem) {
    self.headers = headers
    guard let separator, let first = separator.first else {
      self.key = key.map { ByteSlice($0) }
      value = ByteSlice(copying: line)
      return
    }
    var place = 0
    while place < line.count {
      guard let next = line[place...].firstIndex(of: first) else { break }
      if line[next...].starts(with: separator) {
        self.key = ByteSlice(copying: UnsafeRawBufferPointer(rebasing: line[..<next]))
        value = ByteSlice(copying: UnsafeRawBufferPointer(rebasing: line[(next + separator.count)...]))
        return
      }
      place = next + 1
    }
    throw Problem(message: "there is no `\(String(decoding: separator, as: UTF8.self))` between a key and a value")
  }

  /// An object: `key`, `value`, `keyBase64`, `valueBase64`, `headers`.
  init(ndjson line: UnsafeRawBufferPointer) throws(Problem) {
    let json: JSONValue
    do throws(JSONError) { json = try JSONValue(parsing: line) } catch {
      throw Problem(message: "not JSON, byte \(error.offset + 1): \(error.message)")
    }
    guard let members = json.object else { throw Problem(message: "a JSON object is expected") }
    let names = ["key", "keyBase64", "value", "valueBase64", "headers"]
    for member in members where !names.contains(member.name) {
      throw Problem(message: "there is no member `\(member.name)`; possible are \(names.joined(separator: ", "))")
    }
    func bytes(_ name: String) throws(Problem) -> ByteSlice? {
      switch (json[name], json[name + "Base64"]) {
      case (nil, nil), (.null, nil), (nil, .null): return nil
      case (.string(let text), nil): return ByteSlice(text)
      case (nil, .string(let text)):
        guard let bytes = Base64.bytes(text) else { throw Problem(message: "`\(name)Base64` is no base64") }
        return bytes
      default: throw Problem(message: "`\(name)` is a text or null, or `\(name)Base64` is base64: one of them")
      }
    }
    key = try bytes("key")
    value = try bytes("value")
    headers = []
    guard let given = json["headers"], !given.isNull else { return }
    guard let list = given.object else { throw Problem(message: "`headers` is an object of texts") }
    for header in list {
      guard !header.name.hasPrefix("g.") else {
        throw Problem(message: "header `\(header.name)`: names that begin with g. belong to Grape")
      }
      switch header.value {
      case .string(let text): headers.append(OutgoingEvent.Header(header.name, ByteSlice(text)))
      case .null: headers.append(OutgoingEvent.Header(header.name, nil))
      default: throw Problem(message: "header `\(header.name)` is a text or null")
      }
    }
  }
}

/// Gathers records and has the node append them.
final class RecordWriter {
  private let topic: TopicName
  private let partition: Int32?
  private let node: NodeConnection
  private var batch = RecordBatchBuilder(capacity: 64 << 10)
  /// Records that the log has.
  private(set) var count = 0
  /// Where they are, a piece each; only of the last request if there were several.
  private(set) var places: [JSONValue] = []

  /// A request is sent when it has so many bytes.
  private static let requestBytes = 1 << 20

  init(topic: TopicName, partition: Int32?, node: NodeConnection) {
    self.topic = topic
    self.partition = partition
    self.node = node
  }

  func add(_ record: PlainRecord) throws {
    var headers = HeaderSection()
    for header in record.headers {
      ByteSlice(header.name).withUnsafeBytes { headers.append($0, header.value?.unsafeBytes) }
    }
    batch.append(
      key: record.key, value: record.value, headerSection: headers.finish(), timestamp: grape_realtime_ms())
    if batch.byteCount >= Self.requestBytes { try flush() }
  }

  /// Sends what was gathered and waits for the answer.
  func flush() throws {
    guard !batch.isEmpty else { return }
    let finished = try batch.take()
    let answer = try node.request(
      "log.append",
      [
        .init("topic", .string(topic.text)), .init("partition", partition.map { JSONValue($0) } ?? -1),
      ], blob: finished.bytes)
    count += Int(finished.recordCount)
    places = answer.json["appended"]?.array ?? []
  }
}
