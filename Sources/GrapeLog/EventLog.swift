public import GrapeWire

/// The message-passing layer: partitioned, durable, replayable topics with atomic commits across them.
///
/// One contract for the log inside the node, the in-memory log of tests, Apache Kafka, and whatever a user adds;
/// `GrapeTestKit` holds the conformance suite that each of them must pass.
///
/// Operations come back through completions, because the callers that matter live on an event loop. A completion is
/// called exactly once, on any thread, possibly before the call returns; it must not block. For callers who would
/// rather `await`, an extension offers each operation as an `async` function.
///
/// Visibility: a reader sees a record once the commit that carries it has reached the durability which that commit asked for,
/// and never a part of a commit without the rest.
public protocol EventLog: AnyObject, Sendable {
  /// Creates a topic, durably. `topicExists` if there is one of that name with another configuration; creating it
  /// again with the same configuration succeeds and changes nothing.
  func createTopic(
    _ name: String, configuration: TopicConfiguration, completion: @escaping @Sendable (Result<Void, LogError>) -> Void)

  /// Deletes a topic with its records and all committed offsets on it.
  func deleteTopic(_ name: String, completion: @escaping @Sendable (Result<Void, LogError>) -> Void)

  /// Changes a topic's cleanup and retention, durably. The number of partitions must be what it is: `invalidArgument`
  /// otherwise.
  func alterTopic(
    _ name: String, configuration: TopicConfiguration, completion: @escaping @Sendable (Result<Void, LogError>) -> Void)

  /// Gives up all records of a partition before `offset`, whoever may not have consumed them yet. They are out of reach
  /// at once; their space is freed later. An offset before the partition's start changes nothing; one beyond its end
  /// is `offsetOutOfRange`.
  func deleteRecords(
    of partition: TopicPartition, before offset: Int64, completion: @escaping @Sendable (Result<Void, LogError>) -> Void
  )

  /// Forgets all offsets that a group committed, and with them its claim on unconsumed records.
  func deleteGroup(_ group: String, completion: @escaping @Sendable (Result<Void, LogError>) -> Void)

  /// All topics, in order of name.
  func topics(completion: @escaping @Sendable (Result<[TopicDescription], LogError>) -> Void)

  /// Applies a transaction whole or not at all. Transactions handed over by one thread are applied in that order.
  ///
  /// The batches must be valid (`RecordBatch.validate`) with base offset 0; the log assigns offsets. Completed with
  /// the receipt once the durability asked for is reached.
  func commit(_ transaction: Transaction, completion: @escaping @Sendable (Result<CommitReceipt, LogError>) -> Void)

  /// Reads batches from `offset` on: as many as fit `maxBytes`, at least one if there is any. Compaction may have taken
  /// any record before the end, so the first may begin behind `offset`; an empty result means that there is no record from
  /// `offset` up to the result's `bounds.end`. The result's `nextOffset` tells where to go on. `offsetOutOfRange` below
  /// the start or beyond the end.
  func read(
    _ partition: TopicPartition, from offset: Int64, maxBytes: Int,
    completion: @escaping @Sendable (Result<ReadResult, LogError>) -> Void)

  /// Calls `notify` once, as soon as the partition's end is greater than `offset` (at once if it already is), or when the topic is deleted or the log
  /// closes. Cancelling the token makes it unlikely, not impossible, that `notify` is still called.
  func whenAvailable(_ partition: TopicPartition, after offset: Int64, notify: @escaping @Sendable () -> Void)
    -> WatchToken

  /// Forgets a watch. Unknown tokens are ignored.
  func cancelWatch(_ token: WatchToken)

  /// Start (first offset kept) and end (next offset to be assigned, as visible to readers) of a partition.
  func bounds(of partition: TopicPartition, completion: @escaping @Sendable (Result<PartitionBounds, LogError>) -> Void)

  /// Completes once no transaction is undecided in these partitions that was begun before it was asked: whatever was to be
  /// committed there by others that are gone is visible, or never will be.
  ///
  /// Errors: `noSuchTopic`, `noSuchPartition`, `closed`; `busy` if a transaction stays undecided for longer than the log
  /// lets any stay open, or the log cannot be reached for so long.
  func settled(_ partitions: [TopicPartition], completion: @escaping @Sendable (Result<Void, LogError>) -> Void)

  /// First offset whose record batch has a maximum timestamp at or after `timestamp` (milliseconds since 1970, UTC); the end if there is none.
  func offset(
    of partition: TopicPartition, at timestamp: Int64, completion: @escaping @Sendable (Result<Int64, LogError>) -> Void
  )

  /// What a group has committed, for all partitions it ever committed.
  func committedOffsets(
    group: String, completion: @escaping @Sendable (Result<[TopicPartition: CommittedOffset], LogError>) -> Void)

  /// Joins a consumer group. Every partition of the topics belongs to one member of the group at a time; `onChange` tells the
  /// member of those that come and go, perhaps before `join` returns, perhaps much later: the first change may have no
  /// partitions at all. It must not block.
  ///
  /// Offsets that this log commits for the group are, while it has members here, refused with `partitionLost` once the
  /// partition is another's, if others can have it.
  func join(group: String, topics: [String], onChange: @escaping @Sendable (GroupChange) -> Void) -> GroupMembership

  /// Leaves a group; its partitions go to the other members. What was under way in them must be at rest. Idempotent.
  func leave(_ membership: GroupMembership)

  /// Finishes what was accepted, then refuses all further operations with `closed`. Idempotent.
  func close(completion: @escaping @Sendable () -> Void)
}

extension EventLog {
  /// For logs with one writer, which decide at once.
  public func settled(
    _ partitions: [TopicPartition], completion: @escaping @Sendable (Result<Void, LogError>) -> Void
  ) { completion(.success(())) }
}

/// One partition of a topic.
public struct TopicPartition: Hashable, Sendable, CustomStringConvertible {
  /// Topic's name: 1 to 249 of `[a-zA-Z0-9._-]`.
  public var topic: String
  /// 0 ..< the topic's number of partitions.
  public var partition: Int32

  public init(_ topic: String, _ partition: Int32) {
    self.topic = topic
    self.partition = partition
  }

  public var description: String { "\(topic)/\(partition)" }
}

/// What happens to a topic's old records.
public enum CleanupPolicy: UInt8, Sendable {
  /// Dropped by age and size.
  case delete = 0
  /// The last record of each key is kept.
  case compact = 1
}

/// How a topic is laid out and kept.
public struct TopicConfiguration: Hashable, Sendable {
  /// Number of partitions, 1 to 10,000; fixed for the topic's life.
  public var partitions: Int32
  public var cleanup: CleanupPolicy
  /// Records older than this may be dropped, milliseconds; nil: never by age.
  public var retentionMilliseconds: Int64?
  /// A partition larger than this may lose its oldest records, bytes; nil: never by size.
  public var retentionBytes: Int64?
  /// Retention and compaction usually spare what a consumer group with a committed offset in the partition has still to
  /// consume; true: they do not.
  public var dropsUnconsumed: Bool

  public init(
    partitions: Int32, cleanup: CleanupPolicy = .delete, retentionMilliseconds: Int64? = nil,
    retentionBytes: Int64? = nil, dropsUnconsumed: Bool = false
  ) {
    self.dropsUnconsumed = dropsUnconsumed
    self.partitions = partitions
    self.cleanup = cleanup
    self.retentionMilliseconds = retentionMilliseconds
    self.retentionBytes = retentionBytes
  }
}

/// A topic as it stands.
public struct TopicDescription: Hashable, Sendable {
  public var name: String
  public var configuration: TopicConfiguration

  public init(name: String, configuration: TopicConfiguration) {
    self.name = name
    self.configuration = configuration
  }
}

/// How safe a commit must be before it is acknowledged and seen by readers.
public enum Durability: UInt8, Sendable, Comparable, CaseIterable {
  /// Held in the node's memory: lost when the node dies.
  case memory = 1
  /// Written to the operating system: survives the node's death, not the machine's.
  case os = 2
  /// On the disk.
  case disk = 3

  public static func < (left: Durability, right: Durability) -> Bool { left.rawValue < right.rawValue }
}

/// Changes that become true together.
public struct Transaction: Sendable {
  /// Reached before the completion is called.
  public var durability: Durability
  /// Record batches to append. Batches for the same partition keep their order.
  public var appends: [Append]
  /// Progress of consumer groups.
  public var offsets: [OffsetCommit]
  /// True: while the log cannot be reached the transaction waits, however long that takes, instead of being refused as
  /// `busy` in the end. For what was begun and can only go on.
  public var isPatient: Bool
  /// True: its records may be seen one after the other, and some of them twice where the log does not know whether they were written. For effects
  /// that come about at least once; a log to which being certain costs more may do without. Means nothing beside `offsets`.
  public var mayRepeat = false

  public init(
    durability: Durability = .disk, appends: [Append] = [], offsets: [OffsetCommit] = [], isPatient: Bool = false
  ) {
    self.durability = durability
    self.appends = appends
    self.offsets = offsets
    self.isPatient = isPatient
  }

  /// One record batch for one partition.
  public struct Append: Sendable {
    public var partition: TopicPartition
    /// A whole, valid record batch.
    public var batch: ByteSlice
    /// The batch's maximum timestamp, milliseconds since 1970 UTC, and number of records: known from its validation.
    public var maxTimestamp: Int64
    public var recordCount: Int32

    public init(_ partition: TopicPartition, batch: ByteSlice, maxTimestamp: Int64, recordCount: Int32) {
      self.partition = partition
      self.batch = batch
      self.maxTimestamp = maxTimestamp
      self.recordCount = recordCount
    }
  }

  /// A group's progress in one partition.
  public struct OffsetCommit: Sendable {
    public var group: String
    public var partition: TopicPartition
    public var committed: CommittedOffset
    /// What this transaction builds on: the offset of the group's commit before, in this partition. A log whose transactions
    /// can fail singly refuses it with `outOfSequence` if that one has failed; nil: it builds on nothing.
    public var previous: Int64?

    public init(group: String, partition: TopicPartition, committed: CommittedOffset, previous: Int64? = nil) {
      self.group = group
      self.partition = partition
      self.committed = committed
      self.previous = previous
    }
  }
}

/// Where a group stands in a partition.
public struct CommittedOffset: Hashable, Sendable {
  /// Next offset to consume.
  public var offset: Int64
  /// The consumer's own notes, at most 4,096 bytes (for instance what is done beyond `offset`).
  public var metadata: [UInt8]

  public init(offset: Int64, metadata: [UInt8] = []) {
    self.offset = offset
    self.metadata = metadata
  }
}

/// What a commit achieved.
public struct CommitReceipt: Sendable {
  /// Durability reached: what was asked for, or more.
  public var durability: Durability
  /// Base offset given to each append of the transaction, in its order: that of its first record.
  public var baseOffsets: [Int64]
  /// Where records of an append do not follow the one before because another producer wrote between them, by append. Only logs that many
  /// nodes write to have such.
  public var interruptions: [Int: [Interruption]]

  /// A record that does not follow the one before in its append.
  public struct Interruption: Hashable, Sendable {
    /// Its number in the append, from 0 on.
    public var record: Int64
    public var offset: Int64

    public init(record: Int64, offset: Int64) {
      self.record = record
      self.offset = offset
    }
  }

  /// - Parameter interruptions: those of each append in the order of records.
  public init(durability: Durability, baseOffsets: [Int64], interruptions: [Int: [Interruption]] = [:]) {
    self.durability = durability
    self.baseOffsets = baseOffsets
    self.interruptions = interruptions
  }

  /// Where a record is, by its number in its append, from 0 on.
  public func offset(ofRecord record: Int64, append: Int) -> Int64 {
    guard !interruptions.isEmpty, let last = interruptions[append]?.last(where: { $0.record <= record }) else {
      return baseOffsets[append] + record
    }
    return last.offset + record - last.record
  }
}

/// A record batch as the log holds it: base offset filled in. The offsets of its records ascend within
/// `baseOffset ... lastOffset`, contiguous as appended, perhaps with gaps once compacted.
public struct LogBatch: Sendable {
  public var bytes: ByteSlice
  public var baseOffset: Int64
  /// Last offset that the batch covers: that of its last record when it was appended.
  public var lastOffset: Int64
  /// Greatest timestamp among the records, milliseconds since 1970 UTC.
  public var maxTimestamp: Int64

  public init(bytes: ByteSlice, baseOffset: Int64, lastOffset: Int64, maxTimestamp: Int64) {
    self.bytes = bytes
    self.baseOffset = baseOffset
    self.lastOffset = lastOffset
    self.maxTimestamp = maxTimestamp
  }
}

/// Batches read, in order of offset, perhaps with gaps between them. The first may begin before the offset asked for.
public struct ReadResult: Sendable {
  public var batches: [LogBatch]
  public var bounds: PartitionBounds

  public init(batches: [LogBatch], bounds: PartitionBounds) {
    self.batches = batches
    self.bounds = bounds
  }

  /// Where to read on: behind the last batch; without batches, the end, up to which nothing is left.
  public var nextOffset: Int64 { batches.last.map { $0.lastOffset + 1 } ?? bounds.end }
}

/// First offset kept and next offset to come.
public struct PartitionBounds: Hashable, Sendable {
  public var start: Int64
  public var end: Int64

  public init(start: Int64, end: Int64) {
    self.start = start
    self.end = end
  }
}

/// Names a watch.
public struct WatchToken: Hashable, Sendable {
  public var id: UInt64
  public init(id: UInt64) { self.id = id }
}

/// Names a membership in a group.
public struct GroupMembership: Hashable, Sendable {
  public var id: UInt64
  public init(id: UInt64) { self.id = id }
}

/// What a member of a consumer group is told: which partitions come to it, and which go.
///
/// A member is told one change after the other. One that revokes partitions must be followed by `finish`: the next
/// comes only then, unless partitions are lost meanwhile.
public struct GroupChange: Sendable {
  /// The member's from now on.
  public var assigned: [TopicPartition]
  /// To be given up in order: nothing new is begun in them, what is under way is committed or abandoned, then `finish` is
  /// called. Nobody else gets them before.
  public var revoked: [TopicPartition]
  /// Gone, and perhaps with another member already: what is not committed cannot be committed any more. Also those of an
  /// unfinished revocation, if its time ran out.
  public var lost: [TopicPartition]
  private let finished: @Sendable () -> Void

  /// - Parameter finished: called by `finish`, perhaps more than once, on any thread.
  public init(
    assigned: [TopicPartition] = [], revoked: [TopicPartition] = [], lost: [TopicPartition] = [],
    finished: @escaping @Sendable () -> Void = {}
  ) {
    self.assigned = assigned
    self.revoked = revoked
    self.lost = lost
    self.finished = finished
  }

  /// Lets go of the revoked partitions. Any thread; further calls do nothing.
  public func finish() { finished() }
}
