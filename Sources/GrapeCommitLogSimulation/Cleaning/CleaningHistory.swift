import GrapeLog

/// What was written, and what of it may be gone.
struct CleaningHistory {
  struct Record {
    var key: String?
    var value: String?
    var timestamp: Int64
    /// Bytes of all batches up to and with its own.
    var bytes: Int
  }

  struct Partition {
    var configuration: TopicConfiguration
    var records: [Record] = []
    var bytes = 0

    /// What is wrong with what a log shows; nil if nothing is. Records may be gone that retention or compaction may remove, no
    /// others.
    func difference(
      start: Int64, _ found: [Int64: (key: String?, value: String?)], claim: Int64?, now: Int64
    ) -> String? {
      let claimed = configuration.dropsUnconsumed ? .max : claim ?? .max
      if start > claimed {
        return "records from \(claimed) on were given up, up to \(start), that are still to be consumed"
      }
      if let wrong = differenceBefore(start, now) { return wrong }
      var last: [String: Int] = [:]
      for (offset, record) in records.enumerated() { if let key = record.key { last[key] = offset } }
      for (offset, record) in records.enumerated() where Int64(offset) >= start {
        if let there = found[Int64(offset)] {
          if there.key != record.key || there.value != record.value {
            return "offset \(offset) is not what was written"
          }
          continue
        }
        guard configuration.cleanup == .compact, let key = record.key else { return "offset \(offset) is gone" }
        if Int64(offset) >= claimed { return "offset \(offset) is gone, which is still to be consumed" }
        if last[key] == offset && record.value != nil { return "offset \(offset) is gone, the last of its key" }
      }
      for offset in found.keys where offset >= Int64(records.count) { return "offset \(offset) was never written" }
      return resurrected(start, found, last)
    }

    /// A key whose tombstone is gone has no older value either.
    private func resurrected(
      _ start: Int64, _ found: [Int64: (key: String?, value: String?)], _ last: [String: Int]
    ) -> String? {
      guard configuration.cleanup == .compact else { return nil }
      for (key, offset) in last where records[offset].value == nil && found[Int64(offset)] == nil {
        for older in found where older.value.key == key && older.key < offset {
          return "offset \(older.key) of \(key) is there, its tombstone \(offset) is gone"
        }
      }
      return nil
    }

    private func differenceBefore(_ start: Int64, _ now: Int64) -> String? {
      if start == 0 { return nil }
      let dropped = records[Int(start) - 1]
      let tooOld = configuration.retentionMilliseconds.map { dropped.timestamp < now - $0 } ?? false
      let tooMuch = configuration.retentionBytes.map { Int64(bytes - dropped.bytes) >= $0 - 2_000 } ?? false
      return tooOld || tooMuch ? nil : "records before \(start) were given up, which are neither old nor too many"
    }
  }

  var partitions: [TopicPartition: Partition] = [:]
  /// Next offset that the one consumer group has to consume.
  var claims: [TopicPartition: Int64] = [:]

  mutating func create(_ name: String, _ configuration: TopicConfiguration) {
    for number in 0..<configuration.partitions {
      partitions[TopicPartition(name, number)] = Partition(configuration: configuration)
    }
  }

  mutating func append(
    _ pairs: [(key: String?, value: String?)], to partition: TopicPartition, at timestamp: Int64, bytes: Int
  ) {
    partitions[partition]!.bytes += bytes
    for (key, value) in pairs {
      partitions[partition]!.records.append(
        Record(key: key, value: value, timestamp: timestamp, bytes: partitions[partition]!.bytes))
    }
  }
}
