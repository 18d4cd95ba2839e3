internal import GrapeCore
internal import GrapeWire

/// All that one delivery appends: emitted events and replies, each partition's apart. Reused by later deliveries.
final class OutputSet {
  private let session: Session
  /// By a destination's first output plus partition; `outputs` keeps them alive.
  private var emitted: UnsafeMutableBufferPointer<UnsafeMutablePointer<Output.State>?>
  private var outputs: [Output] = []
  private var replies: [ReplyKey: Output] = [:]
  /// Those in use, in order of first use.
  private(set) var active: [Output] = []
  /// Those that the event being handled appended to.
  private var touched: UnsafeMutableBufferPointer<UnsafeMutablePointer<Output.State>>
  private var touchedCount = 0
  /// Partition of unkeyed events in this delivery, by destination; -1: not chosen yet.
  private var unkeyed: [Int32] = []
  /// Numbers the events handled; 0 is none.
  private(set) var event: UInt64 = 0
  /// Bytes appended in this delivery, framing included, at least.
  private(set) var byteCount = 0
  private var byteCountAtEvent = 0
  /// Bytes that the writes of state in this delivery take, framing included.
  var stateByteCount = 0
  private var stateByteCountAtEvent = 0
  /// Time of day in milliseconds that emitted events bear.
  private var timestamp: Int64 = 0
  /// Most that one delivery may append.
  let byteLimit: Int
  /// From here on the delivery ends with the event that is being handled: what follows is better sent apart.
  private let byteMark: Int

  /// The final reply of the event being handled, and what stood before it.
  private var finalReply: (event: UInt64, output: Output, mark: RecordBatchBuilder.Mark, finished: Int)?

  private struct ReplyKey: Hashable {
    var topic: String
    var partition: Int32
  }

  /// Room that RESULT needs beside the batches, in bytes.
  private static let frameMargin = 32_768
  /// Framing of a record at most, in bytes: its lengths and deltas.
  private static let recordMargin = 40

  init(session: Session) {
    self.session = session
    byteLimit = session.info.limits.maxFrame - Self.frameMargin
    byteMark = byteLimit / 4 * 3
    emitted = .allocate(capacity: session.outputCount)
    emitted.initialize(repeating: nil)
    touched = .allocate(capacity: 16)
  }

  deinit {
    emitted.deallocate()
    touched.deallocate()
  }

  func beginDelivery(timestamp: Int64) {
    self.timestamp = timestamp
    for output in active { output.reset() }
    finalReply = nil
    active.removeAll(keepingCapacity: true)
    touchedCount = 0
    for index in unkeyed.indices { unkeyed[index] = -1 }
    byteCount = 0
    byteCountAtEvent = 0
    stateByteCount = 0
    stateByteCountAtEvent = 0
    // Reply partitions come and go with the callers' nodes.
    if replies.count > 64 { replies.removeAll() }
  }

  @inline(__always)
  func beginEvent() {
    event &+= 1
    byteCountAtEvent = byteCount
    stateByteCountAtEvent = stateByteCount
    touchedCount = 0
  }

  /// So much was appended that the rest of the delivery should be left to another one.
  var isNearlyFull: Bool { byteCount &+ stateByteCount > byteMark }

  /// Whether so many bytes more still fit.
  @inline(__always)
  func admits(_ bytes: Int) -> Bool { byteCount &+ stateByteCount &+ bytes <= byteLimit }

  /// Takes in batches that were made elsewhere.
  func attach(_ output: Output) { active.append(output) }

  /// Counts bytes that RESULT holds besides batches.
  func count(_ bytes: Int) { byteCount += bytes }

  /// Something of earlier events of this delivery is here: a delivery that grew too large can be cut before the present event.
  var hasEarlierOutput: Bool { byteCountAtEvent + stateByteCountAtEvent > 0 }

  /// Appends a copy of an event to one destination.
  @inline(__always)
  func emit(
    to destination: Destination.Target, key: UnsafeRawBufferPointer?, value: UnsafeRawBufferPointer?,
    section: UnsafeRawBufferPointer
  ) throws(EmitError) {
    let partition: Int32
    if let key {
      partition =
        destination.partitions == 1 ? 0 : Partitioner.partition(forKey: key, of: destination.partitions)
    } else {
      partition = unkeyedPartition(of: destination)
    }
    let index = destination.firstOutput + Int(partition)
    let output: UnsafeMutablePointer<Output.State>
    if index < emitted.count, let known = emitted[index] {
      output = known
    } else {
      output = makeOutput(at: index, topic: destination.owner.topic, partition: partition)
    }
    try append(to: output, key: key, value: value, section: section, limit: byteLimit)
  }

  @inline(__always)
  private func append(
    to output: UnsafeMutablePointer<Output.State>, key: UnsafeRawBufferPointer?, value: UnsafeRawBufferPointer?,
    section: UnsafeRawBufferPointer, limit: Int
  ) throws(EmitError) {
    let size = (key?.count ?? 0) + (value?.count ?? 0) + section.count + Self.recordMargin
    guard byteCount + stateByteCount + size <= limit else {
      throw EmitError(
        .tooLarge, "what is emitted for one event passes the \(byteLimit) bytes that the node takes at once")
    }
    if output.pointee.markedEvent != event { touch(output) }
    byteCount += size
    if output.pointee.builder.byteCount + size > Output.batchLimit, !output.pointee.builder.isEmpty {
      try output.pointee.owner.cut()
    }
    output.pointee.builder.append(key: key, value: value, headerSection: section, timestamp: timestamp)
  }

  /// The first record of this event for `output`: notes where it stands.
  @inline(__always)
  private func touch(_ output: UnsafeMutablePointer<Output.State>) {
    if !output.pointee.isActive { activate(output) }
    output.pointee.markedEvent = event
    output.pointee.mark = output.pointee.builder.mark
    output.pointee.markedFinished = output.pointee.finishedCount
    if touchedCount == touched.count { growTouched() }
    touched[touchedCount] = output
    touchedCount += 1
  }

  @inline(never)
  private func activate(_ output: UnsafeMutablePointer<Output.State>) {
    output.pointee.isActive = true
    active.append(output.pointee.owner)
    byteCount += RecordBatch.headerSize + 300
  }

  @inline(never)
  private func growTouched() {
    let larger = UnsafeMutableBufferPointer<UnsafeMutablePointer<Output.State>>.allocate(capacity: 2 * touched.count)
    _ = larger.initialize(from: touched)
    touched.deallocate()
    touched = larger
  }

  @inline(never)
  private func makeOutput(at index: Int, topic: String, partition: Int32) -> UnsafeMutablePointer<Output.State> {
    if index >= emitted.count {
      // Routes are made up as they are met, in tests only.
      let larger = UnsafeMutableBufferPointer<UnsafeMutablePointer<Output.State>?>.allocate(
        capacity: max(index + 1, 2 * emitted.count))
      larger.initialize(repeating: nil)
      for (index, output) in emitted.enumerated() { larger[index] = output }
      emitted.deallocate()
      emitted = larger
    }
    let output = Output(topic: topic, partition: partition, isReply: false)
    outputs.append(output)
    emitted[index] = output.state
    return output.state
  }

  private func unkeyedPartition(of destination: Destination.Target) -> Int32 {
    while unkeyed.count <= destination.index { unkeyed.append(-1) }
    if unkeyed[destination.index] < 0 { unkeyed[destination.index] = destination.owner.takePartition() }
    return unkeyed[destination.index]
  }

  /// Appends a reply to the caller behind `target`. One that says how the event ended always finds room: its size
  /// is bounded, and deliveries end well below the limit.
  func reply(
    to target: ReplyTarget, _ status: ReplyStatus, data: UnsafeRawBufferPointer?
  ) throws(EmitError) {
    let key = ReplyKey(topic: target.address.topic, partition: target.address.partition)
    let output: Output
    if let known = replies[key] {
      output = known
    } else {
      output = Output(topic: key.topic, partition: key.partition, isReply: true)
      replies[key] = output
    }
    if status.isFinal, status.status == .ok {
      finalReply = (event, output, output.state.pointee.builder.mark, output.state.pointee.finishedCount)
    }
    var section = HeaderSection()
    section.append(HeaderName.replyStatus, status.encoded)
    let headers = section.finish()
    try target.encoded.withUnsafeBytes { (bytes) -> Result<Void, EmitError> in
      do throws(EmitError) {
        let correlation = UnsafeRawBufferPointer(rebasing: bytes[0..<16])
        try append(
          to: output.state, key: correlation, value: data, section: headers.unsafeBytes,
          limit: status.status == .ok ? byteLimit : .max)
        return .success(())
      } catch {
        return .failure(error)
      }
    }.get()
  }

  /// Drops the final reply of the event being handled, if it has given one.
  func takeBackFinalReply() throws(WireError) {
    guard let finalReply, finalReply.event == event else { return }
    self.finalReply = nil
    finalReply.output.state.pointee.mark = finalReply.mark
    finalReply.output.state.pointee.markedFinished = finalReply.finished
    try finalReply.output.rollBack()
  }

  /// Drops what the event being handled emitted, and its replies too if `replies` says so.
  func rollBackEvent(replies: Bool) throws(WireError) {
    var keptSome = false
    for state in touched[..<touchedCount] {
      let output = state.pointee.owner
      if replies || !output.isReply { try output.rollBack() } else { keptSome = true }
    }
    // What was kept is not told apart: the sum may be too high after that, never too low.
    if !keptSome { byteCount = byteCountAtEvent }
  }
}
