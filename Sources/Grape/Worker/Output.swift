internal import GrapeWire

/// What one delivery appends to one partition: batches that are complete, and one being built.
final class Output {
  /// Batches end at about this size, in bytes.
  static let batchLimit = 1024 * 1024

  /// What changes with each event. Behind a pointer, which costs neither reference counts nor checks of exclusive access.
  struct State: ~Copyable {
    var builder = RecordBatchBuilder()
    /// The event in which `mark` was taken.
    var markedEvent: UInt64 = 0
    var mark = RecordBatchBuilder().mark
    /// Complete batches, now and at the mark.
    var finishedCount = 0
    var markedFinished = 0
    /// Something was appended in this delivery.
    var isActive = false
    unowned(unsafe) var owner: Output
  }

  let topic: String
  let partition: Int32
  /// Answers to callers, which an event that fails leaves behind; what it emits is dropped.
  let isReply: Bool
  let state: UnsafeMutablePointer<State>
  private var finished: [FinishedBatch] = []
  /// What was handed out compressed.
  private var packed: [ByteSlice] = []

  init(topic: String, partition: Int32, isReply: Bool) {
    self.topic = topic
    self.partition = partition
    self.isReply = isReply
    state = .allocate(capacity: 1)
    state.initialize(to: State(owner: self))
  }

  deinit {
    state.deinitialize(count: 1)
    state.deallocate()
  }

  /// Completes the batch being built.
  func cut() throws(EmitError) {
    do throws(WireError) {
      finished.append(try state.pointee.builder.take())
      state.pointee.finishedCount = finished.count
    } catch {
      throw EmitError(.tooLarge, "the batch for \(topic) cannot be made: \(error)")
    }
  }

  /// Drops what the event that is being handled appended.
  func rollBack() throws(WireError) {
    let mark = state.pointee.mark
    let markedFinished = state.pointee.markedFinished
    if finished.count == markedFinished {
      state.pointee.builder.rollBack(to: mark)
      return
    }
    // The event began in what is now a complete batch: what stood there before is built again.
    let straddling = finished[markedFinished]
    finished.removeSubrange(markedFinished...)
    state.pointee.finishedCount = markedFinished
    state.pointee.builder.reset()
    let unpacked = try RecordBatch.unpack(straddling.bytes, checkingCRC: false, limit: straddling.bytes.count)
    var reader = unpacked.reader()
    while state.pointee.builder.recordCount < mark.recordCount, let record = try reader.next() {
      state.pointee.builder.append(
        key: record.key, value: record.value, headerSection: record.headerSection,
        timestamp: unpacked.header.baseTimestamp + record.timestampDelta)
    }
    withExtendedLifetime(unpacked) {}
  }

  /// Calls `body` with each batch, in order. The bytes are valid until `reset`. With a compressor emitted events are packed, where that makes a
  /// batch smaller.
  func forEachBatch(packedBy compressor: ZstdCompressor? = nil, _ body: (UnsafeRawBufferPointer) -> Void) {
    for batch in finished { hand(batch.bytes.unsafeBytes, compressor, to: body) }
    if !state.pointee.builder.isEmpty { hand(state.pointee.builder.seal(), compressor, to: body) }
  }

  private func hand(
    _ batch: UnsafeRawBufferPointer, _ compressor: ZstdCompressor?, to body: (UnsafeRawBufferPointer) -> Void
  ) {
    guard let compressor, !isReply else { return body(batch) }
    // A codec that fails is no reason to lose the events: they go as they are.
    guard let bytes = try? RecordBatch.packed(batch, by: compressor) else { return body(batch) }
    packed.append(bytes)
    body(bytes.unsafeBytes)
  }

  /// Forgets everything; keeps the memory.
  func reset() {
    finished.removeAll(keepingCapacity: true)
    packed.removeAll()
    state.pointee.builder.reset()
    state.pointee.finishedCount = 0
    state.pointee.markedEvent = 0
    state.pointee.isActive = false
  }
}
