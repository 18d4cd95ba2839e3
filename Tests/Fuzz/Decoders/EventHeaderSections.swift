import GrapeCore
import GrapeWire

@testable import Grape

extension FuzzTarget {
  /// A record's headers, and the values that Grape puts into them.
  static let eventHeaders = FuzzTarget("event-headers") {
    let address = ReplyAddress(correlation: CorrelationID(high: 1, low: 2), partition: 3, topic: "_grape.replies.n1")
    var section = HeaderSection()
    section.append(HeaderName.event, Array("parsed".utf8))
    section.append(deadline: 1_700_000_000_000)
    section.append(HeaderName.hops, [1])
    section.append(HeaderName.replyAddress, address.encoded)
    section.append(HeaderName.traceparent, Array("00-4bf9-00f0-01".utf8))
    section.append("own", [1, 2, 3])
    return [
      section.finish().array, address.encoded, ReplyStatus(.gaveUp, ran: .unknown, code: 7, message: "why").encoded,
      address.correlation.encoded,
    ]
  } body: { bytes in
    if let address = try taken({ try ReplyAddress(bytes.unsafeBytes) }) {
      try promise(address.encoded == bytes.array, "a reply address of other bytes")
    }
    if let status = try taken({ try ReplyStatus(bytes.unsafeBytes) }) {
      let again = status.encoded
      try promise(try again.withUnsafeBytes { try ReplyStatus($0) } == status, "another reply status")
    }
    if let id = CorrelationID(bytes.unsafeBytes) {
      try promise(id.encoded == bytes.array, "a correlation id of other bytes")
    }
    guard bytes.count > 0 else { return }
    // By way of a record, as headers come.
    var builder = RecordBatchBuilder()
    builder.append(key: nil, value: nil, headerSection: bytes, timestamp: 0)
    let unpacked = try RecordBatch.unpack(try builder.take().bytes, checkingCRC: true, limit: 1 << 24)
    defer { withExtendedLifetime(unpacked) {} }
    var reader = unpacked.reader()
    guard let record = try reader.next() else { throw BrokenPromise(description: "the record is gone") }
    try promise(record.headerSection.elementsEqual(bytes.unsafeBytes), "other headers than were given")
    if let copy = try taken({ try copied(record.headers) }) {
      var ours = RecordHeaders(section: copy.unsafeBytes)
      var theirs = record.headers
      while let (name, value) = try theirs.next() {
        guard let mine = try ours.next() else { throw BrokenPromise(description: "a header is lost") }
        try promise(
          mine.name.elementsEqual(name) && mine.value.map { [UInt8]($0) } == value.map { [UInt8]($0) },
          "another header")
      }
      try promise(try ours.next() == nil, "a header too many")
      withExtendedLifetime(copy) {}
    }
    if let headers = try taken({ try EventHeaders(record) }) {
      touch(headers.event)
      touch(headers.replyAddress)
      touch(headers.traceparent)
      _ = try taken { try OriginHeaders(headers) }
    }
  }

  private static func copied(_ headers: RecordHeaders) throws -> ByteSlice {
    var headers = headers
    var section = HeaderSection()
    while let (name, value) = try headers.next() { section.append(name, value) }
    return section.finish()
  }
}
