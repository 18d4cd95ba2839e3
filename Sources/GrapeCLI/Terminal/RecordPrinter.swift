import GrapeCore
import GrapeWire

/// A record of a topic, on its own.
struct TopicRecord {
  var topic: String
  var partition: Int32
  var offset: Int64
  /// Milliseconds since 1970 UTC.
  var time: Int64
  var record: Record
  /// What the record's pointers point into.
  var memory: UnpackedBatch
  /// `g.e`; nil for records that are no events.
  var event: String?

  /// The records of a batch at or behind `offset`.
  static func read(_ batch: ByteSlice, topic: String, partition: Int32, from offset: Int64) throws -> [TopicRecord] {
    let unpacked: UnpackedBatch
    do throws(WireError) {
      unpacked = try RecordBatch.unpack(batch, checkingCRC: true, limit: 1 << 30)
    } catch {
      throw CommandFailure(.internal, "\(topic)/\(partition): a batch cannot be read: \(error.message)")
    }
    var records: [TopicRecord] = []
    records.reserveCapacity(Int(min(unpacked.header.recordCount, 1 << 16)))
    var reader = unpacked.reader()
    while let record = try reader.next() {
      let place = unpacked.header.baseOffset + Int64(record.offsetDelta)
      guard place >= offset else { continue }
      var event: String?
      var headers = record.headers
      while let (name, value) = try headers.next() {
        if name.elementsEqual("g.e".utf8), let value { event = String(decoding: value, as: UTF8.self) }
      }
      records.append(
        TopicRecord(
          topic: topic, partition: partition, offset: place,
          time: unpacked.header.baseTimestamp &+ record.timestampDelta,
          record: record, memory: unpacked, event: event))
    }
    return records
  }
}

/// Records as lines of text or JSON.
struct RecordPrinter {
  let json: Bool
  /// Longest value shown in text, in bytes.
  var valueLimit = 4096

  func print(_ record: TopicRecord) throws {
    Output.line(json ? try object(record).text : try line(record))
    withExtendedLifetime(record.memory) {}
  }

  private func line(_ item: TopicRecord) throws -> String {
    var line = "\(Format.time(item.time)) \(item.topic)/\(item.partition)@\(item.offset)"
    if let event = item.event { line += " \(event)" }
    if let key = item.record.key { line += " key=\(Format.inline(key, limit: 256))" }
    var headers = item.record.headers
    while let (name, value) = try headers.next() {
      guard !HeaderName.isReserved(name) || name.elementsEqual("g.x".utf8) else { continue }
      let label = name.elementsEqual("g.x".utf8) ? "dead" : Format.inline(name, limit: 128)
      line += " \(label)=\(value.map { Format.inline($0, limit: 512) } ?? "null")"
    }
    return line + " " + (item.record.value.map { Format.inline($0, limit: valueLimit) } ?? "null")
  }

  private func object(_ item: TopicRecord) throws -> JSONValue {
    var members: [JSONValue.Member] = [
      .init("topic", .string(item.topic)), .init("partition", JSONValue(item.partition)),
      .init("offset", JSONValue(item.offset)), .init("timeMs", JSONValue(item.time)),
      .init("time", .string(Format.time(item.time))), .init("event", JSONValue(item.event)),
      Payload.member("key", item.record.key), Payload.member("value", item.record.value),
    ]
    var own: [JSONValue] = []
    var headers = item.record.headers
    while let (name, value) = try headers.next() {
      if name.elementsEqual("g.x".utf8), let value {
        members.append(.init("deadLetter", (try? JSONValue(parsing: value)) ?? .string(Format.inline(value))))
      } else if !HeaderName.isReserved(name) {
        own.append(
          .object([.init("name", .string(String(decoding: name, as: UTF8.self))), Payload.member("value", value)]))
      }
    }
    members.append(.init("headers", .array(own)))
    return .object(members)
  }
}
