import GrapeLog

/// One change in a commit group. Layout of each kind: docs/data-format.md.
enum EntryKind: UInt8 {
  case append = 1
  case offsetCommit = 2
  case topicCreated = 3
  case topicDeleted = 4
  /// Records before an offset are given up.
  case trimmed = 5
  /// A partition as it stood at the end of what a cleaned segment replaces.
  case partitionState = 6
  /// Topic ids below a number are in use, or were.
  case topicIDs = 7
  case groupDeleted = 8
  /// Another configuration, with the same number of partitions.
  case topicAltered = 9
}

/// Names a topic for ever: ids are not used again.
typealias TopicID = UInt32

enum EntryFormat {
  /// Kind, three zero bytes, length of the body.
  static let headerBytes = 8
  /// Topic id, partition, base offset; then the record batch.
  static let appendPrefixBytes = 16
  /// Topic id, partition, offset, two lengths; then group and metadata.
  static let offsetPrefixBytes = 20
  /// Topic id, partitions, cleanup, flags, length of the name, two retentions; then the name.
  static let topicPrefixBytes = 28
  static let topicDeletedBytes = 4
  /// Topic id, partition, offset.
  static let trimmedBytes = 16
  /// Topic id, partition, start, end, greatest timestamp, bytes.
  static let partitionStateBytes = 40
  static let topicIDsBytes = 4
  /// Length of the name; then the name.
  static let groupPrefixBytes = 2
}

/// What is known of a partition without its batches.
struct PartitionState: Equatable, Sendable {
  /// First offset kept.
  var start: Int64 = 0
  /// Next offset to come.
  var end: Int64 = 0
  /// Of all batches ever appended, milliseconds since 1970 UTC; `Int64.min` if there were none.
  var greatestTimestamp: Int64 = .min
  /// Of all batches ever appended.
  var bytes: UInt64 = 0
}

/// Writes entries one behind the other into memory that is known to suffice.
struct EntryEncoder {
  private let base: UnsafeMutableRawPointer
  private(set) var count: Int
  private(set) var entries = 0
  private let capacity: Int

  /// Begins behind the group's header.
  init(_ memory: UnsafeMutableRawBufferPointer) {
    base = memory.baseAddress!
    capacity = memory.count
    count = GroupHeader.byteCount
  }

  private mutating func begin(_ kind: EntryKind, bodyBytes: Int) -> UnsafeMutableRawPointer {
    precondition(count + EntryFormat.headerBytes + bodyBytes <= capacity, "a group's size was computed too small")
    let entry = base + count
    entry.store(bigEndian: UInt32(kind.rawValue) << 24, at: 0)
    entry.store(bigEndian: UInt32(bodyBytes), at: 4)
    count += EntryFormat.headerBytes + bodyBytes
    entries += 1
    return entry + EntryFormat.headerBytes
  }

  static func appendBytes(batch: Int) -> Int { EntryFormat.headerBytes + EntryFormat.appendPrefixBytes + batch }

  /// Returns where the batch begins, counted from the group's first byte.
  mutating func append(topic: TopicID, partition: Int32, baseOffset: Int64, batch: UnsafeRawBufferPointer) -> Int {
    let body = begin(.append, bodyBytes: EntryFormat.appendPrefixBytes + batch.count)
    body.store(bigEndian: topic, at: 0)
    body.store(bigEndian: partition, at: 4)
    body.store(bigEndian: baseOffset, at: 8)
    let copy = body + EntryFormat.appendPrefixBytes
    copy.copyMemory(from: batch.baseAddress!, byteCount: batch.count)
    copy.store(bigEndian: baseOffset, at: 0)
    return copy - base
  }

  static func offsetBytes(_ commit: Transaction.OffsetCommit) -> Int {
    EntryFormat.headerBytes + EntryFormat.offsetPrefixBytes + commit.group.utf8.count + commit.committed.metadata.count
  }

  mutating func offset(topic: TopicID, _ commit: Transaction.OffsetCommit) {
    let group = commit.group.utf8
    let metadata = commit.committed.metadata
    let body = begin(.offsetCommit, bodyBytes: EntryFormat.offsetPrefixBytes + group.count + metadata.count)
    body.store(bigEndian: topic, at: 0)
    body.store(bigEndian: commit.partition.partition, at: 4)
    body.store(bigEndian: commit.committed.offset, at: 8)
    body.store(bigEndian: UInt16(group.count), at: 16)
    body.store(bigEndian: UInt16(metadata.count), at: 18)
    copy(group, to: body + EntryFormat.offsetPrefixBytes)
    copy(metadata, to: body + EntryFormat.offsetPrefixBytes + group.count)
  }

  static func topicBytes(name: String) -> Int {
    EntryFormat.headerBytes + EntryFormat.topicPrefixBytes + name.utf8.count
  }

  mutating func topicCreated(_ id: TopicID, name: String, _ configuration: TopicConfiguration) {
    topic(.topicCreated, id, name: name, configuration)
  }

  /// Takes as many bytes as `topicCreated`.
  mutating func topicAltered(_ id: TopicID, name: String, _ configuration: TopicConfiguration) {
    topic(.topicAltered, id, name: name, configuration)
  }

  private mutating func topic(
    _ kind: EntryKind, _ id: TopicID, name: String, _ configuration: TopicConfiguration
  ) {
    let body = begin(kind, bodyBytes: EntryFormat.topicPrefixBytes + name.utf8.count)
    body.store(bigEndian: id, at: 0)
    body.store(bigEndian: configuration.partitions, at: 4)
    body.store(bigEndian: configuration.cleanup.rawValue, at: 8)
    var flags: UInt8 = 0
    if configuration.retentionMilliseconds != nil { flags |= 1 }
    if configuration.retentionBytes != nil { flags |= 2 }
    if configuration.dropsUnconsumed { flags |= 4 }
    body.store(bigEndian: flags, at: 9)
    body.store(bigEndian: UInt16(name.utf8.count), at: 10)
    body.store(bigEndian: configuration.retentionMilliseconds ?? 0, at: 12)
    body.store(bigEndian: configuration.retentionBytes ?? 0, at: 20)
    copy(name.utf8, to: body + EntryFormat.topicPrefixBytes)
  }

  static let topicDeletedBytes = EntryFormat.headerBytes + EntryFormat.topicDeletedBytes

  mutating func topicDeleted(_ id: TopicID) {
    begin(.topicDeleted, bodyBytes: EntryFormat.topicDeletedBytes).store(bigEndian: id, at: 0)
  }

  static let trimmedBytes = EntryFormat.headerBytes + EntryFormat.trimmedBytes

  mutating func trimmed(topic: TopicID, partition: Int32, start: Int64) {
    let body = begin(.trimmed, bodyBytes: EntryFormat.trimmedBytes)
    body.store(bigEndian: topic, at: 0)
    body.store(bigEndian: partition, at: 4)
    body.store(bigEndian: start, at: 8)
  }

  static let partitionStateBytes = EntryFormat.headerBytes + EntryFormat.partitionStateBytes

  mutating func partitionState(topic: TopicID, partition: Int32, _ state: PartitionState) {
    let body = begin(.partitionState, bodyBytes: EntryFormat.partitionStateBytes)
    body.store(bigEndian: topic, at: 0)
    body.store(bigEndian: partition, at: 4)
    body.store(bigEndian: state.start, at: 8)
    body.store(bigEndian: state.end, at: 16)
    body.store(bigEndian: state.greatestTimestamp, at: 24)
    body.store(bigEndian: state.bytes, at: 32)
  }

  static let topicIDsBytes = EntryFormat.headerBytes + EntryFormat.topicIDsBytes

  mutating func topicIDs(next: TopicID) {
    begin(.topicIDs, bodyBytes: EntryFormat.topicIDsBytes).store(bigEndian: next, at: 0)
  }

  static func groupBytes(_ name: String) -> Int {
    EntryFormat.headerBytes + EntryFormat.groupPrefixBytes + name.utf8.count
  }

  mutating func groupDeleted(_ name: String) {
    let body = begin(.groupDeleted, bodyBytes: EntryFormat.groupPrefixBytes + name.utf8.count)
    body.store(bigEndian: UInt16(name.utf8.count), at: 0)
    copy(name.utf8, to: body + EntryFormat.groupPrefixBytes)
  }

  private func copy(_ bytes: some Collection<UInt8>, to: UnsafeMutableRawPointer) {
    UnsafeMutableRawBufferPointer(start: to, count: bytes.count).copyBytes(from: bytes)
  }
}

/// A decoded entry. Byte ranges lie in the group that was decoded.
enum Entry {
  /// `batch` counts from the group's first byte.
  case append(topic: TopicID, partition: Int32, baseOffset: Int64, batch: Range<Int>)
  case offsetCommit(topic: TopicID, partition: Int32, group: String, committed: CommittedOffset)
  case topicCreated(TopicID, name: String, TopicConfiguration)
  case topicDeleted(TopicID)
  case trimmed(topic: TopicID, partition: Int32, start: Int64)
  case partitionState(topic: TopicID, partition: Int32, PartitionState)
  case topicIDs(next: TopicID)
  case groupDeleted(String)
  case topicAltered(TopicID, name: String, TopicConfiguration)
  /// Written by a newer program.
  case unknown(kind: UInt8, length: Int)
}
