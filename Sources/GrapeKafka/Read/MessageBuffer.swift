internal import CRDKafka
internal import Glibc
internal import GrapeLog
internal import GrapeWire

/// Messages of one partition that were fetched and not read yet, in order of offset. Owns them.
struct MessageBuffer: ~Copyable {
  typealias Message = UnsafeMutablePointer<rd_kafka_message_t>

  private var messages: [Message] = []
  private var head = 0
  /// About the memory that the messages take.
  private(set) var bytes = 0

  deinit { for message in messages[head...] { rd_kafka_message_destroy(message) } }

  var isEmpty: Bool { head == messages.count }
  var firstOffset: Int64? { isEmpty ? nil : messages[head].pointee.offset }
  var lastOffset: Int64? { isEmpty ? nil : messages[messages.count - 1].pointee.offset }

  private static func size(_ message: Message) -> Int { message.pointee.len + message.pointee.key_len + 160 }

  /// Takes the message over.
  mutating func append(_ message: Message) {
    bytes += Self.size(message)
    messages.append(message)
  }

  private mutating func dropFirst() {
    let message = messages[head]
    bytes -= Self.size(message)
    rd_kafka_message_destroy(message)
    head += 1
    if head == messages.count {
      messages.removeAll(keepingCapacity: head <= 100_000)
      head = 0
    } else if head >= 4_096 && head * 2 >= messages.count {
      messages.removeFirst(head)
      head = 0
    }
  }

  /// Forgets messages before `offset`.
  mutating func drop(before offset: Int64) {
    while let first = firstOffset, first < offset { dropFirst() }
  }

  mutating func removeAll() { drop(before: .max) }

  /// Makes record batches of the first messages, as many as fit `maxBytes`, at least one message, and forgets them. A
  /// batch ends where offsets have a gap. `scratch` is memory to work in.
  mutating func takeBatches(maxBytes: Int, scratch: inout ByteWriter) -> [LogBatch] {
    var batches: [LogBatch] = []
    var total = 0
    while !isEmpty && (batches.isEmpty || total < maxBytes) {
      guard let batch = takeBatch(maxBytes: maxBytes - total, isFirst: batches.isEmpty, &scratch) else { break }
      total += batch.bytes.count
      batches.append(batch)
    }
    return batches
  }

  /// Nil if not even one message fits and there need not be one.
  private mutating func takeBatch(maxBytes: Int, isFirst: Bool, _ scratch: inout ByteWriter) -> LogBatch? {
    let base = messages[head].pointee.offset
    var next = base
    var baseTimestamp: Int64 = 0
    var builder = RecordBatchBuilder(capacity: max(256, min(maxBytes, bytes)))
    while !isEmpty, messages[head].pointee.offset == next, builder.recordCount < .max {
      let message = messages[head]
      var kind = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE
      let timestamp = rd_kafka_message_timestamp(message, &kind)
      if builder.isEmpty {
        baseTimestamp = timestamp
      } else if timestamp.subtractingReportingOverflow(baseTimestamp).overflow {
        break
      }
      scratch.truncate(to: 0)
      Self.writeHeaders(of: message, to: &scratch)
      let mark = builder.mark
      builder.append(
        key: Self.bytes(message.pointee.key, message.pointee.key_len),
        value: Self.bytes(message.pointee.payload, message.pointee.len), headerSection: scratch.unsafeBytes,
        timestamp: timestamp)
      if builder.byteCount > maxBytes && !(isFirst && builder.recordCount == 1) {
        builder.rollBack(to: mark)
        break
      }
      next += 1
      dropFirst()
    }
    if builder.isEmpty { return nil }
    let finished: FinishedBatch
    do throws(WireError) {
      finished = try builder.take(nextCapacity: 0)
    } catch {
      preconditionFailure("a batch that is not compressed can always be built: \(error)")
    }
    let storage = finished.bytes.storage
    // Nobody else has seen the memory yet.
    RecordBatch.setBaseOffset(
      base, in: UnsafeMutableRawBufferPointer(start: storage.base + finished.bytes.offset, count: finished.bytes.count))
    return LogBatch(
      bytes: finished.bytes, baseOffset: base, lastOffset: next - 1, maxTimestamp: finished.maxTimestamp)
  }

  /// Null for null; librdkafka tells empty from null by the pointer.
  private static func bytes(_ pointer: UnsafeMutableRawPointer?, _ count: Int) -> UnsafeRawBufferPointer? {
    pointer.map { UnsafeRawBufferPointer(start: $0, count: count) }
  }

  private static func writeHeaders(of message: Message, to writer: inout ByteWriter) {
    var headers: OpaquePointer?
    guard rd_kafka_message_headers(message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR, let headers else {
      writer.varint(0)
      return
    }
    let count = rd_kafka_header_cnt(headers)
    writer.varint(Int64(count))
    for place in 0..<count {
      var name: UnsafePointer<CChar>?
      var value: UnsafeRawPointer?
      var size = 0
      rd_kafka_header_get_all(headers, place, &name, &value, &size)
      let text = UnsafeRawBufferPointer(start: name, count: name.map { strlen($0) } ?? 0)
      writer.varint(Int64(text.count))
      writer.bytes(text)
      writer.varint(value == nil ? -1 : Int64(size))
      if let value { writer.bytes(UnsafeRawBufferPointer(start: value, count: size)) }
    }
  }
}
