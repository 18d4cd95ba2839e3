import GrapeLog

/// What was written, what retention and compaction may have taken of it, and what they must have left.
///
/// What may go is decided at the moments when the log may look, by the state that readers see then, and stays decided: whoever
/// turns back an offset or changes a topic's configuration may find that records have gone before. A state that never came
/// to be, because a loss of power took it back, is none that the log may rely on.
struct CleaningHistory {
  struct Record {
    var key: String?
    var value: String?
    /// Greatest of its batch.
    var timestamp: Int64
    /// When it was handed over.
    var written: Int64
    /// Bytes of all batches up to and with its own.
    var bytes: Int
    /// Retention may give it up.
    var mayBeTrimmed = false
    /// Compaction may leave it out.
    var mayBeCompacted = false
  }

  struct Partition {
    var records: [Record] = []
    var bytes = 0
    /// Records before this offset were given up because somebody asked for it.
    var trimmed: Int64 = 0

    var end: Int64 { Int64(records.count) }
    /// Records before this one may all be given up by retention.
    fileprivate var settled = 0
  }

  struct Topic {
    /// Tells a topic from one of the same name that was deleted.
    var incarnation: Int
    var configuration: TopicConfiguration
    var partitions: [Partition]
  }

  private(set) var topics: [String: Topic] = [:]
  /// Next offset that each group has to consume.
  private(set) var groups: [String: [TopicPartition: Int64]] = [:]

  /// All partitions, in order.
  var partitions: [TopicPartition] {
    topics.keys.sorted().flatMap { name in
      topics[name]!.partitions.indices.map { TopicPartition(name, Int32($0)) }
    }
  }

  func partition(_ partition: TopicPartition) -> Partition {
    topics[partition.topic]!.partitions[Int(partition.partition)]
  }

  // MARK: Operations

  mutating func create(_ name: String, _ configuration: TopicConfiguration, incarnation: Int) {
    topics[name] = Topic(
      incarnation: incarnation, configuration: configuration,
      partitions: [Partition](repeating: Partition(), count: Int(configuration.partitions)))
  }

  mutating func alter(_ name: String, _ configuration: TopicConfiguration) {
    topics[name]!.configuration = configuration
  }

  mutating func delete(_ name: String) {
    topics[name] = nil
    for group in groups.keys {
      groups[group] = groups[group]!.filter { $0.key.topic != name }
      if groups[group]!.isEmpty { groups[group] = nil }
    }
  }

  mutating func append(
    _ pairs: [(key: String?, value: String?)], to partition: TopicPartition, timestamp: Int64, now: Int64, bytes: Int
  ) {
    let number = Int(partition.partition)
    topics[partition.topic]!.partitions[number].bytes += bytes
    let sum = topics[partition.topic]!.partitions[number].bytes
    for (key, value) in pairs {
      topics[partition.topic]!.partitions[number].records.append(
        Record(key: key, value: value, timestamp: timestamp, written: now, bytes: sum))
    }
  }

  mutating func trim(_ partition: TopicPartition, before offset: Int64) {
    let number = Int(partition.partition)
    let before = topics[partition.topic]!.partitions[number].trimmed
    topics[partition.topic]!.partitions[number].trimmed = max(before, offset)
  }

  mutating func claim(_ partition: TopicPartition, _ offset: Int64, for group: String) {
    groups[group, default: [:]][partition] = offset
  }

  mutating func deleteGroup(_ group: String) { groups[group] = nil }

  // MARK: What may go

  /// First offset that some group has still to consume; the greatest number if there is none.
  func claim(_ partition: TopicPartition) -> Int64 { groups.values.reduce(.max) { min($0, $1[partition] ?? .max) } }

  /// The log may look now: what may go by the state as it is may be gone from now on.
  mutating func release(now: Int64, tombstoneMilliseconds: Int64) {
    for name in topics.keys {
      let configuration = topics[name]!.configuration
      for number in topics[name]!.partitions.indices {
        let claimed = configuration.dropsUnconsumed ? .max : claim(TopicPartition(name, Int32(number)))
        if configuration.cleanup == .compact {
          topics[name]!.partitions[number].compact(before: claimed, tombstonesBefore: now - tombstoneMilliseconds)
        }
        topics[name]!.partitions[number].retain(before: claimed, configuration, now)
      }
    }
  }

  /// What may be gone by an earlier state may be gone by this one, which follows it.
  mutating func inherit(from earlier: CleaningHistory) {
    for (name, topic) in earlier.topics where topics[name]?.incarnation == topic.incarnation {
      for (number, partition) in topic.partitions.enumerated() {
        topics[name]!.partitions[number].inherit(from: partition)
      }
    }
  }
}

extension CleaningHistory.Partition {
  fileprivate mutating func compact(before claimed: Int64, tombstonesBefore: Int64) {
    var last: [String: Int] = [:]
    for (offset, record) in records.enumerated() { if let key = record.key { last[key] = offset } }
    for (offset, record) in records.enumerated() where !record.mayBeCompacted && Int64(offset) < claimed {
      guard let key = record.key else { continue }
      // The last record of all stays whatever it is.
      let isForgotten = record.value == nil && record.written < tombstonesBefore && offset + 1 < records.count
      if last[key]! > offset || isForgotten { records[offset].mayBeCompacted = true }
    }
  }

  fileprivate mutating func retain(before claimed: Int64, _ limits: TopicConfiguration, _ now: Int64) {
    if limits.retentionMilliseconds == nil && limits.retentionBytes == nil { return }
    while settled < records.count, records[settled].mayBeTrimmed { settled += 1 }
    var offset = settled
    while offset < records.count, Int64(offset) < claimed {
      let record = records[offset]
      let isOld = limits.retentionMilliseconds.map { record.timestamp < now - $0 } ?? false
      let isTooMuch = limits.retentionBytes.map { Int64(bytes - record.bytes) > $0 } ?? false
      if isOld || isTooMuch { records[offset].mayBeTrimmed = true }
      offset += 1
    }
  }

  fileprivate mutating func inherit(from earlier: Self) {
    for (offset, record) in earlier.records.enumerated() {
      if record.mayBeTrimmed && !records[offset].mayBeTrimmed { records[offset].mayBeTrimmed = true }
      if record.mayBeCompacted && !records[offset].mayBeCompacted { records[offset].mayBeCompacted = true }
    }
  }

  /// What is wrong with what a log shows of the partition; nil if nothing is.
  func difference(from found: FoundCleaned.Partition) -> String? {
    if found.end != end { return "it ends at \(found.end), expected \(end)" }
    if found.start < trimmed { return "it starts at \(found.start), although \(trimmed) had been asked for" }
    if found.start > end { return "it starts at \(found.start), behind its end \(end)" }
    for (offset, record) in records.enumerated() {
      guard let there = found.records[Int64(offset)] else {
        if let wrong = wrong(Int64(offset), record, found.start) { return wrong }
        continue
      }
      if there.key != record.key || there.value != record.value { return "offset \(offset) is not what was written" }
    }
    if let alien = found.records.keys.first(where: { $0 >= end || $0 < 0 }) {
      return "offset \(alien) was never written"
    }
    return resurrected(found)
  }

  /// Why a record must not be gone; nil if it may.
  private func wrong(_ offset: Int64, _ record: CleaningHistory.Record, _ start: Int64) -> String? {
    if offset < start {
      if offset < trimmed || record.mayBeTrimmed || record.mayBeCompacted { return nil }
      return
        "offset \(offset) was given up, with \(bytes - record.bytes) bytes behind it and time \(record.timestamp), up to "
        + "\(start), which is neither old nor too much, or still to be consumed"
    }
    if offset + 1 == end { return "offset \(offset) is gone, the last of all" }
    if !record.mayBeCompacted {
      return
        "offset \(offset) of \(record.key ?? "no key") is gone, which nothing supersedes, or which is still to be consumed"
    }
    return nil
  }

  /// The last value of each key must be there, and a key whose tombstone is gone has no older value either.
  private func resurrected(_ found: FoundCleaned.Partition) -> String? {
    var last: [String: Int64] = [:]
    for (offset, record) in records.enumerated() { if let key = record.key { last[key] = Int64(offset) } }
    for (key, offset) in last where offset >= found.start && found.records[offset] == nil {
      if records[Int(offset)].value != nil { return "offset \(offset) is gone, the last of \(key)" }
      for older in found.records where older.value.key == key && older.key < offset {
        return "offset \(older.key) of \(key) is there, its tombstone \(offset) is gone"
      }
    }
    return nil
  }
}

/// Everything that a log with retention and compaction shows.
struct FoundCleaned {
  struct Partition {
    var start: Int64
    var end: Int64
    var records: [Int64: (key: String?, value: String?)]
  }

  var topics: [String: TopicConfiguration]
  var partitions: [TopicPartition: Partition]
  var groups: [String: [TopicPartition: Int64]]
}

extension CleaningHistory {
  /// What is wrong with what a log shows; nil if nothing is.
  func difference(from found: FoundCleaned) -> String? {
    let expected = topics.mapValues(\.configuration)
    if found.topics != expected { return "topics \(Self.sorted(found.topics)), expected \(Self.sorted(expected))" }
    for place in partitions where found.partitions[place]!.end != partition(place).end {
      return "\(place) ends at \(found.partitions[place]!.end), expected \(partition(place).end)"
    }
    if found.groups != groups { return "groups' offsets \(found.groups), expected \(groups)" }
    for place in partitions {
      if let wrong = partition(place).difference(from: found.partitions[place]!) { return "\(place): \(wrong)" }
    }
    return nil
  }

  private static func sorted(_ topics: [String: TopicConfiguration]) -> String {
    topics.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }.joined(separator: "; ")
  }
}
