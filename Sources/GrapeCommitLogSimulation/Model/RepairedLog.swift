import GrapeCommitLog
import GrapeLog

/// Which segment file holds what, before anything is damaged.
struct LogContents {
  /// Those with groups in them, in order.
  private(set) var files: [String] = []
  /// Where the batch at an offset stands, of topics that exist.
  private(set) var batches: [TopicPartition: [Int64: String]] = [:]
  /// Where topics that exist were made or changed last.
  private(set) var topics: [String: String] = [:]
  /// Where a group's offset was committed last.
  private(set) var offsets: [String: [TopicPartition: String]] = [:]
  /// Of rewritten segments it cannot be told what was in them.
  private(set) var cleaned: Set<String> = []

  init(_ storage: SimulatedDirectory) throws(Simulation.Wrong) {
    do throws(LogError) {
      var scanner = CommitLogScanner(storage: storage)
      while let group = try scanner.next() {
        let file = String(group.file[group.file.lastIndex(of: "/")!...].dropFirst())
        if files.last != file { files.append(file) }
        for entry in group.entries { add(entry, file) }
      }
    } catch {
      throw Simulation.Wrong(message: "reading the log: \(error)")
    }
    for file in files where storage.disk.byte(at: 59, of: file) == 1 { cleaned.insert(file) }
  }

  private mutating func add(_ entry: CommitLogScanner.Entry, _ file: String) {
    switch entry {
    case .append(let partition, let batch, _): batches[partition, default: [:]][batch.baseOffset] = file
    case .offsetCommit(let group, let partition, _): offsets[group, default: [:]][partition] = file
    case .topicCreated(let topic), .topicAltered(let topic): topics[topic.name] = file
    case .topicDeleted(let name):
      batches = batches.filter { $0.key.topic != name }
      topics[name] = nil
      for group in offsets.keys { offsets[group] = offsets[group]!.filter { $0.key.topic != name } }
    case .groupDeleted(let group): offsets[group] = nil
    case .trimmed, .partitionState, .topicIDs, .unknown: break
    }
  }
}

/// What must be there once a damaged log was repaired.
struct RepairedLog {
  private let contents: LogContents
  private let damaged: Set<String>
  private let losses: [TopicPartition: [Range<Int64>]]

  /// - Parameter missing: files that are gone. Several of them in a row are one damaged segment to a repair.
  init(_ contents: LogContents, _ report: RepairReport, missing: Set<String>) {
    self.contents = contents
    damaged = missing.union(report.segments.map { String($0.file[$0.file.lastIndex(of: "/")!...].dropFirst()) })
    losses = Dictionary(grouping: report.losses, by: \.partition).mapValues { $0.map(\.offsets) }
  }

  /// The topic was made or changed in a damaged segment: it may have another name or an older form, or be another of that name.
  func isRemade(_ topic: String) -> Bool { contents.topics[topic].map(damaged.contains) ?? true }

  /// What is wrong with what a repaired log shows; nil if nothing is.
  func difference(_ state: ModelState, from found: FoundLog) -> String? {
    var partitions: [TopicPartition: FoundLog.Partition] = [:]
    var place = 0
    for topic in found.topics {
      for number in 0..<topic.configuration.partitions {
        partitions[TopicPartition(topic.name, number)] = found.partitions[place]
        place += 1
      }
    }
    for topic in state.topics where !isRemade(topic.name) {
      guard let there = found.topics.first(where: { $0.name == topic.name }) else { return "\(topic.name) is gone" }
      if there.configuration != topic.configuration {
        return "\(topic.name) has \(there.configuration), expected \(topic.configuration)"
      }
      for (number, partition) in topic.partitions.enumerated() {
        let name = TopicPartition(topic.name, Int32(number))
        if let wrong = difference(partition, from: partitions[name]!, name) { return "\(name): \(wrong)" }
        if let wrong = groups(state, found, name) { return "\(name): \(wrong)" }
      }
    }
    return nil
  }

  private func difference(
    _ partition: ModelState.Partition, from found: FoundLog.Partition, _ name: TopicPartition
  ) -> String? {
    if found.bounds.end != partition.bounds.end {
      return "ends at \(found.bounds.end), expected \(partition.bounds.end)"
    }
    // Who asked for records to be given up may have to ask again.
    if found.bounds.start > partition.bounds.start {
      return "starts at \(found.bounds.start), expected \(partition.bounds.start)"
    }
    let lost = losses[name] ?? []
    for place in found.batches.indices {
      let batch = found.batches[place]
      let number = partition.batchNumber(of: batch.baseOffset)
      if let wrong = partition.difference(from: found.batches[place...place], at: number) { return wrong }
      if lost.contains(where: { $0.contains(batch.baseOffset) || $0.contains(batch.lastOffset) }) {
        return "offset \(batch.baseOffset) is listed as lost, and is there"
      }
    }
    let there = Set(found.batches.map(\.baseOffset))
    for batch in partition.batches where !there.contains(batch.baseOffset) {
      guard let file = contents.batches[name]?[batch.baseOffset], damaged.contains(file) else {
        return "offset \(batch.baseOffset) is gone, whose segment was sound"
      }
      let isListed = lost.contains { $0.contains(batch.baseOffset) && $0.contains(batch.endOffset - 1) }
      if !isListed && !contents.cleaned.contains(file) {
        return "offset \(batch.baseOffset) is gone, which is not listed as lost"
      }
    }
    return nil
  }

  private func groups(_ state: ModelState, _ found: FoundLog, _ name: TopicPartition) -> String? {
    for (group, offsets) in state.groups {
      guard let expected = offsets[name], let file = contents.offsets[group]?[name], !damaged.contains(file) else {
        continue
      }
      if found.groups[group]?[name] != expected {
        return
          "\(group) stands at \(found.groups[group]?[name].map { "\($0.offset)" } ?? "nothing"), expected \(expected.offset)"
      }
    }
    return nil
  }
}
