import GrapeLog
import GrapeWire
import Synchronization

extension EventLogConformance {
  static let commitCases: [Case] = [
    Case("offsets are assigned from 0 on without gaps, per partition") { probe in
      try await probe.createTopic("a", partitions: 2)
      try expect(try await probe.append(["1", "2", "3"], to: TopicPartition("a", 0)), equals: 0, "first batch")
      try expect(try await probe.append(["4"], to: TopicPartition("a", 0)), equals: 3, "second batch")
      try expect(try await probe.append(["5"], to: TopicPartition("a", 1)), equals: 0, "other partition")
      try expect(try await probe.records(of: TopicPartition("a", 0)), equals: ["1", "2", "3", "4"], "partition 0")
      try expect(try await probe.records(of: TopicPartition("a", 1)), equals: ["5"], "partition 1")
    },
    Case("a transaction's batches get their base offsets in its order, and keep it within a partition") { probe in
      try await probe.createTopic("a", partitions: 2)
      let first = TopicPartition("a", 0)
      let second = TopicPartition("a", 1)
      let receipt = try await probe.log.commit(
        Transaction(appends: [
          SampleBatch.append(["1", "2"], to: first), SampleBatch.append(["x"], to: second),
          SampleBatch.append(["3"], to: first), SampleBatch.append(["y", "z"], to: second),
        ]))
      try expect(receipt.baseOffsets, equals: [0, 0, 2, 1], "base offsets")
      try expect(try await probe.records(of: first), equals: ["1", "2", "3"], "partition 0")
      try expect(try await probe.records(of: second), equals: ["x", "y", "z"], "partition 1")
    },
    Case("a transaction with anything wrong in it changes nothing at all") { probe in
      try await probe.createTopic("a")
      let good = TopicPartition("a", 0)
      try await probe.append(["before"], to: good)
      let offset = Transaction.OffsetCommit(group: "g", partition: good, committed: CommittedOffset(offset: 1))
      try await expect(.noSuchTopic, "one of two topics missing") {
        try await probe.log.commit(
          Transaction(
            appends: [SampleBatch.append(["x"], to: good), SampleBatch.append(["y"], to: TopicPartition("b", 0))],
            offsets: [offset]))
      }
      try await expect(.noSuchPartition, "partition of an offset missing") {
        try await probe.log.commit(
          Transaction(
            appends: [SampleBatch.append(["x"], to: good)],
            offsets: [
              offset, .init(group: "g", partition: TopicPartition("a", 7), committed: CommittedOffset(offset: 1)),
            ]))
      }
      try expect(try await probe.records(of: good), equals: ["before"], "records")
      try expect(try await probe.log.committedOffsets(group: "g"), equals: [:], "offsets")
      try expect(try await probe.append(["after"], to: good), equals: 1, "next offset")
    },
    Case("bytes that are no record batch, or another than announced, are refused") { probe in
      try await probe.createTopic("a")
      let good = SampleBatch.append(["1", "2"], to: TopicPartition("a", 0))
      var bad: [Transaction.Append] = []
      for change in 0..<5 {
        var append = good
        switch change {
        case 0: append.batch = ByteSlice([])
        case 1: append.batch = good.batch[0..<good.batch.count - 1]
        case 2: append.recordCount = 3
        case 3: append.maxTimestamp += 1
        default: append.batch = ByteSlice([UInt8](repeating: 0, count: good.batch.count))
        }
        bad.append(append)
      }
      for append in bad {
        try await expect(.invalidArgument, "a bad batch") {
          try await probe.log.commit(Transaction(appends: [append]))
        }
      }
      try expect(try await probe.log.bounds(of: TopicPartition("a", 0)).end, equals: 0, "end")
    },
    Case("an empty transaction succeeds") { probe in
      for durability in Durability.allCases {
        let receipt = try await probe.log.commit(Transaction(durability: durability))
        try expect(receipt.baseOffsets, equals: [], "base offsets")
      }
    },
    Case("a receipt states at least the durability asked for, and the record is visible by then") { probe in
      try await probe.createTopic("a")
      let partition = TopicPartition("a", 0)
      for (place, durability) in Durability.allCases.enumerated() {
        let receipt = try await probe.log.commit(
          Transaction(durability: durability, appends: [SampleBatch.append(["\(durability)"], to: partition)]))
        try expect(receipt.durability >= durability, "\(receipt.durability) for \(durability)")
        try expect(try await probe.log.bounds(of: partition).end, equals: Int64(place + 1), "end")
      }
      try expect(try await probe.records(of: partition), equals: ["memory", "os", "disk"], "records")
    },
    Case("transactions of one thread are applied in its order, whatever durability each asks for") { probe in
      try await probe.createTopic("a")
      let partition = TopicPartition("a", 0)
      let answered = Answers()
      for number in 0..<300 {
        probe.log.commit(
          Transaction(
            durability: Durability.allCases[number % 3], appends: [SampleBatch.append(["\(number)"], to: partition)])
        ) { answered.add($0, to: number) }
      }
      try await probe.append(["last"], to: partition)
      let offsets = try answered.offsets()
      try expect(offsets.count, equals: 300, "answers by the time a later commit is answered")
      for number in 0..<300 { try expect(offsets[number], equals: Int64(number), "offset of \(number)") }
      try expect(
        try await probe.records(of: partition), equals: (0..<300).map(String.init) + ["last"], "records")
    },
    Case("concurrent committers each keep their order, and nothing is lost or doubled") { probe in
      try await probe.createTopic("a", partitions: 3)
      let each = 100
      try await withThrowingTaskGroup(of: Void.self) { group in
        for committer in 0..<8 {
          group.addTask {
            for number in 0..<each {
              try await probe.append(
                ["\(committer):\(number)"], to: TopicPartition("a", Int32(committer % 3)),
                durability: Durability.allCases[(committer + number) % 3])
            }
          }
        }
        try await group.waitForAll()
      }
      var next = [Int](repeating: 0, count: 8)
      for partition: Int32 in 0..<3 {
        for record in try await probe.records(of: TopicPartition("a", partition)) {
          let parts = record.split(separator: ":").compactMap { Int($0) }
          try expect(parts[1], equals: next[parts[0]], "next record of committer \(parts[0])")
          next[parts[0]] += 1
        }
      }
      try expect(next, equals: [Int](repeating: each, count: 8), "records per committer")
    },
    Case("readers see a transaction whole or not at all") { probe in
      try await probe.createTopic("a", partitions: 2)
      let first = TopicPartition("a", 0)
      let second = TopicPartition("a", 1)
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask {
          for number in 0..<200 {
            // In each partition more than one record, so that there are parts of it there too.
            let values = ["\(number) a", "\(number) b"]
            try await probe.log.commit(
              Transaction(
                durability: .os,
                appends: [SampleBatch.append(values, to: first), SampleBatch.append(values, to: second)]))
          }
        }
        group.addTask {
          var one = Follower(partition: first)
          var other = Follower(partition: second)
          while one.count < 400 {
            await probe.log.waitUntilAvailable(first, after: one.next)
            try await one.readAll(probe)
            try expect(one.count % 2, equals: 0, "records of half a transaction")
            // Read second, the second partition can only be further.
            try await other.readAll(probe)
            try expect(other.count % 2, equals: 0, "records of half a transaction")
            if !probe.has(.showsPartitionsApart) {
              try expect(other.count >= one.count, "the halves of a transaction: \(one.count) and \(other.count)")
            }
          }
        }
        try await group.waitForAll()
      }
      // The receipts said that all is visible.
      try expect(try await probe.records(of: second).count, equals: 400, "records of the second partition")
    },
    Case("when nothing is under way, partitions are settled") { probe in
      try await probe.createTopic("a", partitions: 2)
      let partitions = [TopicPartition("a", 0), TopicPartition("a", 1)]
      try await probe.log.settled(partitions)
      try await probe.log.commit(Transaction(appends: partitions.map { SampleBatch.append(["x"], to: $0) }))
      try await probe.log.settled(partitions)
      try await probe.log.settled([])
      for partition in partitions { try expect(try await probe.records(of: partition), equals: ["x"], "records") }
    },
  ]
}

/// Counts a partition's records as they come.
private struct Follower {
  let partition: TopicPartition
  var next: Int64 = 0
  var count = 0

  /// Counts up to where the partition ended when it was last read.
  mutating func readAll(_ probe: LogProbe) async throws {
    while true {
      let result = try await probe.log.read(partition, from: next, maxBytes: 10_000)
      for batch in result.batches { count += try SampleBatch.records(in: batch).filter { $0.offset >= next }.count }
      next = result.nextOffset
      if result.batches.isEmpty { return }
    }
  }
}

/// Answers to commits by number.
final class Answers: Sendable {
  private let results = Mutex<[Int: Result<CommitReceipt, LogError>]>([:])

  func add(_ result: Result<CommitReceipt, LogError>, to number: Int) {
    results.withLock { results in
      precondition(results[number] == nil, "a commit was answered twice")
      results[number] = result
    }
  }

  /// First base offset per number; the first error otherwise.
  func offsets() throws(LogError) -> [Int: Int64] {
    var offsets: [Int: Int64] = [:]
    for (number, result) in results.withLock({ $0 }) { offsets[number] = try result.get().baseOffsets[0] }
    return offsets
  }
}
