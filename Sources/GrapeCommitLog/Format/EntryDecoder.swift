import GrapeLog

/// Walks the entries of a group whose CRC was found right. A malformed entry is nevertheless told, not trapped on.
struct EntryDecoder {
  /// What is wrong with an entry, and where it begins, counted from the group's first byte.
  struct Malformed: Error {
    let offset: Int
    let reason: String
  }

  private let group: UnsafeRawBufferPointer
  private var offset = GroupHeader.byteCount

  /// `group` must stay valid while the decoder is used.
  init(group: UnsafeRawBufferPointer) { self.group = group }

  /// Where the next entry begins, counted from the group's first byte.
  var position: Int { offset }

  mutating func next() throws(Malformed) -> Entry? {
    let left = group.count - offset
    if left == 0 { return nil }
    guard left >= EntryFormat.headerBytes else { throw malformed("\(left) bytes left for an entry") }
    let length = Int(group.bigEndian(at: offset + 4, as: UInt32.self))
    guard length <= left - EntryFormat.headerBytes else { throw malformed("an entry of \(length) bytes in \(left)") }
    let start = offset + EntryFormat.headerBytes
    let body = group.part(start, length)
    let kind = group[offset]
    guard let known = EntryKind(rawValue: kind) else {
      offset = start + length
      return .unknown(kind: kind, length: length)
    }
    let entry =
      switch known {
      case .append: try append(body, at: start)
      case .offsetCommit: try offsetCommit(body)
      case .topicCreated: try topic(body, altered: false)
      case .topicDeleted: try topicDeleted(body)
      case .trimmed: try trimmed(body)
      case .partitionState: try partitionState(body)
      case .topicIDs: try topicIDs(body)
      case .groupDeleted: try groupDeleted(body)
      case .topicAltered: try topic(body, altered: true)
      }
    offset = start + length
    return entry
  }

  private func malformed(_ reason: String) -> Malformed { Malformed(offset: offset, reason: reason) }

  private func append(_ body: UnsafeRawBufferPointer, at start: Int) throws(Malformed) -> Entry {
    guard body.count > EntryFormat.appendPrefixBytes else { throw malformed("append of \(body.count) bytes") }
    return .append(
      topic: body.bigEndian(at: 0), partition: body.bigEndian(at: 4), baseOffset: body.bigEndian(at: 8),
      batch: start + EntryFormat.appendPrefixBytes..<start + body.count)
  }

  private func offsetCommit(_ body: UnsafeRawBufferPointer) throws(Malformed) -> Entry {
    guard body.count >= EntryFormat.offsetPrefixBytes else { throw malformed("offset commit of \(body.count) bytes") }
    let group = Int(body.bigEndian(at: 16, as: UInt16.self))
    let metadata = Int(body.bigEndian(at: 18, as: UInt16.self))
    guard body.count == EntryFormat.offsetPrefixBytes + group + metadata else {
      throw malformed("offset commit of \(body.count) bytes with \(group) + \(metadata) of text")
    }
    return .offsetCommit(
      topic: body.bigEndian(at: 0), partition: body.bigEndian(at: 4),
      group: String(decoding: body.part(EntryFormat.offsetPrefixBytes, group), as: UTF8.self),
      committed: CommittedOffset(
        offset: body.bigEndian(at: 8), metadata: [UInt8](body.part(EntryFormat.offsetPrefixBytes + group, metadata))))
  }

  private func topic(_ body: UnsafeRawBufferPointer, altered: Bool) throws(Malformed) -> Entry {
    guard body.count >= EntryFormat.topicPrefixBytes else { throw malformed("topic entry of \(body.count) bytes") }
    let name = Int(body.bigEndian(at: 10, as: UInt16.self))
    guard body.count == EntryFormat.topicPrefixBytes + name, let cleanup = CleanupPolicy(rawValue: body[8]) else {
      throw malformed("topic entry of \(body.count) bytes with a name of \(name), cleanup \(body[8])")
    }
    let flags = body[9]
    let id: TopicID = body.bigEndian(at: 0)
    let text = String(decoding: body.part(EntryFormat.topicPrefixBytes, name), as: UTF8.self)
    let configuration = TopicConfiguration(
      partitions: body.bigEndian(at: 4), cleanup: cleanup,
      retentionMilliseconds: flags & 1 == 0 ? nil : body.bigEndian(at: 12),
      retentionBytes: flags & 2 == 0 ? nil : body.bigEndian(at: 20), dropsUnconsumed: flags & 4 != 0)
    return altered
      ? .topicAltered(id, name: text, configuration) : .topicCreated(id, name: text, configuration)
  }

  private func trimmed(_ body: UnsafeRawBufferPointer) throws(Malformed) -> Entry {
    guard body.count == EntryFormat.trimmedBytes else { throw malformed("trim entry of \(body.count) bytes") }
    return .trimmed(topic: body.bigEndian(at: 0), partition: body.bigEndian(at: 4), start: body.bigEndian(at: 8))
  }

  private func partitionState(_ body: UnsafeRawBufferPointer) throws(Malformed) -> Entry {
    guard body.count == EntryFormat.partitionStateBytes else { throw malformed("state entry of \(body.count) bytes") }
    return .partitionState(
      topic: body.bigEndian(at: 0), partition: body.bigEndian(at: 4),
      PartitionState(
        start: body.bigEndian(at: 8), end: body.bigEndian(at: 16), greatestTimestamp: body.bigEndian(at: 24),
        bytes: body.bigEndian(at: 32)))
  }

  private func topicIDs(_ body: UnsafeRawBufferPointer) throws(Malformed) -> Entry {
    guard body.count == EntryFormat.topicIDsBytes else { throw malformed("topic ids entry of \(body.count) bytes") }
    return .topicIDs(next: body.bigEndian(at: 0))
  }

  private func groupDeleted(_ body: UnsafeRawBufferPointer) throws(Malformed) -> Entry {
    guard body.count >= EntryFormat.groupPrefixBytes,
      body.count == EntryFormat.groupPrefixBytes + Int(body.bigEndian(at: 0, as: UInt16.self))
    else { throw malformed("group entry of \(body.count) bytes") }
    return .groupDeleted(
      String(
        decoding: body.part(EntryFormat.groupPrefixBytes, body.count - EntryFormat.groupPrefixBytes), as: UTF8.self))
  }

  private func topicDeleted(_ body: UnsafeRawBufferPointer) throws(Malformed) -> Entry {
    guard body.count == EntryFormat.topicDeletedBytes else { throw malformed("deletion entry of \(body.count) bytes") }
    return .topicDeleted(body.bigEndian(at: 0))
  }
}
