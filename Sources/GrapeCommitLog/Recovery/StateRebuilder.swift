import GrapeLog
import GrapeWire

/// Builds what readers see from the groups found on disk.
struct StateRebuilder {
  private(set) var state = PublishedState()
  /// Of the last group applied.
  private(set) var sequence: UInt64 = 0
  private(set) var batches: UInt64 = 0
  private var fired: [@Sendable () -> Void] = []

  init() {}

  /// Goes on from a checkpoint; nil if that contradicts itself.
  init?(_ snapshot: StateSnapshot) {
    guard let state = PublishedState(snapshot) else { return nil }
    self.state = state
    sequence = snapshot.sequence
  }

  /// Begins a segment: its first group must follow the last one applied. Errors: `corrupt`.
  func enter(_ segment: SegmentHeader, path: String) throws(LogError) {
    guard let first = segment.cleaned?.sequences.lowerBound, first != sequence + 1 else { return }
    throw LogError(
      .corrupt,
      "\(path): the segment begins with sequence \(first) where \(sequence + 1) was expected: groups are missing; "
        + "restore the log's files from a backup")
  }

  /// Ends a segment: a cleaned one may have lost its last groups.
  mutating func leave(_ segment: SegmentHeader) {
    if let cleaned = segment.cleaned { sequence = cleaned.sequences.upperBound }
  }

  /// Forgets where batches of segments before `segment` are.
  mutating func drop(_ partitions: [(topic: TopicID, partition: Int32)], before segment: Int64) {
    state.drop(partitions, before: segment)
  }

  /// Partitions that have batches since the last call.
  mutating func takeTouched() -> [(topic: TopicID, partition: Int32)] { state.takeTouched() }

  /// Applies a group of `segment` that checked out. Errors name the file and the place.
  mutating func apply(
    _ header: GroupHeader, _ bytes: UnsafeRawBufferPointer, of segment: SegmentHeader, path: String, offset: Int64
  ) throws(LogError) {
    let fits =
      segment.cleaned.map { header.sequence > sequence && $0.sequences.contains(header.sequence) }
      ?? (header.sequence == sequence + 1)
    guard fits else {
      throw LogError(
        .corrupt,
        "\(path): the group at byte \(offset) has sequence \(header.sequence) where \(sequence + 1) was expected: "
          + "groups are missing; restore the log's files from a backup")
    }
    do throws(Fault) {
      try applyEntries(header, bytes, segment)
    } catch {
      switch error {
      case .unknown(let kind):
        throw LogError(
          .unsupportedFormat,
          "\(path): the group at byte \(offset) has an entry of kind \(kind), unknown to this program: use a newer one")
      case .damaged(let reason):
        throw LogError(
          .corrupt, "\(path): the group at byte \(offset) makes no sense (\(reason)); restore the file from a backup")
      }
    }
    sequence = header.sequence
  }

  private enum Fault: Error {
    case unknown(UInt8)
    case damaged(String)
  }

  private mutating func applyEntries(
    _ header: GroupHeader, _ bytes: UnsafeRawBufferPointer, _ segment: SegmentHeader
  ) throws(Fault) {
    var decoder = EntryDecoder(group: bytes)
    var count = 0
    while let entry = try next(&decoder) {
      count += 1
      let change = try change(entry, header, bytes)
      do {
        try state.apply(change, segment: segment.base, sparse: segment.cleaned != nil, fired: &fired)
      } catch {
        throw Fault.damaged(error.reason)
      }
    }
    guard count == header.entryCount else {
      throw Fault.damaged("\(count) entries where the header says \(header.entryCount)")
    }
  }

  private func next(_ decoder: inout EntryDecoder) throws(Fault) -> Entry? {
    do {
      return try decoder.next()
    } catch {
      throw Fault.damaged("at byte \(error.offset) of it: \(error.reason)")
    }
  }

  private mutating func change(
    _ entry: Entry, _ group: GroupHeader, _ bytes: UnsafeRawBufferPointer
  ) throws(Fault) -> StateChange {
    switch entry {
    case .append(let topic, let partition, let baseOffset, let range):
      let batch = bytes.part(range.lowerBound, range.count)
      guard let header = try? RecordBatchHeader(batch), header.size == range.count, header.baseOffset == baseOffset
      else { throw Fault.damaged("no record batch at byte \(range.lowerBound) of it") }
      batches += 1
      let location = PartitionIndex.Location(
        baseOffset: baseOffset, position: group.position + Int64(range.lowerBound), length: range.count,
        maxTimestamp: header.maxTimestamp)
      return .append(topic: topic, partition: partition, location, end: header.lastOffset + 1)
    case .offsetCommit(let topic, let partition, let group, let committed):
      return .offsetCommit(topic: topic, partition: partition, group: group, committed: committed)
    case .topicCreated(let id, let name, let configuration):
      do {
        try configuration.check(name: name)
      } catch {
        throw Fault.damaged(error.message)
      }
      return .topicCreated(id, name: name, configuration)
    case .topicDeleted(let id):
      let name = state.topics.indices.contains(Int(id)) ? state.topics[Int(id)]?.name : nil
      return .topicDeleted(id, name: name ?? "")
    case .topicAltered(let id, let name, let configuration):
      do {
        try configuration.check(name: name)
      } catch {
        throw Fault.damaged(error.message)
      }
      return .topicAltered(id, configuration)
    case .trimmed(let topic, let partition, let start):
      return .trimmed(topic: topic, partition: partition, start: start)
    case .partitionState(let topic, let partition, let state):
      return .partitionState(topic: topic, partition: partition, state)
    case .topicIDs(let next): return .topicIDs(next: next)
    case .groupDeleted(let group): return .groupDeleted(group)
    case .unknown(let kind, _): throw Fault.unknown(kind)
    }
  }
}
