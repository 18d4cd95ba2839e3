internal import GrapeWire

extension TopicConfiguration {
  /// Checks a topic's name and configuration. Errors: `invalidArgument`, saying what would be right.
  public func check(name: String) throws(LogError) {
    let allowed = name.utf8.allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
        true
      default: false
      }
    }
    guard (1...249).contains(name.utf8.count), allowed else {
      throw LogError(.invalidArgument, "topic name \"\(name)\": must be 1 to 249 letters, digits, '.', '_' or '-'")
    }
    guard (1...10_000).contains(partitions) else {
      throw LogError(.invalidArgument, "topic \(name): \(partitions) partitions; must be 1 to 10,000")
    }
    if let retentionMilliseconds, retentionMilliseconds < 0 {
      throw LogError(.invalidArgument, "topic \(name): retention of \(retentionMilliseconds) ms; must not be negative")
    }
    if let retentionBytes, retentionBytes < 0 {
      throw LogError(.invalidArgument, "topic \(name): retention of \(retentionBytes) bytes; must not be negative")
    }
  }
}

extension TopicConfiguration {
  /// Checks that a topic may be changed to `other`. Errors: `invalidArgument`.
  public func checkChange(to other: TopicConfiguration, of name: String) throws(LogError) {
    guard other.partitions == partitions else {
      throw LogError(
        .invalidArgument,
        "topic \(name) has \(partitions) partitions, which cannot be changed to \(other.partitions): the order of keys would be lost"
      )
    }
  }
}

extension PartitionBounds {
  /// Checks that records before `offset` may be given up. Errors: `invalidArgument`, `offsetOutOfRange`.
  public func checkTrim(to offset: Int64, of partition: TopicPartition) throws(LogError) {
    guard offset >= 0 else { throw LogError(.invalidArgument, "\(partition): offset \(offset) is negative") }
    guard offset <= end else {
      throw LogError(.offsetOutOfRange, "offset \(offset) of \(partition): the log has \(start) to \(end)")
    }
  }
}

extension Transaction {
  /// Checks what can be checked without the log's state, looking at batch headers only (record contents were
  /// validated where they entered). Errors: `invalidArgument`, saying what and where. O(appends + offsets).
  public func check() throws(LogError) {
    for append in appends { try append.check() }
    for commit in offsets {
      guard (1...249).contains(commit.group.utf8.count) else {
        throw LogError(.invalidArgument, "group name \"\(commit.group)\": must be 1 to 249 bytes")
      }
      guard commit.committed.offset >= 0 else {
        throw LogError(
          .invalidArgument,
          "group \(commit.group) in \(commit.partition): offset \(commit.committed.offset) is negative")
      }
      guard commit.committed.metadata.count <= 4_096 else {
        throw LogError(
          .invalidArgument,
          "group \(commit.group) in \(commit.partition): metadata of \(commit.committed.metadata.count) bytes; at most 4,096"
        )
      }
    }
  }
}

extension Transaction.Append {
  /// Checks that the batch's header is one the log can store, and agrees with the fields beside it.
  public func check() throws(LogError) {
    let header: RecordBatchHeader
    do {
      header = try RecordBatchHeader(batch.unsafeBytes)
    } catch {
      throw LogError(.invalidArgument, "\(partition): not a record batch: \(error.message)")
    }
    guard header.size == batch.count else {
      throw LogError(
        .invalidArgument,
        "\(partition): the record batch says it has \(header.size) bytes, but \(batch.count) were given")
    }
    guard header.recordCount >= 1, header.lastOffsetDelta == header.recordCount - 1, header.recordCount == recordCount
    else {
      throw LogError(
        .invalidArgument,
        "\(partition): record batch with \(header.recordCount) records and last offset delta \(header.lastOffsetDelta), "
          + "announced with \(recordCount); at least one, all three in agreement")
    }
    guard header.maxTimestamp == maxTimestamp else {
      throw LogError(
        .invalidArgument,
        "\(partition): record batch with maximum timestamp \(header.maxTimestamp), announced with \(maxTimestamp)")
    }
  }
}
