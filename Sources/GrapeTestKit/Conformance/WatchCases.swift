import GrapeLog
import Synchronization

extension EventLogConformance {
  static let watchCases: [Case] = [
    Case("a watch on what is there already fires at once") { probe in
      try await probe.createTopic("a")
      try await probe.append(["0"], to: TopicPartition("a", 0))
      await probe.log.waitUntilAvailable(TopicPartition("a", 0), after: 0)
      await probe.log.waitUntilAvailable(TopicPartition("a", 0), after: -1)
    },
    Case("a watch fires once, after the append it waits for, when the record can be read") { probe in
      try await probe.createTopic("a", partitions: 2)
      let partition = TopicPartition("a", 1)
      let fired = Counter()
      // Waits for the second record, not the first, and not for those of another partition.
      _ = probe.log.whenAvailable(partition, after: 1) { fired.add() }
      try await probe.append(["0"], to: partition)
      try await probe.append(["x", "y", "z"], to: TopicPartition("a", 0))
      try expect(fired.value, equals: 0, "calls before the record")
      async let waited: Void = probe.log.waitUntilAvailable(partition, after: 1)
      try await probe.append(["1"], to: partition)
      await waited
      try expect(try await probe.log.bounds(of: partition).end, equals: 2, "end when the watch fired")
      try await probe.append(["2"], to: partition)
      try expect(fired.value, equals: 1, "calls")
    },
    Case("a watch fires when its topic is deleted, and for unknown topics at once") { probe in
      await probe.log.waitUntilAvailable(TopicPartition("none", 0), after: 0)
      try await probe.createTopic("a")
      await probe.log.waitUntilAvailable(TopicPartition("a", 9), after: 0)
      async let waited: Void = probe.log.waitUntilAvailable(TopicPartition("a", 0), after: 0)
      try await probe.log.deleteTopic("a")
      await waited
    },
    Case("a watch fires when the log closes") { probe in
      try await probe.createTopic("a")
      async let waited: Void = probe.log.waitUntilAvailable(TopicPartition("a", 0), after: 0)
      await probe.log.close()
      await waited
    },
    Case("a cancelled watch does not fire, and unknown tokens are ignored") { probe in
      try await probe.createTopic("a")
      let partition = TopicPartition("a", 0)
      let fired = Counter()
      let token = probe.log.whenAvailable(partition, after: 0) { fired.add() }
      probe.log.cancelWatch(token)
      probe.log.cancelWatch(token)
      probe.log.cancelWatch(WatchToken(id: .max))
      try await probe.append(["0"], to: partition)
      try expect(fired.value, equals: 0, "calls")
    },
    Case("a follower that reads and watches sees every record once, in order, while others append") { probe in
      try await probe.createTopic("a")
      let partition = TopicPartition("a", 0)
      async let followed = follow(probe, partition, until: 500)
      try await withThrowingTaskGroup(of: Void.self) { group in
        for _ in 0..<4 {
          group.addTask {
            for number in 0..<125 {
              try await probe.append(["\(number)"], to: partition, durability: number % 10 == 0 ? .disk : .memory)
            }
          }
        }
        try await group.waitForAll()
      }
      try expect(try await followed, equals: 500, "records followed")
    },
  ]

  private static func follow(_ probe: LogProbe, _ partition: TopicPartition, until count: Int64) async throws -> Int64 {
    var next: Int64 = 0
    while next < count {
      await probe.log.waitUntilAvailable(partition, after: next)
      let result = try await probe.log.read(partition, from: next, maxBytes: 1_000)
      try expect(!result.batches.isEmpty, "a watch fired, so there is something to read")
      for batch in result.batches {
        try expect(batch.baseOffset, equals: next, "next batch")
        next = batch.lastOffset + 1
      }
    }
    return next
  }
}

final class Counter: Sendable {
  private let count = Atomic(0)
  var value: Int { count.load(ordering: .acquiring) }
  func add() { count.add(1, ordering: .acquiringAndReleasing) }
}
