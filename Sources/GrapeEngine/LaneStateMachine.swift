internal import GrapeLog
internal import GrapeWire

/// One partition of an application's input: what is fetched, what is at a worker, what is done, what is tried again. Pure.
///
/// At most one delivery is at a worker at a time, so order within the partition holds by construction; reading ahead keeps the
/// next one at hand.
struct LaneStateMachine {
  /// What a worker was given.
  struct Delivery {
    var id: UInt64
    var worker: Int
    var first: Int64
    var end: Int64
    var bytes: Int
    /// Oldest batch's timestamp, milliseconds.
    var timestamp: Int64
    /// Monotonic time of the dispatch, nanoseconds.
    var sentAt: Int64
  }

  /// What could be delivered now.
  struct Plan {
    var first: Int64
    var end: Int64
    var attempt: UInt32
    var batches: ArraySlice<LogBatch>
    var bytes: Int
    /// One event that was at a worker which died: to go to a worker that holds nothing else.
    var isSuspect: Bool
  }

  enum Fetch: Equatable {
    case read(from: Int64)
    case watch(after: Int64)
  }

  let partition: Int32
  /// All offsets below are dealt with; the log has been told or is being told.
  private(set) var processed: Int64
  /// Durably so.
  private(set) var committed: Int64
  /// End of the partition as last seen.
  private(set) var end: Int64
  private(set) var delivery: Delivery?
  /// Not before this time (monotonic) is anything delivered: a retry waits.
  private(set) var blockedUntil: Int64 = 0

  /// Batches read and not dealt with. Compaction may have taken offsets between them and records inside them.
  private var fetched: [LogBatch] = []
  private var fetchedBytes = 0
  /// All below this offset was read: what is not in `fetched` is dealt with, or there is no such record.
  private var readEnd: Int64
  private var isFetching = false
  /// Events below this offset were at a worker that died: they are delivered one by one, so that the one at fault
  /// stands alone.
  private var suspectEnd: Int64 = 0
  /// The event at the head and how often it has failed on its own.
  private var headOffset: Int64 = -1
  private var headFailures: UInt32 = 0
  /// Counted no further.
  private static let mostFailures: UInt32 = 1 << 24
  /// Attempts must be on disk before the event is tried again.
  private(set) var awaitsAttemptCommit = false

  init(partition: Int32, start: CommittedOffset?, bounds: PartitionBounds) {
    self.partition = partition
    processed = min(max(start?.offset ?? 0, bounds.start), bounds.end)
    committed = processed
    readEnd = processed
    end = bounds.end
    if let metadata = start?.metadata { restore(metadata) }
  }

  /// Events not dealt with yet, as far as known.
  var lag: Int64 { max(0, end - processed) }
  var hasWork: Bool { delivery != nil || end > processed }

  // MARK: Fetching

  /// What to ask the log for now; nil: nothing. Marks the request as made.
  mutating func planFetch(batchBytes: Int) -> Fetch? {
    guard !isFetching, fetchedBytes - (delivery?.bytes ?? 0) < batchBytes else { return nil }
    isFetching = true
    return readEnd < end ? .read(from: readEnd) : .watch(after: readEnd)
  }

  /// The watch fired: the partition has grown past `offset`.
  mutating func grew(past offset: Int64) {
    isFetching = false
    end = max(end, offset + 1)
  }

  /// Batches came. They continue what was fetched, unless the lane has moved on meanwhile.
  mutating func read(_ result: ReadResult, from offset: Int64) {
    isFetching = false
    end = max(end, result.bounds.end)
    guard offset == readEnd else { return }
    for batch in result.batches where batch.lastOffset >= readEnd {
      fetched.append(batch)
      fetchedBytes += batch.bytes.count
      readEnd = batch.lastOffset + 1
    }
    // No record is left up to the end.
    if result.batches.isEmpty { readEnd = max(readEnd, result.bounds.end) }
    passGap()
  }

  /// The read failed: it will be planned anew.
  mutating func readFailed() { isFetching = false }

  /// Retention has dropped what the lane was to read next: it goes on at the first offset there is.
  mutating func skip(to bounds: PartitionBounds) {
    isFetching = false
    end = max(end, bounds.end)
    readEnd = max(readEnd, bounds.start)
    passGap()
  }

  /// Goes on behind offsets that no batch holds. What is known of an earlier head is forgotten.
  private mutating func passGap() {
    guard delivery == nil else { return }
    processed = max(processed, fetched.first?.baseOffset ?? readEnd)
    guard headOffset < processed else { return }
    headOffset = -1
    headFailures = 0
    blockedUntil = 0
  }

  // MARK: Delivering

  /// What to deliver now; nil: nothing is there, something is at a worker, or a retry waits.
  ///
  /// - Parameter unpackedLimit: most bytes of records that a batch may have, compressed or not.
  mutating func planDelivery(now: Int64, batchBytes: Int, unpackedLimit: Int = FrameHeader.defaultLimit) -> Plan? {
    guard delivery == nil, !awaitsAttemptCommit, now >= blockedUntil else { return nil }
    if processed < suspectEnd { passMissingRecords(unpackedLimit) }
    guard let first = fetched.first else { return nil }
    let alone = processed < suspectEnd
    var count = 1
    var bytes = first.bytes.count
    while !alone, count < fetched.count, bytes + fetched[count].bytes.count <= batchBytes {
      bytes += fetched[count].bytes.count
      count += 1
    }
    return Plan(
      first: processed, end: alone ? processed + 1 : fetched[count - 1].lastOffset + 1,
      attempt: failuresOfHead + (alone ? 2 : 1), batches: fetched[0..<count], bytes: bytes, isSuspect: alone)
  }

  /// Moves the head to a record that exists, so that what is delivered alone is an event and not a gap.
  private mutating func passMissingRecords(_ limit: Int) {
    while let batch = fetched.first {
      guard let next = Self.firstRecord(of: batch, from: processed, limit: limit) else {
        advance(to: batch.lastOffset + 1)
        continue
      }
      return advance(to: next)
    }
  }

  /// Offset of the first record at or behind `offset`; nil if the batch has none. A batch that cannot be read counts as
  /// whole: its delivery says what is wrong with it.
  private static func firstRecord(of batch: LogBatch, from offset: Int64, limit: Int) -> Int64? {
    let from = max(offset, batch.baseOffset)
    guard let header = try? RecordBatchHeader(batch.bytes.unsafeBytes),
      header.recordCount <= header.lastOffsetDelta
    else { return from }
    var found: Int64?
    do throws(WireError) {
      try RecordBatch.forEachKey(batch.bytes, checkingCRC: false, limit: limit) { record in
        if found == nil, record.offset >= from { found = record.offset }
      }
    } catch {
      return from
    }
    return found
  }

  mutating func delivered(_ delivery: Delivery) { self.delivery = delivery }

  /// How often the event at the head has failed on its own.
  var failuresOfHead: UInt32 { headOffset == processed ? headFailures : 0 }

  // MARK: Outcomes

  /// The worker dealt with everything below `offset`.
  mutating func completed(upTo offset: Int64) {
    delivery = nil
    advance(to: offset)
  }

  /// The event at the head failed; it may be tried again after `delay` nanoseconds.
  mutating func headFailed(now: Int64, delay: Int64) {
    headFailures = min(failuresOfHead + 1, Self.mostFailures)
    headOffset = processed
    blockedUntil = now + delay
  }

  /// Events below `offset` were in a delivery whose result was refused: they are delivered one by one.
  mutating func suspect(upTo offset: Int64) { suspectEnd = max(suspectEnd, offset) }

  /// The event at the head has failed so often already.
  mutating func headHasFailed(_ failures: UInt32) {
    headOffset = processed
    headFailures = min(max(failuresOfHead, failures), Self.mostFailures)
  }

  /// The events at the head were at a worker that died.
  var isSuspect: Bool { processed < suspectEnd }

  /// The worker died over the delivery. True: the attempt must be committed before the events go out again.
  ///
  /// - Parameter isAlone: it held no other delivery.
  mutating func workerDied(now: Int64, delay: Int64, isAlone: Bool) -> Bool {
    guard let lost = delivery else { return false }
    delivery = nil
    if isAlone, lost.end - lost.first == 1 {
      headFailed(now: now, delay: delay)
    } else {
      suspectEnd = max(suspectEnd, lost.end)
    }
    awaitsAttemptCommit = true
    return true
  }

  mutating func attemptCommitted() { awaitsAttemptCommit = false }

  /// The delivery came back undone through no fault of its events: the application is being stopped.
  mutating func released() { delivery = nil }

  /// The event at the head is set aside: the lane goes on behind it.
  mutating func skippedHead() { advance(to: processed + 1) }

  private mutating func advance(to offset: Int64) {
    processed = offset
    end = max(end, offset)
    var done = 0
    while done < fetched.count, fetched[done].lastOffset < processed {
      fetchedBytes -= fetched[done].bytes.count
      done += 1
    }
    if done > 0 { fetched.removeFirst(done) }
    readEnd = max(readEnd, processed)
    passGap()
  }

  mutating func committed(upTo offset: Int64) { committed = max(committed, offset) }

  /// The oldest batch not dealt with, if it is at hand.
  var firstBatch: LogBatch? { fetched.first }

  /// The fetched batches with offsets in `range`; nil if it begins before what is at hand, or ends behind.
  func batches(covering range: Range<Int64>) -> ArraySlice<LogBatch>? {
    guard range.upperBound <= readEnd, range.lowerBound >= processed else { return nil }
    let first = fetched.firstIndex { $0.lastOffset >= range.lowerBound } ?? fetched.endIndex
    let end = fetched.firstIndex { $0.baseOffset >= range.upperBound } ?? fetched.endIndex
    return fetched[first..<max(first, end)]
  }

  /// The fetched batch that covers `offset`.
  func batch(holding offset: Int64) -> LogBatch? {
    fetched.first { $0.baseOffset <= offset && offset <= $0.lastOffset }
  }

  // MARK: Notes kept in the log

  /// What goes with the offset into the log: suspects and attempts survive the node.
  var metadata: [UInt8] {
    guard suspectEnd > processed || failuresOfHead > 0 else { return [] }
    var writer = ByteWriter(capacity: 21)
    writer.u8(1)
    writer.i64(suspectEnd)
    writer.i64(headOffset)
    writer.u32(failuresOfHead)
    return writer.finish().array
  }

  private mutating func restore(_ metadata: [UInt8]) {
    // Notes of a later version, or none: the events are simply tried afresh.
    guard metadata.count == 21, metadata[0] == 1 else { return }
    metadata.withUnsafeBytes { bytes in
      func integer<Value: FixedWidthInteger>(_ offset: Int, _: Value.Type) -> Value {
        Value(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Value.self))
      }
      suspectEnd = integer(1, Int64.self)
      headOffset = integer(9, Int64.self)
      // Whatever was noted, there is room to count on.
      headFailures = min(integer(17, UInt32.self), Self.mostFailures)
    }
  }
}
