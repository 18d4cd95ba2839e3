internal import GrapeWire

/// What one delivery appends to one partition: batches that are complete, and one being built.
final class Output {
  /// Batches end at about this size, in bytes.
  static let batchLimit = 1024 * 1024

  let topic: String
  let partition: Int32
  /// Answers to callers, which an event that fails leaves behind; what it emits is dropped.
  let isReply: Bool
  // Behind a pointer: a stored property of a class would be checked for exclusive access at each append.
  let builder: UnsafeMutablePointer<RecordBatchBuilder>
  private(set) var finished: [FinishedBatch] = []
  /// The event in which `mark` was taken.
  private var markedEvent: UInt64 = 0
  private var mark: RecordBatchBuilder.Mark
  private var markedFinished = 0

  init(topic: String, partition: Int32, isReply: Bool) {
    self.topic = topic
    self.partition = partition
    self.isReply = isReply
    builder = .allocate(capacity: 1)
    builder.initialize(to: RecordBatchBuilder())
    mark = builder.pointee.mark
  }

  deinit {
    builder.deinitialize(count: 1)
    builder.deallocate()
  }

  /// Notes where the batch stands if `event` has not touched it yet. True if so.
  @inline(__always)
  func beginEvent(_ event: UInt64) -> Bool {
    if markedEvent == event { return false }
    markedEvent = event
    mark = builder.pointee.mark
    markedFinished = finished.count
    return true
  }

  /// Appends a record of at most `size` bytes beside its framing.
  @inline(__always)
  func append(
    key: UnsafeRawBufferPointer?, value: UnsafeRawBufferPointer?, section: UnsafeRawBufferPointer, timestamp: Int64,
    size: Int
  ) throws(EmitError) {
    if builder.pointee.byteCount + size > Output.batchLimit, !builder.pointee.isEmpty { try cut() }
    builder.pointee.append(key: key, value: value, headerSection: section, timestamp: timestamp)
  }

  @inline(never)
  private func cut() throws(EmitError) {
    do throws(WireError) {
      finished.append(try builder.pointee.take())
    } catch {
      throw EmitError(.tooLarge, "the batch for \(topic) cannot be made: \(error)")
    }
  }

  /// Drops what the event that is being handled appended.
  func rollBack() throws(WireError) {
    if finished.count == markedFinished {
      builder.pointee.rollBack(to: mark)
      return
    }
    // The event began in what is now a complete batch: what stood there before is built again.
    let straddling = finished[markedFinished]
    finished.removeSubrange(markedFinished...)
    let before = mark.recordCount
    builder.pointee.reset()
    let unpacked = try RecordBatch.unpack(straddling.bytes, checkingCRC: false, limit: straddling.bytes.count)
    var reader = unpacked.reader()
    while builder.pointee.recordCount < before, let record = try reader.next() {
      builder.pointee.append(
        key: record.key, value: record.value, headerSection: record.headerSection,
        timestamp: unpacked.header.baseTimestamp + record.timestampDelta)
    }
    withExtendedLifetime(unpacked) {}
  }

  /// Nothing is to be sent.
  var isEmpty: Bool { finished.isEmpty && builder.pointee.isEmpty }

  /// Calls `body` with each batch, in order. The bytes are valid until `reset`.
  func forEachBatch(_ body: (UnsafeRawBufferPointer) -> Void) {
    for batch in finished { body(batch.bytes.unsafeBytes) }
    if !builder.pointee.isEmpty { body(builder.pointee.seal()) }
  }

  /// Forgets everything; keeps the memory.
  func reset() {
    finished.removeAll(keepingCapacity: true)
    builder.pointee.reset()
    markedEvent = 0
  }
}
