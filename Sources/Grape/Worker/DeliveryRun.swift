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
  /// When the delivery began, time of day in milliseconds.
  private var timestamp: Int64 = 0

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
    timestamp = session.now()
    outputs.beginDelivery(timestamp: timestamp)
    context.runState.beginDelivery(partition: delivery.partition, first: delivery.first)
  }

  /// Lets go of the delivery's memory.
  func clear() {
    batches = []
    unpacked = nil
    groups.clear()
    context.leave()
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
    do throws(EmitError) {
      try context.runState.finish(processed: processed, timestamp: timestamp)
    } catch {
      throw WireError(.tooLarge, error.message)
    }
    return .finished
  }

  private var unpackedLimit: Int { max(session.info.limits.maxFrame, FrameHeader.defaultLimit) * 4 }

  /// Runs the rest of a batch. nil: it is done, or the delivery is stopped.
  private func run(_ batch: UnpackedBatch) throws(WireError) -> Step? {
    // A copy: access to a stored property would be checked for exclusivity at each record.
    var reader = reader
    var next = try reader.next()
    while let record = next {
      let offset = batch.header.baseOffset &+ Int64(record.offsetDelta)
      if offset >= end {
        isStopped = true
        return nil
      }
      if offset < first || (nextSkip < skips.count && isSkipped(offset)) {
        next = try reader.next()
        continue
      }
      let group = try findGroup(record, storage: batch.records.storage)
      guard let slot = group.slot else {
        try refuse(.noSuchSlot(group.name), group, offset)
        if isStopped { return nil }
        next = try reader.next()
        continue
      }
      context.enter(group)
      switch slot.handler {
      case .sync(let handler):
        next = try run(record, and: &reader, of: batch, group: group, slot: slot.index, handler)
        if isStopped { return nil }
      case .async(let handler):
        if isExpired(group) {
          try refuse(.expired, group, offset)
          if isStopped { return nil }
          next = try reader.next()
          continue
        }
        self.reader = reader
        awaited = (offset, slot.index)
        tally.run(slot: slot.index)
        context.begin()
        let timestamp = batch.header.baseTimestamp &+ record.timestampDelta
        return .await(handler, Event(record, in: group, offset: offset, timestamp: timestamp))
      }
    }
    return nil
  }

  /// Runs `record` and those behind it as long as their headers are the same. The first whose headers differ, or which
  /// is not to be run; nil at the batch's end or if the delivery is stopped.
  private func run(
    _ record: Record, and reader: inout RecordReader, of batch: UnpackedBatch, group: EventGroup, slot: Int,
    _ handler: Handler.Sync
  ) throws(WireError) -> Record? {
    tally.run(slot: slot)
    var succeeded: UInt32 = 0
    defer { tally.add(succeeded: succeeded, slot: slot) }
    let context = context
    let section = record.headerSection
    let base = batch.header.baseOffset
    let baseTimestamp = batch.header.baseTimestamp
    let hasDeadline = group.headers.deadline != nil
    let isAwaited = group.headers.reply != nil
    var record = record
    var event = Event(record, in: group, offset: 0, timestamp: 0)
    while true {
      let offset = base &+ Int64(record.offsetDelta)
      if hasDeadline, isExpired(group) {
        try refuse(.expired, group, offset)
      } else {
        event.move(to: record, offset: offset, timestamp: baseTimestamp &+ record.timestampDelta)
        context.begin()
        do {
          try handler(event, context)
          try context.runState.checkFailure()
          if isAwaited { try answerIfNobodyDid(group) }
          succeeded &+= 1
          if context.outputs.isNearlyFull { stop(at: offset + 1) }
        } catch {
          try fail(error, group, offset, slot: slot)
        }
        context.end()
        advanceProgress()
      }
      if isStopped { return nil }
      guard let next = try reader.next() else { return nil }
      let position = base &+ Int64(next.offsetDelta)
      guard next.headerSection.count == section.count, equal(next.headerSection, section), position < end,
        nextSkip >= skips.count, position >= first
      else { return next }
      record = next
    }
  }

  private func isExpired(_ group: EventGroup) -> Bool {
    group.headers.deadline.map { $0 <= session.now() } ?? false
  }

  /// The handler that `advance` returned has ended; nil is success.
  func endAwaited(_ failure: (any Error)?) throws(WireError) {
    guard let awaited, let group = context.group else { preconditionFailure("no handler is being awaited") }
    self.awaited = nil
    do {
      if let failure { throw failure }
      try context.runState.checkFailure()
      try answerIfNobodyDid(group)
      tally.add(succeeded: 1, slot: awaited.slot)
      if outputs.isNearlyFull { stop(at: awaited.offset + 1) }
    } catch {
      try fail(error, group, awaited.offset, slot: awaited.slot)
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
  /// The handler succeeded: a caller who got nothing gets an empty reply.
  private func answerIfNobodyDid(_ group: EventGroup) throws(EmitError) {
    guard let target = group.headers.reply, !context.hasReplied, !context.hasPassedOriginOn else { return }
    try outputs.reply(to: target, ReplyStatus(), data: nil)
  }

  @inline(never)
  private func fail(
    _ error: any Error, _ group: EventGroup, _ offset: Int64, slot: Int
  ) throws(WireError) {
    // What fills the result may fit into one of its own.
    if context.hasOverflowed || context.runState.hasOverflowed, outputs.hasEarlierOutput {
      context.runState.rollBackEvent()
      try outputs.rollBackEvent(replies: true)
      return stop(at: offset)
    }
    tally.addFailed(slot: slot)
    var verdict = Verdict(error)
    context.runState.rollBackEvent()
    try outputs.rollBackEvent(replies: group.headers.reply == nil)
    if let target = group.headers.reply {
      // Whoever waits is told at once, and may well call again.
      if verdict.kind == .retry { verdict.giveUp() }
      try outputs.takeBackFinalReply()
      try conclude(target, verdict)
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
  private var recent: [(section: UnsafeRawBufferPointer, group: EventGroup)] = []
  private var oldest = 0

  func find(_ headers: UnsafeRawBufferPointer) -> EventGroup? {
    recent.first { $0.section.count == headers.count && equal($0.section, headers) }?.group
  }

  mutating func insert(_ group: EventGroup, for headers: UnsafeRawBufferPointer) {
    if recent.count < Self.capacity {
      recent.append((headers, group))
    } else {
      recent[oldest] = (headers, group)
      oldest = (oldest + 1) % Self.capacity
    }
  }

  mutating func clear() {
    recent.removeAll(keepingCapacity: true)
    oldest = 0
  }
}

@inline(__always)
private func equal(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> Bool {
  memcmp(left.baseAddress.unsafelyUnwrapped, right.baseAddress.unsafelyUnwrapped, left.count) == 0
}
