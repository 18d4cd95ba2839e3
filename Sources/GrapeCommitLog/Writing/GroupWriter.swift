import GrapeLog
import GrapeWire

/// Turns waiting operations into groups on the disk and into changes that readers see. No thread, no lock: the
/// holder of the writing role (see `CommitQueue`) is the only caller.
final class GroupWriter {
  /// A group on its way: what has to happen when it has reached its durability.
  struct Group {
    var position: Int64 = 0
    /// Its segment; nil before the first group.
    var segment: SegmentHeader?
    var storage: ByteStorage?
    var offset = 0
    /// Bytes with padding; 0 if there was nothing to write.
    var count = 0
    var durability = Durability.memory
    var changes: [StateChange] = []
    var outcomes: [Outcome] = []
    var commits = 0
  }

  private(set) var segments: SegmentWriter
  /// Of the last group serialised.
  private(set) var sequence: UInt64
  /// All groups up to this one are on the disk.
  private(set) var durable: UInt64
  private var catalog: WriterCatalog
  private var buffers = GroupBuffers()
  private let identity: LogIdentity
  private let clock: LogClock

  init(segments: SegmentWriter, sequence: UInt64, catalog: WriterCatalog, identity: LogIdentity, clock: LogClock) {
    self.segments = segments
    self.sequence = sequence
    self.durable = sequence
    self.catalog = catalog
    self.identity = identity
    self.clock = clock
  }

  /// Serialises `operations` into one group, assigning offsets. Writes nothing but a full segment's end.
  /// `group` is reused from call to call.
  func serialise(_ operations: ArraySlice<Operation>, into group: inout Group) throws(LogError) {
    group.changes.removeAll(keepingCapacity: true)
    group.outcomes.removeAll(keepingCapacity: true)
    group.count = 0
    group.commits = 0
    group.durability = .memory
    if operations.allSatisfy(\.isEmpty) { return skip(operations, &group) }
    let most = aligned(operations.reduce(GroupHeader.byteCount) { $0 + $1.bytes })
    if try segments.makeRoom(for: most) {
      durable = sequence
      buffers.breakRun()
    }
    let (storage, offset) = buffers.reserve(most)
    group.position = segments.position
    group.segment = segments.active.header
    group.storage = storage
    group.offset = offset
    let memory = UnsafeMutableRawBufferPointer(start: storage.base + offset, count: most)
    var encoder = EntryEncoder(memory)
    for operation in operations {
      group.durability = max(group.durability, operation.durability)
      do {
        group.outcomes.append(try encode(operation, &encoder, &group))
      } catch {
        group.outcomes.append(.refused(error))
      }
    }
    if encoder.entries > 0 { finish(&group, encoder, memory) }
  }

  /// Nothing to write, so nothing that could want for space.
  private func skip(_ operations: ArraySlice<Operation>, _ group: inout Group) {
    for operation in operations {
      group.durability = max(group.durability, operation.durability)
      group.outcomes.append(.committed([]))
      group.commits += 1
    }
  }

  private func finish(_ group: inout Group, _ encoder: EntryEncoder, _ memory: UnsafeMutableRawBufferPointer) {
    sequence += 1
    let header = GroupHeader(
      length: encoder.count, entryCount: encoder.entries, sequence: sequence, durable: durable,
      time: clock.wallMilliseconds(), position: group.position, log: identity.low)
    header.encode(into: UnsafeMutableRawBufferPointer(rebasing: memory[..<encoder.count]))
    group.count = aligned(encoder.count)
    for place in encoder.count..<group.count { memory[place] = 0 }
    buffers.commit(group.count)
  }

  /// Writes the group to the operating system.
  func write(_ group: Group) throws(LogError) {
    guard let storage = group.storage, group.count > 0 else { return }
    try segments.write(UnsafeRawBufferPointer(start: storage.base + group.offset, count: group.count))
  }

  /// Brings everything written to the disk.
  func synchronize() throws(LogError) {
    if durable == sequence { return }
    try segments.synchronize()
    durable = sequence
  }

  /// Everything durable, the last segment trimmed. Nothing may be written after it.
  func seal() throws(LogError) { try segments.seal() }

  /// Lets go of the file after a failure, without touching it.
  func abandon() { segments.active.file.close() }

  /// Where to prepare the next segment, once the present one is half full.
  func segmentToPrepare() -> (base: Int64, capacity: Int64)? { segments.shouldPrepareNext() ? segments.next : nil }

  func recycle(_ dropped: consuming [ByteStorage]) { buffers.recycle(dropped) }

  private func encode(
    _ operation: Operation, _ encoder: inout EntryEncoder, _ group: inout Group
  ) throws(LogError) -> Outcome {
    switch operation.body {
    case .commit(let transaction, _):
      let outcome = try encode(transaction, &encoder, &group)
      group.commits += 1
      return outcome
    case .createTopic(let name, let configuration, _):
      if let topic = try catalog.create(name, configuration) {
        encoder.topicCreated(topic.id, name: name, configuration)
        group.changes.append(.topicCreated(topic.id, name: name, configuration))
      }
    case .alterTopic(let name, let configuration, _):
      if let topic = try catalog.alter(name, configuration) {
        encoder.topicAltered(topic.id, name: name, configuration)
        group.changes.append(.topicAltered(topic.id, configuration))
      }
    case .trim(let trims, _): try encode(trims, &encoder, &group)
    case .deleteGroup(let name, _):
      encoder.groupDeleted(name)
      group.changes.append(.groupDeleted(name))
    case .deleteTopic(let name, _):
      let id = try catalog.delete(name)
      encoder.topicDeleted(id)
      group.changes.append(.topicDeleted(id, name: name))
    }
    return .done
  }

  private func encode(
    _ trims: [Operation.Trim], _ encoder: inout EntryEncoder, _ group: inout Group
  ) throws(LogError) {
    for trim in trims {
      let topic = try catalog.find(trim.partition)
      let end = topic.next[Int(trim.partition.partition)]
      try PartitionBounds(start: 0, end: end).checkTrim(to: trim.start, of: trim.partition)
    }
    for trim in trims {
      let topic = try catalog.find(trim.partition)
      if let meant = trim.topic, meant != topic.id { continue }
      encoder.trimmed(topic: topic.id, partition: trim.partition.partition, start: trim.start)
      group.changes.append(.trimmed(topic: topic.id, partition: trim.partition.partition, start: trim.start))
    }
  }

  private func encode(
    _ transaction: Transaction, _ encoder: inout EntryEncoder, _ group: inout Group
  ) throws(LogError) -> Outcome {
    // Everything is looked up before anything is assigned: a refused transaction leaves no trace.
    for append in transaction.appends { _ = try catalog.find(append.partition) }
    for commit in transaction.offsets { _ = try catalog.find(commit.partition) }
    var baseOffsets: [Int64] = []
    baseOffsets.reserveCapacity(transaction.appends.count)
    for append in transaction.appends {
      let topic = try catalog.find(append.partition)
      let number = append.partition.partition
      let base = topic.next[Int(number)]
      let end = base + Int64(append.recordCount)
      topic.next[Int(number)] = end
      let place = encoder.append(
        topic: topic.id, partition: number, baseOffset: base, batch: append.batch.unsafeBytes)
      let location = PartitionIndex.Location(
        baseOffset: base, position: group.position + Int64(place), length: append.batch.count,
        maxTimestamp: append.maxTimestamp)
      group.changes.append(.append(topic: topic.id, partition: number, location, end: end))
      baseOffsets.append(base)
    }
    for commit in transaction.offsets {
      let topic = try catalog.find(commit.partition)
      encoder.offset(topic: topic.id, commit)
      group.changes.append(
        .offsetCommit(
          topic: topic.id, partition: commit.partition.partition, group: commit.group, committed: commit.committed))
    }
    return .committed(baseOffsets)
  }
}
