internal import CGrapeLinux
internal import Glibc
internal import GrapeCore
internal import GrapeWire
internal import Synchronization

/// Runs the events of one delivery in order and gathers its result. No I/O; used on the worker's thread alone.
///
/// `advance` runs handlers until one wants to suspend; the caller awaits that one, says how it ended, and goes on.
/// Reused by later deliveries.
final class DeliveryRun {
  enum Step {
    /// All is done: `writeResult`.
    case finished
    /// Await this handler, then call `endAwaited`.
    case await(Handler.Async, Event)
  }

  private let session: Session
  let context: Context
  private var outputs: OutputSet { context.outputs }
  /// Where this run's progress is told while it is the oldest; nil otherwise.
  var progress: Progress?

  private(set) var id: UInt64 = 0
  private(set) var partition: Int32 = 0
  private var attempt: UInt32 = 0
  private var first: Int64 = 0
  private var end: Int64 = 0
  private var skips: [Int64] = []
  private var nextSkip = 0
  private var batches: [ByteSlice] = []
  private var nextBatch = 0

  // The batch being run.
  private var unpacked: UnpackedBatch?
  private var reader = RecordReader(records: UnsafeRawBufferPointer(start: nil, count: 0), count: 0)
  private var groups = GroupCache()

  // The event being awaited.
  private var awaited: (offset: Int64, slot: Int)?

  // The result.
  private var processed: Int64 = 0
  private var verdicts = ByteWriter(capacity: 256)
  private var verdictCount: UInt32 = 0
  private var tally: Tally
  /// Events dealt with so far.
  private(set) var done: UInt32 = 0
  private var isStopped = false

  init(session: Session) {
    self.session = session
    context = Context(session: session)
    tally = Tally(slots: session.slots.count)
  }

  func begin(_ delivery: Delivery) {
    id = delivery.id
    partition = delivery.partition
    attempt = delivery.attempt
    first = delivery.first
    end = delivery.end
    skips = delivery.skips
    nextSkip = 0
    batches = delivery.batches
    nextBatch = 0
    unpacked = nil
    processed = delivery.end
    verdicts.truncate(to: 0)
    verdictCount = 0
    tally.reset()
    done = 0
    isStopped = false
    outputs.beginDelivery(timestamp: grape_realtime_ms())
  }

  /// Lets go of the delivery's memory.
  func clear() {
    batches = []
    unpacked = nil
    groups.clear()
  }

  /// Runs events until the delivery is done or a handler wants to suspend. Throws if the node sent what is no batch.
  func advance() throws(WireError) -> Step {
    while !isStopped {
      guard let batch = unpacked else {
        guard nextBatch < batches.count else { break }
        let opened = try RecordBatch.unpack(batches[nextBatch], checkingCRC: false, limit: unpackedLimit)
        nextBatch += 1
        reader = opened.reader()
        groups.clear()
        unpacked = opened
        continue
      }
      if let step = try run(batch) { return step }
      if !isStopped { unpacked = nil }
    }
    tally.run(slot: -1)
    return .finished
  }

  private var unpackedLimit: Int { max(session.info.limits.maxFrame, FrameHeader.defaultLimit) * 4 }

  /// Runs the rest of a batch. nil: it is done, or the delivery is stopped.
  private func run(_ batch: UnpackedBatch) throws(WireError) -> Step? {
    let storage = batch.records.storage
    let base = batch.header.baseOffset
    let baseTimestamp = batch.header.baseTimestamp
    let context = context
    // A copy: access to a stored property would be checked for exclusivity at each record.
    var reader = reader
    var slot = -1
    var handler: Handler.Sync?
    var succeeded: UInt32 = 0
    defer { if slot >= 0 { tally.add(succeeded: succeeded, slot: slot) } }

    while let record = try reader.next() {
      let offset = base &+ Int64(record.offsetDelta)
      if offset < first { continue }
      if offset >= end {
        isStopped = true
        return nil
      }
      if nextSkip < skips.count, isSkipped(offset) { continue }
      let group: EventGroup
      if let known = groups.last(record.headerSection) {
        group = known
      } else {
        group = try findGroup(record, storage: storage)
      }
      if let deadline = group.headers.deadline, deadline <= grape_realtime_ms() {
        try refuse(.expired, group, offset)
        continue
      }
      guard let target = group.slot else {
        try refuse(.noSuchSlot(group.name), group, offset)
        continue
      }
      if target.index != slot {
        if slot >= 0 { tally.add(succeeded: succeeded, slot: slot) }
        succeeded = 0
        slot = target.index
        tally.run(slot: slot)
        if case .sync(let body) = target.handler { handler = body } else { handler = nil }
      }
      let event = Event(record, in: group, offset: offset, timestamp: baseTimestamp &+ record.timestampDelta)
      context.begin(group)
      guard let handler else {
        guard case .async(let body) = target.handler else { preconditionFailure("a handler is sync or async") }
        self.reader = reader
        awaited = (offset, slot)
        return .await(body, event)
      }
      do {
        try handler(event, context)
        if try settle(group, offset) { succeeded += 1 }
      } catch {
        tally.addFailed(slot: slot)
        try fail(error, group, offset)
      }
      context.end()
      advanceProgress()
      if isStopped { return nil }
    }
    return nil
  }

  /// The handler that `advance` returned has ended; nil is success.
  func endAwaited(_ failure: (any Error)?) throws(WireError) {
    guard let awaited, let group = context.group else { preconditionFailure("no handler is being awaited") }
    self.awaited = nil
    if let failure {
      tally.addFailed(slot: awaited.slot)
      try fail(failure, group, awaited.offset)
    } else {
      do {
        if try settle(group, awaited.offset) { tally.add(succeeded: 1, slot: awaited.slot) }
      } catch {
        tally.addFailed(slot: awaited.slot)
        try fail(error, group, awaited.offset)
      }
    }
    // The time an event waits for something is its handler's, that between two events is not.
    tally.run(slot: -1)
    context.end()
    advanceProgress()
  }

  @inline(__always)
  private func advanceProgress() {
    done &+= 1
    if let progress { progress.done.store(done, ordering: .relaxed) }
  }

  private func isSkipped(_ offset: Int64) -> Bool {
    while nextSkip < skips.count, skips[nextSkip] < offset { nextSkip += 1 }
    guard nextSkip < skips.count, skips[nextSkip] == offset else { return false }
    nextSkip += 1
    return true
  }

  @inline(never)
  private func findGroup(_ record: borrowing Record, storage: ByteStorage) throws(WireError) -> EventGroup {
    if let known = groups.find(record.headerSection) { return known }
    let headers = try EventHeaders(copy record)
    let name = headers.event.map { ByteSlice(copying: $0) } ?? ByteSlice([])
    let slot = session.slot(named: name)
    let group = EventGroup(
      storage: storage, headers: try OriginHeaders(headers), name: slot?.name ?? name.string, slot: slot,
      partition: partition, attempt: attempt)
    groups.insert(group, for: record.headerSection)
    return group
  }
}

// How events end.
extension DeliveryRun {
  /// The handler succeeded: a caller who got nothing gets an empty reply. False if the event is left to another delivery.
  @inline(__always)
  private func settle(_ group: EventGroup, _ offset: Int64) throws -> Bool {
    if let target = group.headers.reply, !context.hasReplied, !context.hasPassedOriginOn {
      try outputs.reply(to: target, ReplyStatus(), data: nil)
    }
    if outputs.isNearlyFull { stop(at: offset + 1) }
    return true
  }

  @inline(never)
  private func fail(_ error: any Error, _ group: EventGroup, _ offset: Int64) throws(WireError) {
    // What fills the result may fit into one of its own.
    if context.hasOverflowed, outputs.hasEarlierOutput {
      try outputs.rollBackEvent(replies: true)
      return stop(at: offset)
    }
    let verdict = Verdict(error)
    try outputs.rollBackEvent(replies: verdict.kind == .retry)
    if let target = group.headers.reply {
      if verdict.kind != .retry, !context.hasReplied { try conclude(target, verdict) }
    } else if verdict.kind == .failed || verdict.kind == .retry {
      stop(at: offset)
    }
    note(verdict, offset)
  }

  /// The event is not run.
  private func refuse(_ verdict: Verdict, _ group: EventGroup, _ offset: Int64) throws(WireError) {
    outputs.beginEvent()
    if let target = group.headers.reply { try conclude(target, verdict) }
    note(verdict, offset)
    advanceProgress()
  }

  private func conclude(_ target: ReplyTarget, _ verdict: Verdict) throws(WireError) {
    do throws(EmitError) {
      try outputs.reply(to: target, verdict.reply, data: nil)
    } catch {
      throw WireError(.tooLarge, error.message)
    }
  }

  private func note(_ verdict: Verdict, _ offset: Int64) {
    verdict.write(offset: offset, to: &verdicts)
    verdictCount += 1
    outputs.count(verdict.size)
    if outputs.isNearlyFull { stop(at: offset + 1) }
  }

  /// No event from `offset` on is dealt with here.
  private func stop(at offset: Int64) {
    guard !isStopped else { return }
    isStopped = true
    processed = min(offset, end)
  }

  /// Writes RESULT's body up to the number of batches.
  func writeResult(to writer: inout ByteWriter) {
    writer.i64(processed)
    writer.u32(verdictCount)
    writer.bytes(verdicts.unsafeBytes)
    tally.write(to: &writer)
  }
}

/// The last few groups of a batch, by their header bytes: events of several kinds may alternate.
private struct GroupCache {
  private static let capacity = 4
  private var section = UnsafeRawBufferPointer(start: nil, count: 0)
  private var current: EventGroup?
  private var recent: [(section: UnsafeRawBufferPointer, group: EventGroup)] = []
  private var oldest = 0

  /// The group of the event before, if the headers are the same.
  @inline(__always)
  func last(_ headers: UnsafeRawBufferPointer) -> EventGroup? {
    headers.count == section.count && equal(headers, section) ? current : nil
  }

  mutating func find(_ headers: UnsafeRawBufferPointer) -> EventGroup? {
    guard let known = recent.first(where: { $0.section.count == headers.count && equal($0.section, headers) })
    else { return nil }
    section = known.section
    current = known.group
    return current
  }

  mutating func insert(_ group: EventGroup, for headers: UnsafeRawBufferPointer) {
    section = headers
    current = group
    if recent.count < Self.capacity {
      recent.append((headers, group))
    } else {
      recent[oldest] = (headers, group)
      oldest = (oldest + 1) % Self.capacity
    }
  }

  mutating func clear() {
    section = UnsafeRawBufferPointer(start: nil, count: 0)
    current = nil
    recent.removeAll(keepingCapacity: true)
    oldest = 0
  }
}

@inline(__always)
private func equal(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> Bool {
  memcmp(left.baseAddress.unsafelyUnwrapped, right.baseAddress.unsafelyUnwrapped, left.count) == 0
}
