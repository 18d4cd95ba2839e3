import GrapeLog
import GrapeWire

/// Rewrites neighbouring segments into one that holds what is wanted of them, group by group, and makes its index.
///
/// The new segment replays to the same state as the old ones did, without what is dead: the last offset of each consumer
/// group, and where partitions with dropped batches stood, are told in its last group.
struct SegmentRewriter: ~Copyable {
  /// What is to be left out, besides what is dead.
  struct Compaction {
    var map: CompactionMap
    /// Tombstones of groups written before are dropped, milliseconds since 1970 UTC.
    var tombstonesBefore: Int64
    var kept = CompactionMap.Kept()
  }

  /// A finished segment under a draft name.
  struct Rewritten {
    var header: SegmentHeader
    var index: [IndexFile.Part]
    /// What compaction had to leave.
    var kept: CompactionMap.Kept
  }

  private struct Place: Hashable {
    var topic: TopicID
    var partition: Int32
  }

  private struct GroupPlace: Hashable {
    var group: String
    var place: Place
  }

  /// Written and synchronised in pieces of this size, so that the writer's synchronisations never wait for much.
  private static let pieceBytes = 4 << 20

  private let file: any SegmentFile
  private let base: Int64
  private let identity: LogIdentity
  private let liveness: Liveness
  private let compaction: Compaction?
  private let path: String

  private var buffer = ByteWriter(capacity: pieceBytes + (64 << 10))
  /// Where in the file the buffer goes.
  private var written = Int64(SegmentHeader.reservedBytes)
  /// Entries of the group under construction; it is finished when the next one begins.
  private var entries = ByteWriter(capacity: 64 << 10)
  private var entryCount = 0
  private var open: GroupHeader?

  private var runs: [Place: [PartitionIndex.Location]] = [:]
  private var offsets: [GroupPlace: CommittedOffset] = [:]
  private var deletedGroups: Set<String> = []
  private var starts: [Place: Int64] = [:]
  /// Partitions whose state an earlier cleaning told.
  private var stated: Set<Place> = []
  /// Partitions of which batches were dropped or made smaller.
  private var dropped: Set<Place> = []
  private var deadTopics: [TopicID: (name: String, TopicConfiguration)] = [:]
  private var droppedTopic: TopicID = 0
  private var kept: CompactionMap.Kept
  private var lostDeletions: [TopicID] = []

  /// - Parameter file: an empty file for the result.
  init(
    into file: any SegmentFile, base: Int64, identity: LogIdentity, liveness: Liveness, compaction: Compaction?
  ) {
    self.file = file
    self.base = base
    self.identity = identity
    self.liveness = liveness
    self.compaction = compaction
    kept = compaction?.kept ?? CompactionMap.Kept()
    // Of this segment.
    kept.spared = false
    path = file.path
  }

  private var position: Int64 { base + written + Int64(buffer.count) }

  // MARK: Reading

  /// Takes over what is wanted of a segment.
  ///
  /// - Parameter first: sequence that its first group has if it is as the writer made it. All of them must be there: a
  ///   segment that ends early would pass for one that held no more.
  mutating func add(_ segment: Segment, first: UInt64, _ source: any SegmentFile) throws(LogError) {
    let scanner = try SegmentScanner(file: source, base: segment.base)
    var expected = first
    while true {
      switch try scanner.next() {
      case .group(let header, let bytes, let offset):
        guard segment.header.cleaned != nil || header.sequence == expected else {
          throw LogError(
            .corrupt, "\(source.path): the group at byte \(offset) has sequence \(header.sequence), not \(expected)")
        }
        expected = header.sequence + 1
        do throws(WireError) {
          try add(header, bytes)
        } catch {
          throw LogError(
            .corrupt,
            "\(source.path): the group at byte \(offset) makes no sense: \(error.message); run grape log verify")
        }
        if buffer.count >= Self.pieceBytes { try flush() }
      case .end:
        guard segment.header.cleaned != nil || expected == segment.lastSequence + 1 else {
          throw LogError(
            .corrupt,
            "\(source.path): ends with sequence \(expected - 1) where \(segment.lastSequence) was the last; run grape "
              + "log verify")
        }
        return
      case .bad(let reason):
        throw LogError(
          .corrupt, "\(source.path): damaged at byte \(scanner.offset) (\(reason)); run grape log verify")
      }
    }
  }

  /// Takes over what is wanted of a group.
  ///
  /// - Parameter deleting: topics that are deleted before it: their deletion was lost.
  mutating func add(
    _ header: GroupHeader, _ group: UnsafeRawBufferPointer, deleting: [TopicID] = [],
    creating: [Repair.LostTopic] = []
  ) throws(WireError) {
    finishGroup()
    open = header
    for id in deleting { keepDeletion(of: id) }
    for topic in creating { create(topic) }
    do throws(EntryDecoder.Malformed) {
      var decoder = EntryDecoder(group: group)
      var start = GroupHeader.byteCount
      while let entry = try decoder.next() {
        let raw = group.part(start, decoder.position - start)
        start = decoder.position
        do throws(WireError) {
          try add(entry, raw, group, header)
        } catch {
          throw EntryDecoder.Malformed(offset: start, reason: error.message)
        }
      }
    } catch {
      throw WireError(.malformed, "at byte \(error.offset): \(error.reason)")
    }
  }

  private mutating func add(
    _ entry: Entry, _ raw: UnsafeRawBufferPointer, _ group: UnsafeRawBufferPointer, _ header: GroupHeader
  ) throws(WireError) {
    switch entry {
    case .append(let topic, let partition, let baseOffset, let range):
      try add(
        group.part(range.lowerBound, range.count), raw, topic, partition, baseOffset, groupTime: header.time)
    case .offsetCommit(let topic, let partition, let name, let committed):
      offsets[GroupPlace(group: name, place: Place(topic: topic, partition: partition))] = committed
    case .groupDeleted(let name):
      deletedGroups.insert(name)
      offsets = offsets.filter { $0.key.group != name }
    case .topicCreated(let id, let name, let configuration):
      if liveness.exists(id) { keep(raw) } else { deadTopics[id] = (name, configuration) }
    case .topicAltered(let id, let name, let configuration):
      if liveness.exists(id) {
        keep(raw)
      } else if deadTopics[id] != nil {
        deadTopics[id] = (name, configuration)
      }
    case .topicDeleted(let id):
      if deadTopics.removeValue(forKey: id) == nil { keep(raw) } else { droppedTopic = max(droppedTopic, id) }
    case .trimmed(let topic, let partition, let start):
      let place = Place(topic: topic, partition: partition)
      starts[place] = max(starts[place] ?? 0, start)
    case .partitionState(let topic, let partition, let state):
      let place = Place(topic: topic, partition: partition)
      stated.insert(place)
      starts[place] = max(starts[place] ?? 0, state.start)
    case .topicIDs(let next): droppedTopic = max(droppedTopic, next - 1)
    case .unknown(let kind, _): throw WireError(.malformed, "an entry of kind \(kind), which a newer version wrote")
    }
  }

  private mutating func add(
    _ batch: UnsafeRawBufferPointer, _ raw: UnsafeRawBufferPointer, _ topic: TopicID, _ number: Int32,
    _ baseOffset: Int64, groupTime: Int64
  ) throws(WireError) {
    let header = try RecordBatchHeader(batch)
    let place = Place(topic: topic, partition: number)
    guard let partition = liveness.partition(topic, number), header.lastOffset >= partition.start else {
      dropped.insert(place)
      return
    }
    guard let compaction, liveness.isCompacted(topic) else { return keep(batch, raw, place, header) }
    // Told at the segment's end.
    let toll = dropped.contains(place) ? 0 : EntryEncoder.partitionStateBytes
    let outcome = try compaction.map.compact(
      ByteSlice(copying: batch), topic: topic, number, partition, expired: groupTime < compaction.tombstonesBefore,
      toll: toll, kept: &kept)
    switch outcome {
    case .unchanged: keep(batch, raw, place, header)
    case .empty: dropped.insert(place)
    case .batch(let smaller):
      // Its bytes as it was appended count where a partition's size does.
      dropped.insert(place)
      let bytes = EntryEncoder.appendBytes(batch: smaller.count)
      let storage = ByteStorage(capacity: GroupHeader.byteCount + bytes)
      var encoder = EntryEncoder(
        UnsafeMutableRawBufferPointer(start: storage.base, count: GroupHeader.byteCount + bytes))
      smaller.withUnsafeBytes { batch in
        _ = encoder.append(topic: topic, partition: number, baseOffset: baseOffset, batch: batch)
      }
      let entry = UnsafeRawBufferPointer(start: storage.base + GroupHeader.byteCount, count: bytes)
      let kept = entry.part(bytes - smaller.count, smaller.count)
      keep(kept, entry, place, try RecordBatchHeader(kept))
      withExtendedLifetime(storage) {}
    }
  }

  // MARK: Writing

  private mutating func keep(
    _ batch: UnsafeRawBufferPointer, _ raw: UnsafeRawBufferPointer, _ place: Place, _ header: RecordBatchHeader
  ) {
    let within = GroupHeader.byteCount + entries.count + raw.count - batch.count
    runs[place, default: []].append(
      PartitionIndex.Location(
        baseOffset: header.baseOffset, position: position + Int64(within), length: batch.count,
        maxTimestamp: header.maxTimestamp))
    keep(raw)
  }

  private mutating func keep(_ raw: UnsafeRawBufferPointer) {
    entries.bytes(raw)
    entryCount += 1
  }

  private mutating func finishGroup() {
    guard let header = open else { return }
    open = nil
    defer {
      entries.truncate(to: 0)
      entryCount = 0
    }
    if entryCount == 0 { return }
    let length = GroupHeader.byteCount + entries.count
    let start = buffer.count
    let at = position
    buffer.skip(aligned(length))
    let target = UnsafeMutableRawBufferPointer(mutating: buffer.unsafeBytes.part(start, length))
    UnsafeMutableRawBufferPointer(rebasing: target[GroupHeader.byteCount...]).copyMemory(from: entries.unsafeBytes)
    GroupHeader(
      length: length, entryCount: entryCount, sequence: header.sequence, durable: header.sequence, time: header.time,
      position: at, log: identity.low
    ).encode(into: target)
  }

  private mutating func flush() throws(LogError) {
    try file.write(buffer.unsafeBytes, at: written)
    written += Int64(buffer.count)
    buffer.truncate(to: 0)
    try file.synchronize()
  }

  /// Makes a topic behind what was added: its creation was lost.
  mutating func create(_ topic: Repair.LostTopic) {
    let bytes = GroupHeader.byteCount + EntryEncoder.topicBytes(name: topic.name)
    let storage = ByteStorage(capacity: bytes)
    var encoder = EntryEncoder(UnsafeMutableRawBufferPointer(start: storage.base, count: bytes))
    encoder.topicCreated(topic.id, name: topic.name, topic.configuration)
    keep(
      UnsafeRawBufferPointer(start: storage.base, count: bytes).part(
        GroupHeader.byteCount, bytes - GroupHeader.byteCount))
    withExtendedLifetime(storage) {}
  }

  private mutating func keepDeletion(of id: TopicID) {
    let bytes = GroupHeader.byteCount + EntryEncoder.topicDeletedBytes
    let storage = ByteStorage(capacity: bytes)
    var encoder = EntryEncoder(UnsafeMutableRawBufferPointer(start: storage.base, count: bytes))
    encoder.topicDeleted(id)
    keep(
      UnsafeRawBufferPointer(start: storage.base, count: bytes).part(
        GroupHeader.byteCount, bytes - GroupHeader.byteCount))
    withExtendedLifetime(storage) {}
  }

  /// Deletes a topic at the segment's end: its deletion was lost.
  mutating func delete(_ id: TopicID) { lostDeletions.append(id) }

  /// The partition's state is told at the segment's end, whatever was added.
  mutating func state(topic: TopicID, partition: Int32) {
    dropped.insert(Place(topic: topic, partition: partition))
  }

  mutating func flushIfLarge() throws(LogError) {
    if buffer.count >= Self.pieceBytes { try flush() }
  }

  /// Ends a segment that replaces `segments`.
  mutating func finish(
    replacing segments: ArraySlice<Segment>, parts: [IndexFile.Part], sequences: ClosedRange<UInt64>, compacted: Bool,
    now: Int64
  ) throws(LogError) -> Rewritten {
    let generation = (segments.compactMap { $0.header.cleaned?.generation }.max() ?? 0) &+ 1
    return try finish(
      base: segments.first!.base, capacity: segments.last!.upperBound - segments.first!.base,
      generation: generation, parts: parts, sequences: sequences, compacted: compacted, now: now)
  }

  /// Ends the segment. Errors: `tooLarge` if there is no room for it: entries that change places may take a few bytes more, since
  /// groups begin at multiples of 8.
  ///
  /// - Parameters:
  ///   - parts: how all partitions stood at the end of what it replaces.
  ///   - sequences: of all groups in what it replaces.
  ///   - compacted: what is left of compacted topics is compacted, but for what was spared.
  mutating func finish(
    base: Int64, capacity: Int64, generation: UInt32, parts: [IndexFile.Part], sequences: ClosedRange<UInt64>,
    compacted: Bool, now: Int64
  ) throws(LogError) -> Rewritten {
    if open?.sequence != sequences.upperBound {
      finishGroup()
      open = GroupHeader(
        length: 0, entryCount: 0, sequence: sequences.upperBound, durable: 0, time: now, position: 0, log: 0)
    }
    summarise(parts, keepsDeletions: base > 0)
    finishGroup()
    try flush()
    guard written <= capacity else {
      throw LogError(.tooLarge, "\(path): the rewritten segment has \(written) bytes, more than the \(capacity) before")
    }
    let header = SegmentHeader(
      identity: identity, base: base, capacity: capacity, created: now,
      cleaned: SegmentHeader.Cleaned(
        sequences: sequences, end: written, compacted: compacted && !kept.spared, generation: generation & 0xff_ffff))
    try header.write(to: file)
    try file.synchronize()
    return Rewritten(header: header, index: index(parts), kept: kept)
  }

  private func index(_ parts: [IndexFile.Part]) -> [IndexFile.Part] {
    parts.map { part in
      var part = part
      part.run = runs[Place(topic: part.topic, partition: part.partition)] ?? []
      return part
    }
  }

  /// What the dropped entries had come to.
  private mutating func summarise(_ parts: [IndexFile.Part], keepsDeletions: Bool) {
    var bytes = deadTopics.values.reduce(0) { $0 + EntryEncoder.topicBytes(name: $1.name) }
    bytes += EntryEncoder.topicIDsBytes + deletedGroups.reduce(0) { $0 + EntryEncoder.groupBytes($1) }
    bytes += lostDeletions.count * EntryEncoder.topicDeletedBytes
    bytes += (starts.count + dropped.count) * EntryEncoder.partitionStateBytes
    for (place, committed) in offsets { bytes += EntryEncoder.offsetBytes(commit(place, committed)) }
    let storage = ByteStorage(capacity: GroupHeader.byteCount + bytes)
    var encoder = EntryEncoder(
      UnsafeMutableRawBufferPointer(start: storage.base, count: GroupHeader.byteCount + bytes))
    for (id, topic) in deadTopics.sorted(by: { $0.key < $1.key }) {
      encoder.topicCreated(id, name: topic.name, topic.1)
    }
    if droppedTopic > 0 { encoder.topicIDs(next: droppedTopic + 1) }
    if keepsDeletions { for name in deletedGroups.sorted() { encoder.groupDeleted(name) } }
    let known = Dictionary(uniqueKeysWithValues: parts.map { (Place(topic: $0.topic, partition: $0.partition), $0) })
    for place in dropped.union(starts.keys).sorted(by: Self.precedes) {
      // Also for topics that are gone by now but were there at the end of this: batches of theirs may follow.
      guard let part = known[place] else { continue }
      let start = starts[place] ?? 0
      if dropped.contains(place) || stated.contains(place) {
        encoder.partitionState(
          topic: place.topic, partition: place.partition,
          PartitionState(
            start: start, end: part.end, greatestTimestamp: part.greatestTimestamp, bytes: part.bytes))
      } else {
        encoder.trimmed(topic: place.topic, partition: place.partition, start: start)
      }
    }
    for (place, committed) in offsets.sorted(by: Self.precedes) where liveness.exists(place.place.topic) {
      encoder.offset(topic: place.place.topic, commit(place, committed))
    }
    for id in lostDeletions { encoder.topicDeleted(id) }
    entries.bytes(
      UnsafeRawBufferPointer(start: storage.base, count: encoder.count).part(
        GroupHeader.byteCount, encoder.count - GroupHeader.byteCount))
    entryCount += encoder.entries
    withExtendedLifetime(storage) {}
  }

  private func commit(_ place: GroupPlace, _ committed: CommittedOffset) -> Transaction.OffsetCommit {
    // The encoder takes the topic's id; its name is not written.
    .init(group: place.group, partition: TopicPartition("", place.place.partition), committed: committed)
  }

  private static func precedes(_ left: Place, _ right: Place) -> Bool {
    (left.topic, left.partition) < (right.topic, right.partition)
  }

  private static func precedes(
    _ left: (key: GroupPlace, value: CommittedOffset), _ right: (key: GroupPlace, value: CommittedOffset)
  ) -> Bool {
    (left.key.group, left.key.place.topic, left.key.place.partition)
      < (right.key.group, right.key.place.topic, right.key.place.partition)
  }
}
