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
      case .topicCreated: try topicCreated(body)
      case .topicDeleted: try topicDeleted(body)
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

  private func topicCreated(_ body: UnsafeRawBufferPointer) throws(Malformed) -> Entry {
    guard body.count >= EntryFormat.topicPrefixBytes else { throw malformed("topic entry of \(body.count) bytes") }
    let name = Int(body.bigEndian(at: 10, as: UInt16.self))
    guard body.count == EntryFormat.topicPrefixBytes + name, let cleanup = CleanupPolicy(rawValue: body[8]) else {
      throw malformed("topic entry of \(body.count) bytes with a name of \(name), cleanup \(body[8])")
    }
    let flags = body[9]
    return .topicCreated(
      body.bigEndian(at: 0), name: String(decoding: body.part(EntryFormat.topicPrefixBytes, name), as: UTF8.self),
      TopicConfiguration(
        partitions: body.bigEndian(at: 4), cleanup: cleanup,
        retentionMilliseconds: flags & 1 == 0 ? nil : body.bigEndian(at: 12),
        retentionBytes: flags & 2 == 0 ? nil : body.bigEndian(at: 20)))
  }

  private func topicDeleted(_ body: UnsafeRawBufferPointer) throws(Malformed) -> Entry {
    guard body.count == EntryFormat.topicDeletedBytes else { throw malformed("deletion entry of \(body.count) bytes") }
    return .topicDeleted(body.bigEndian(at: 0))
  }
}
