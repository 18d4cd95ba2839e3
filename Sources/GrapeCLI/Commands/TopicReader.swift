import CGrapeLinux
import Grape
import GrapeCore
import GrapeWire

/// Reads the partitions of a topic side by side.
struct TopicReader {
  private struct Partition {
    var number: Int32
    var start: Int64
    /// As it was when the reader was made.
    var end: Int64
    /// Next offset to fetch.
    var next: Int64
    /// Fetched and not handed out, last first.
    var records: [TopicRecord] = []
  }

  private let node: NodeConnection
  private let topic: String
  private var partitions: [Partition]

  /// - Parameter only: one partition; nil: all.
  init(_ node: NodeConnection, topic: String, only: Int32? = nil) throws {
    self.node = node
    self.topic = topic
    let topics = try node.ask("log.topics")["topics"]?.array ?? []
    guard let found = topics.first(where: { $0["name"]?.string == topic }) else {
      throw StatusError(.notFound, "there is no topic \(topic); `grape log topics` lists them")
    }
    partitions = (found["partitions"]?.array ?? []).compactMap { partition in
      guard let number = partition["partition"]?.int, let start = partition["start"]?.int,
        let end = partition["end"]?.int
      else { return nil }
      return Partition(number: Int32(truncatingIfNeeded: number), start: start, end: end, next: start)
    }
    if let only {
      guard partitions.contains(where: { $0.number == only }) else {
        throw StatusError(.notFound, "\(topic) has partitions 0 to \(partitions.count - 1), not \(only)")
      }
      partitions.removeAll { $0.number != only }
    }
  }

  /// Sets where to begin. Offsets outside a partition mean its nearest end.
  mutating func seek(to position: ReadPosition) throws {
    switch position {
    case .beginning: break
    case .end:
      for index in partitions.indices { partitions[index].next = partitions[index].end }
    case .offset(let offset):
      for index in partitions.indices {
        partitions[index].next = min(max(offset, partitions[index].start), partitions[index].end)
      }
    case .time(let time): try seek(toTime: time)
    case .ago(let ago): try seek(toTime: grape_realtime_ms() - Int64(ago.components.seconds * 1000))
    }
  }

  private mutating func seek(toTime time: Int64) throws {
    let answer = try node.ask("log.offsets", [("topic", .string(topic)), ("timeMs", JSONValue(time))])
    for found in answer["partitions"]?.array ?? [] {
      guard let index = partitions.firstIndex(where: { Int64($0.number) == found["partition"]?.int }) else { continue }
      partitions[index].next = found["offset"]?.int ?? partitions[index].end
    }
    earliest = time
  }

  /// Records before it are not handed out: batches are found by time, not records.
  private var earliest: Int64?

  /// Hands out what was there when the reader was made, in order of time. Ends early, and returns false, if `take` does.
  mutating func backlog(_ take: (TopicRecord) throws -> Bool) throws -> Bool {
    while true {
      for index in partitions.indices {
        while partitions[index].records.isEmpty, partitions[index].next < partitions[index].end {
          let result = try node.fetch(topic: topic, partition: partitions[index].number, offset: partitions[index].next)
          try receive(result, at: index)
        }
      }
      let ready = partitions.indices.filter { !partitions[$0].records.isEmpty }
      guard
        let first = ready.min(by: { left, right in
          partitions[left].records[partitions[left].records.count - 1].time
            < partitions[right].records[partitions[right].records.count - 1].time
        })
      else { return true }
      if try !take(partitions[first].records.removeLast()) { return false }
    }
  }

  private mutating func receive(_ result: FetchResult, at index: Int) throws {
    let partition = partitions[index]
    var records: [TopicRecord] = []
    for batch in result.batches {
      records += try TopicRecord.read(batch, topic: topic, partition: partition.number, from: partition.next)
    }
    if let earliest { records.removeAll { $0.time < earliest } }
    partitions[index].records = records.reversed()
    // Nothing may come where something was expected: the records have been dropped meanwhile.
    partitions[index].next = max(result.nextOffset, result.batches.isEmpty ? partition.end : partition.next)
  }

  /// Hands out what comes from now on, as it comes, until `take` returns false. One request waits at the node per partition.
  mutating func follow(_ take: ([TopicRecord]) throws -> Bool) throws {
    var requests: [UInt64: Int] = [:]
    func ask(_ index: Int) throws {
      let id = node.nextID()
      requests[id] = index
      try node.send(
        ClientFrame.fetch(
          topic: topic, partition: partitions[index].number, offset: partitions[index].next, maxBytes: 1 << 20,
          waitMilliseconds: 30_000, id: id), until: .now + .seconds(30))
    }
    for index in partitions.indices { try ask(index) }
    while true {
      let frame = try node.receive(until: .now + .seconds(60))
      guard let index = requests.removeValue(forKey: frame.id) else { continue }
      if let failure = frame.failure { throw failure }
      let result = try frame.fetchResult()
      if !result.batches.isEmpty {
        try receive(result, at: index)
        let records = Array(partitions[index].records.reversed())
        partitions[index].records = []
        if try !take(records) { return }
      }
      partitions[index].next = max(partitions[index].next, result.nextOffset)
      try ask(index)
    }
  }
}
