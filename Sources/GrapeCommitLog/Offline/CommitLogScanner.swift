public import GrapeLog
import GrapeWire

/// Reads a log's commit groups from its files, read-only, also while a node owns them.
public struct CommitLogScanner: ~Copyable {
  /// A commit group.
  public struct Group: Sendable {
    /// Segment file it stands in, and where in the file, in bytes.
    public var file: String
    public var fileOffset: Int64
    /// Logical position in the log.
    public var position: Int64
    public var sequence: UInt64
    /// All groups up to this sequence were on the disk when this one was written.
    public var durableSequence: UInt64
    /// When it was written, milliseconds since 1970 UTC.
    public var time: Int64
    /// Bytes of the group, header included.
    public var bytes: Int
    public var entries: [Entry]
  }

  /// A change in a group. Topics have names that were created before; an id that was not is shown as `#id`.
  public enum Entry: Sendable {
    case append(TopicPartition, LogBatch, recordCount: Int32)
    case offsetCommit(group: String, TopicPartition, CommittedOffset)
    case topicCreated(TopicDescription)
    case topicDeleted(name: String)
    case topicAltered(TopicDescription)
    /// Records before `start` were given up.
    case trimmed(TopicPartition, start: Int64)
    /// What cleaning left of a partition: its first offset kept and its next offset.
    case partitionState(TopicPartition, PartitionBounds)
    case groupDeleted(String)
    /// Topic ids below `next` are in use, or were.
    case topicIDs(next: UInt32)
    /// Of a kind that a newer version writes.
    case unknown(kind: UInt8, bytes: Int)
  }

  private var cursor: GroupCursor
  private var names: [TopicID: String] = [:]

  /// Opens the log of the data directory `directory`.
  public init(directory: String) throws(LogError) { cursor = try GroupCursor(directory: directory + "/log") }

  /// Reads a log on storage of any kind, which stays open.
  package init(storage: any SegmentStorage) { cursor = GroupCursor(storage: storage, from: 0) }

  /// What stands behind the last group, in words, if it is not zeros: a torn write, or one under way just now.
  public var tail: String? { cursor.tail }

  /// The next group; nil at the end. Errors: `corrupt` for damage before the end.
  public mutating func next() throws(LogError) -> Group? {
    guard let (header, bytes, offset) = try cursor.next() else { return nil }
    let copy = ByteSlice(copying: bytes)
    var group = Group(
      file: cursor.path, fileOffset: offset, position: header.position, sequence: header.sequence,
      durableSequence: header.durable, time: header.time, bytes: header.length, entries: [])
    group.entries.reserveCapacity(header.entryCount)
    var decoder = EntryDecoder(group: copy.unsafeBytes)
    do throws(EntryDecoder.Malformed) {
      while let entry = try decoder.next() { group.entries.append(try describe(entry, copy)) }
    } catch {
      throw LogError(
        .corrupt, "\(cursor.path): the group at byte \(offset) makes no sense at byte \(error.offset): \(error.reason)")
    }
    return group
  }

  private mutating func describe(
    _ entry: GrapeCommitLog.Entry, _ group: ByteSlice
  ) throws(EntryDecoder.Malformed) -> Entry {
    switch entry {
    case .append(let topic, let partition, _, let range):
      let batch = group[range]
      let header: RecordBatchHeader
      do throws(WireError) {
        header = try RecordBatchHeader(batch.unsafeBytes)
      } catch {
        throw EntryDecoder.Malformed(offset: range.lowerBound, reason: error.message)
      }
      return .append(
        TopicPartition(name(topic), partition),
        LogBatch(
          bytes: batch, baseOffset: header.baseOffset, lastOffset: header.lastOffset, maxTimestamp: header.maxTimestamp),
        recordCount: header.recordCount)
    case .offsetCommit(let topic, let partition, let group, let committed):
      return .offsetCommit(group: group, TopicPartition(name(topic), partition), committed)
    case .topicCreated(let id, let name, let configuration):
      names[id] = name
      return .topicCreated(TopicDescription(name: name, configuration: configuration))
    case .topicDeleted(let id): return .topicDeleted(name: name(id))
    case .topicAltered(_, let name, let configuration):
      return .topicAltered(TopicDescription(name: name, configuration: configuration))
    case .trimmed(let topic, let partition, let start):
      return .trimmed(TopicPartition(name(topic), partition), start: start)
    case .partitionState(let topic, let partition, let state):
      return .partitionState(
        TopicPartition(name(topic), partition), PartitionBounds(start: state.start, end: state.end))
    case .groupDeleted(let group): return .groupDeleted(group)
    case .topicIDs(let next): return .topicIDs(next: next)
    case .unknown(let kind, let length): return .unknown(kind: kind, bytes: length)
    }
  }

  private func name(_ id: TopicID) -> String { names[id] ?? "#\(id)" }
}

extension CommitLog {
  /// A topic as the files have it.
  public struct OfflineTopic: Sendable {
    public var description: TopicDescription
    /// Per partition.
    public var bounds: [PartitionBounds]
  }

  /// Topics of the data directory `directory` in order of name, read from its files whether or not a node runs there.
  /// Reads what is behind the last checkpoint. Errors: `corrupt`, `unsupportedFormat`, `failed`.
  public static func topics(directory: String) throws(LogError) -> [OfflineTopic] {
    let storage = try DirectoryStorage(reading: directory + "/log")
    defer { storage.close() }
    let (start, begun) = try storage.newestCheckpoint() ?? (0, StateRebuilder())
    var rebuilder = begun
    var cursor = GroupCursor(storage: storage, from: start)
    while let (header, bytes, offset) = try cursor.next() {
      for segment in cursor.takePassed() { rebuilder.leave(segment) }
      try rebuilder.apply(header, bytes, of: cursor.segment, path: cursor.path, offset: offset)
    }
    let state = rebuilder.state
    return state.ids.sorted { $0.key < $1.key }.map { name, id in
      let topic = state.topics[Int(id)]!
      return OfflineTopic(
        description: TopicDescription(name: name, configuration: topic.configuration),
        bounds: topic.partitions.map(\.bounds))
    }
  }
}

extension SegmentStorage {
  /// The state that the newest sound checkpoint holds, and where the groups behind it begin. Nil if there is none.
  func newestCheckpoint() throws(LogError) -> (base: Int64, rebuilder: StateRebuilder)? {
    let names = try list()
    let catalog = try SegmentCatalog(self, names: names)
    for place in catalog.segments.indices.reversed() {
      if let rebuilder = try checkpoint(catalog, place, names) { return (catalog.segments[place].base, rebuilder) }
    }
    return nil
  }

  /// What the checkpoint before a segment holds; nil if there is none that is sound and of this history.
  func checkpoint(
    _ catalog: SegmentCatalog, _ place: Int, _ names: [String]
  ) throws(LogError) -> StateRebuilder? {
    let header = catalog.segments[place]
    guard let snapshot = try snapshot(before: header.base, of: header.identity, names),
      // One that outlived a crash which its segment did not is of another history.
      catalog.firstSequences[place] == snapshot.sequence + 1
    else { return nil }
    return StateRebuilder(snapshot)
  }

  /// What the checkpoint for a position holds; nil if there is none that is sound.
  func snapshot(before base: Int64, of identity: LogIdentity, _ names: [String]) throws(LogError) -> StateSnapshot? {
    let name = Checkpoint.fileName(base: base)
    guard names.contains(name) else { return nil }
    let file = try open(name, writable: false)
    defer { file.close() }
    let size = Int(try file.size())
    let block = ByteStorage(capacity: size)
    let bytes = UnsafeMutableRawBufferPointer(start: block.base, count: size)
    guard try file.read(into: bytes, at: 0) == size else { return nil }
    return Checkpoint.decode(UnsafeRawBufferPointer(bytes), base: base, identity: identity)
  }
}
