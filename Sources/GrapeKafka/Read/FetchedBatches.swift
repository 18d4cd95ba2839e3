internal import CRDKafka
internal import Glibc
internal import GrapeLog
internal import GrapeWire

/// What was fetched of one partition and not read yet, in order of offset, as record batches: each message is laid into one as it comes, and let go
/// of. A batch ends where it is large enough, where offsets have a gap, and where a read takes it.
struct FetchedBatches: ~Copyable {
  typealias Message = UnsafeMutablePointer<rd_kafka_message_t>
  typealias Messages = UnsafeMutableBufferPointer<Message?>

  /// About the size at which a batch ends, bytes: what is read in one go.
  var batchBytes = 256 << 10

  private var finished: [LogBatch] = []
  private var head = 0
  private var finishedBytes = 0
  /// The batch that messages are added to, the offset of its first, and of the one that would go on with it.
  private var open = RecordBatchBuilder(capacity: 0)
  private var openBase: Int64 = 0
  private var openNext: Int64 = 0
  private var openBaseTimestamp: Int64 = 0
  /// What the next open batch begins with: in a long run each is as large as the one before.
  private var openCapacity = firstCapacity
  private static let firstCapacity = 1 << 10

  var isEmpty: Bool { head == finished.count && open.isEmpty }
  /// Of all batches.
  var bytes: Int { finishedBytes + (open.isEmpty ? 0 : open.byteCount) }

  /// Adds the messages' records, but for those before `first`, and destroys all. `scratch` is memory to work in. What follows the last one; nil:
  /// nothing was added.
  mutating func take(_ messages: Slice<Messages>, from first: Int64, scratch: inout ByteWriter) -> Int64? {
    var next: Int64?
    for case let message? in messages {
      if message.pointee.offset >= max(first, next ?? first) {
        add(message, scratch: &scratch)
        next = message.pointee.offset + 1
      }
      rd_kafka_message_destroy(message)
    }
    return next
  }

  /// Adds the records of a batch whose first has the offset `first`; the others follow it. What follows the last one.
  mutating func take(_ batch: UnpackedBatch, at first: Int64) throws(WireError) -> Int64 {
    var next = first
    var reader = batch.reader()
    while let record = try reader.next() {
      add(
        next, batch.header.baseTimestamp &+ record.timestampDelta, key: record.key, value: record.value,
        headerSection: record.headerSection)
      next += 1
    }
    withExtendedLifetime(batch) {}
    return next
  }

  private mutating func add(_ message: Message, scratch: inout ByteWriter) {
    scratch.truncate(to: 0)
    Self.writeHeaders(of: message, to: &scratch)
    var kind = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE
    add(
      message.pointee.offset, rd_kafka_message_timestamp(message, &kind),
      key: Self.bytes(message.pointee.key, message.pointee.key_len),
      value: Self.bytes(message.pointee.payload, message.pointee.len), headerSection: scratch.unsafeBytes)
  }

  private mutating func add(
    _ offset: Int64, _ timestamp: Int64, key: UnsafeRawBufferPointer?, value: UnsafeRawBufferPointer?,
    headerSection: UnsafeRawBufferPointer
  ) {
    if !open.isEmpty {
      if offset != openNext || open.recordCount == .max
        || timestamp.subtractingReportingOverflow(openBaseTimestamp).overflow
      {
        finish()
      } else {
        let mark = open.mark
        open.append(key: key, value: value, headerSection: headerSection, timestamp: timestamp)
        openNext = offset + 1
        if open.byteCount <= batchBytes { return }
        open.rollBack(to: mark)
        openNext = offset
        finish(isRun: true)
      }
    }
    open = RecordBatchBuilder(capacity: openCapacity)
    openBase = offset
    openBaseTimestamp = timestamp
    open.append(key: key, value: value, headerSection: headerSection, timestamp: timestamp)
    openNext = offset + 1
  }

  /// Ends the batch that messages are added to. `isRun`: another one follows at once.
  private mutating func finish(isRun: Bool = false) {
    if open.isEmpty { return }
    // With room for one that does not fit any more.
    openCapacity = isRun ? min(batchBytes, 2 << 20) / 8 * 9 : Self.firstCapacity
    let batch: FinishedBatch
    do throws(WireError) {
      batch = try open.take(nextCapacity: 0)
    } catch {
      preconditionFailure("a batch that is not compressed can always be built: \(error)")
    }
    let storage = batch.bytes.storage
    // Nobody else has seen the memory yet.
    RecordBatch.setBaseOffset(
      openBase, in: UnsafeMutableRawBufferPointer(start: storage.base + batch.bytes.offset, count: batch.bytes.count))
    finished.append(
      LogBatch(
        bytes: batch.bytes, baseOffset: openBase, lastOffset: openNext - 1, maxTimestamp: batch.maxTimestamp))
    finishedBytes += batch.bytes.count
  }

  /// Forgets batches that end before `offset`.
  mutating func drop(before offset: Int64) {
    while head < finished.count, finished[head].lastOffset < offset { dropFirst() }
    if head == finished.count, !open.isEmpty, openNext <= offset {
      finish()
      dropFirst()
    }
  }

  mutating func removeAll() { drop(before: .max) }

  private mutating func dropFirst() {
    finishedBytes -= finished[head].bytes.count
    head += 1
    if head == finished.count {
      finished.removeAll(keepingCapacity: head <= 1_024)
      head = 0
    } else if head >= 64, head * 2 >= finished.count {
      finished.removeFirst(head)
      head = 0
    }
  }

  /// Takes the first batches out, from `offset` on: as many as fit `maxBytes`, at least one record if there is any.
  mutating func takeFirst(from offset: Int64, maxBytes: Int) -> [LogBatch] {
    drop(before: offset)
    var taken: [LogBatch] = []
    var size = 0
    while true {
      // The last one may grow on only while others are enough.
      if head == finished.count {
        if !taken.isEmpty, size + open.byteCount > maxBytes { break }
        finish()
      }
      guard head < finished.count else { break }
      if taken.isEmpty { cutFirst(from: offset, maxBytes: maxBytes) }
      guard taken.isEmpty || size + finished[head].bytes.count <= maxBytes else { break }
      size += finished[head].bytes.count
      taken.append(finished[head])
      dropFirst()
    }
    return taken
  }

  /// Makes the first batch begin no earlier than `offset`, and fit, unless it has only one record. Batches are as large as what was read last
  /// asked for, so this is seldom called for.
  private mutating func cutFirst(from offset: Int64, maxBytes: Int) {
    let whole = finished[head]
    guard whole.baseOffset < offset || whole.bytes.count > maxBytes else { return }
    var parts = FetchedBatches()
    parts.batchBytes = maxBytes
    do throws(WireError) {
      let unpacked = try RecordBatch.unpack(whole.bytes, checkingCRC: false, limit: whole.bytes.count)
      defer { withExtendedLifetime(unpacked) {} }
      var reader = unpacked.reader()
      while let record = try reader.next() {
        let at = whole.baseOffset + Int64(record.offsetDelta)
        if at < offset { continue }
        let timestamp = unpacked.header.baseTimestamp &+ record.timestampDelta
        // What is left after the first part stays in one piece.
        if !parts.finished.isEmpty { parts.batchBytes = .max }
        parts.add(
          at, timestamp, key: record.key, value: record.value, headerSection: record.headerSection)
      }
    } catch {
      preconditionFailure("a batch that was built here can be read: \(error)")
    }
    parts.finish()
    finishedBytes += parts.finishedBytes - whole.bytes.count
    finished.replaceSubrange(head...head, with: parts.finished)
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
