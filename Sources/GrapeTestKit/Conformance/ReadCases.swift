import GrapeLog
import GrapeWire

extension EventLogConformance {
  static let readCases: [Case] = [
    Case("reading from the middle of a batch gives what is there from that offset on") { probe in
      try await probe.createTopic("a")
      let partition = TopicPartition("a", 0)
      try await probe.append(["0", "1", "2", "3"], to: partition)
      try await probe.append(["4", "5"], to: partition)
      for (offset, base) in [(0, 0), (1, 0), (3, 0), (4, 4), (5, 4)] as [(Int64, Int64)] {
        let result = try await probe.log.read(partition, from: offset, maxBytes: 1)
        // The batch whole as it was appended; or one that begins there.
        let start = probe.has(.regroupsBatches) ? offset : base
        try expect(result.batches.map(\.baseOffset), equals: [start], "batches from offset \(offset)")
        try expect(result.bounds, equals: PartitionBounds(start: 0, end: 6), "bounds")
      }
      try expect(try await probe.records(of: partition, from: 2), equals: ["2", "3", "4", "5"], "from offset 2")
    },
    Case("a read returns as many batches as fit, and at least one") { probe in
      try await probe.createTopic("a")
      let partition = TopicPartition("a", 0)
      for number in 0..<10 { try await probe.append(["value-\(number)"], to: partition) }
      let size = try await probe.log.read(partition, from: 0, maxBytes: 1).batches[0].bytes.count
      for (maxBytes, count) in [(0, 1), (size - 1, 1), (size, 1), (2 * size - 1, 1), (2 * size, 2), (5 * size, 5)] {
        let result = try await probe.log.read(partition, from: 3, maxBytes: maxBytes)
        let bytes = result.batches.reduce(0) { $0 + $1.bytes.count }
        let records = try result.batches.reduce(0) { $0 + (try SampleBatch.records(in: $1).count) }
        if probe.has(.regroupsBatches) {
          // Together they take less space, so that there may be more of them.
          try expect(records >= count, "\(records) records in \(maxBytes) bytes, at least \(count) fit")
        } else {
          try expect(result.batches.count, equals: count, "batches of \(size) bytes in \(maxBytes)")
        }
        try expect(bytes <= maxBytes || records == 1, "\(bytes) bytes where \(maxBytes) were asked for")
        try expect(result.batches[0].baseOffset, equals: 3, "first batch")
      }
      let all = try await probe.log.read(partition, from: 0, maxBytes: 1 << 20).batches
      try expect(
        try all.flatMap { try SampleBatch.records(in: $0).map(\.value) }, equals: (0..<10).map { "value-\($0)" }, "all")
    },
    Case("reading at the end gives nothing, outside the bounds an error") { probe in
      try await probe.createTopic("a")
      let partition = TopicPartition("a", 0)
      try expect(try await probe.log.read(partition, from: 0, maxBytes: 1).batches.isEmpty, "an empty partition")
      try await probe.append(["0", "1"], to: partition)
      let result = try await probe.log.read(partition, from: 2, maxBytes: 100)
      try expect(result.batches.isEmpty, "at the end")
      try expect(result.bounds, equals: PartitionBounds(start: 0, end: 2), "bounds")
      for offset: Int64 in [-1, 3, .max, .min] {
        try await expect(.offsetOutOfRange, "offset \(offset)") {
          _ = try await probe.log.read(partition, from: offset, maxBytes: 100)
        }
      }
    },
    Case("batches come out as they went in, but for the base offset") { probe in
      try await probe.createTopic("a")
      let partition = TopicPartition("a", 0)
      try await probe.append(["first"], to: partition)
      let append = SampleBatch.append(["x", "", "zzz"], to: partition, timestamp: -5)
      try await probe.log.commit(Transaction(appends: [append]))
      let batch = try await probe.log.read(partition, from: 1, maxBytes: append.batch.count + 100).batches[0]
      try expect(batch.baseOffset, equals: 1, "base offset")
      try expect(batch.lastOffset, equals: 3, "last offset")
      try expect(batch.maxTimestamp, equals: -5, "maximum timestamp")
      try expect(batch.bytes.array[..<8].elementsEqual([0, 0, 0, 0, 0, 0, 0, 1]), "base offset in the bytes")
      if probe.has(.regroupsBatches) {
        let records = try SampleBatch.records(in: batch)
        try expect(records.map(\.offset), equals: [1, 2, 3], "offsets")
        try expect(records.map(\.value), equals: ["x", "", "zzz"], "values")
      } else {
        try expect(Array(batch.bytes.array[8...]), equals: Array(append.batch.array[8...]), "the other bytes")
      }
      try expect(append.batch.array[..<8].allSatisfy { $0 == 0 }, "the bytes handed over are untouched")
    },
    Case("a time is found as the first batch with a timestamp at or after it") { probe in
      try await probe.createTopic("a")
      let partition = TopicPartition("a", 0)
      try expect(try await probe.log.offset(of: partition, at: 0), equals: 0, "in an empty partition")
      // Not in order: a late event must not hide those behind it.
      for timestamp: Int64 in [100, 200, 150, 300, 50, .max, 400] {
        try await probe.append(["a", "b"], to: partition, timestamp: timestamp)
      }
      for (timestamp, offset) in [
        (.min, 0), (0, 0), (100, 0), (101, 2), (200, 2), (201, 6), (300, 6), (301, 10), (.max, 10),
      ] as [(Int64, Int64)] {
        try expect(try await probe.log.offset(of: partition, at: timestamp), equals: offset, "at \(timestamp)")
      }
      try await probe.createTopic("b")
      try await probe.append(["a", "b"], to: TopicPartition("b", 0), timestamp: 100)
      try expect(try await probe.log.offset(of: TopicPartition("b", 0), at: 101), equals: 2, "later than all")
    },
    Case("many small and some large batches read back whole from any offset") { probe in
      try await probe.createTopic("a")
      let partition = TopicPartition("a", 0)
      var expected: [String] = []
      for number in 0..<400 {
        let large = number % 40 == 39
        let values = (0..<1 + number % 4).map { "\(number).\($0)" + String(repeating: "x", count: large ? 90_000 : 10) }
        probe.log.commit(
          Transaction(durability: .os, appends: [SampleBatch.append(values, to: partition)])
        ) { _ in }
        expected += values
      }
      try await probe.log.commit(Transaction())
      for (offset, maxBytes) in [(0, 1 << 20), (0, 300), (1, 100_000), (777, 1 << 20), (999, 1)] {
        let records = try await probe.records(of: partition, from: Int64(offset), maxBytes: maxBytes)
        try expect(records == Array(expected[offset...]), "records from \(offset) in pieces of \(maxBytes)")
      }
    },
  ]
}
