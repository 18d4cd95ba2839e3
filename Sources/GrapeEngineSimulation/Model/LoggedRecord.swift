import GrapeCore
import GrapeLog
import GrapeWire

/// A record of a topic, copied.
struct LoggedRecord: Hashable, CustomStringConvertible {
  var key: [UInt8]?
  var value: [UInt8]?
  /// Name and value.
  var headers: [Header] = []

  struct Header: Hashable {
    var name: String
    var value: [UInt8]?
  }

  init(key: [UInt8]?, value: [UInt8]?, headers: [Header] = []) {
    self.key = key
    self.value = value
    self.headers = headers
  }

  subscript(name: String) -> [UInt8]? { headers.first { $0.name == name }?.value }

  var event: String { String(decoding: self["g.e"] ?? [], as: UTF8.self) }
  var hops: UInt8 { self["g.h"]?.first ?? 0 }
  var replyAddress: [UInt8]? { self["g.r"] }

  /// How an event ended, if this is a reply.
  var status: ReplyStatus? { self["g.s"].flatMap { $0.withUnsafeBytes { try? ReplyStatus($0) } } }

  var description: String {
    let text = value.map { String(decoding: $0.prefix(80), as: UTF8.self) } ?? "nothing"
    let name = key.map { String(decoding: $0, as: UTF8.self) } ?? "no key"
    return "\(name.debugDescription): \(text.debugDescription) \(headers.map(\.name))"
  }

  /// The records of a batch, with their offsets from its base.
  static func all(in batch: ByteSlice) throws(WireError) -> [(delta: Int, record: LoggedRecord)] {
    let unpacked = try RecordBatch.unpack(batch, checkingCRC: true, limit: 1 << 26)
    defer { withExtendedLifetime(unpacked) {} }
    var reader = unpacked.reader()
    var records: [(Int, LoggedRecord)] = []
    while let record = try reader.next() {
      var logged = LoggedRecord(key: record.key.map { [UInt8]($0) }, value: record.value.map { [UInt8]($0) })
      var headers = record.headers
      while let (name, value) = try headers.next() {
        logged.headers.append(
          Header(name: String(decoding: name, as: UTF8.self), value: value.map { [UInt8]($0) }))
      }
      records.append((Int(record.offsetDelta), logged))
    }
    return records
  }
}
