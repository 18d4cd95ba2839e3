import GrapeCommitLog
import GrapeLog
import GrapeTestKit
import GrapeWire

extension CleaningSimulation {
  /// Compares everything that readers see with the model.
  func check(_ when: String) throws(Simulation.Wrong) {
    if failing || directory.hasDied { return }
    disk.disarm()
    if let wrong = model.difference(from: try readEverything()) { throw Simulation.Wrong(message: "\(when): \(wrong)") }
    if let failure = log?.statistics.lastBackgroundFailure {
      throw Simulation.Wrong(message: "\(when): in the background: \(failure)")
    }
  }

  /// Everything the log shows. Nothing comes between.
  func readEverything() throws(Simulation.Wrong) -> FoundCleaned {
    guard let log else { throw Simulation.Wrong(message: "there is no log to read") }
    let before = undisturbed
    undisturbed = true
    defer { undisturbed = before }
    var found = FoundCleaned(topics: [:], partitions: [:], groups: [:])
    for topic in try answer("topics", { log.topics(completion: $0) }) {
      found.topics[topic.name] = topic.configuration
      for number in 0..<topic.configuration.partitions {
        let partition = TopicPartition(topic.name, number)
        found.partitions[partition] = try read(partition, log)
      }
    }
    for group in ["g", "h"] {
      let offsets = try answer("offsets of \(group)", { log.committedOffsets(group: group, completion: $0) })
      if !offsets.isEmpty { found.groups[group] = offsets.mapValues(\.offset) }
    }
    return found
  }

  private func read(_ partition: TopicPartition, _ log: CommitLog) throws(Simulation.Wrong) -> FoundCleaned.Partition {
    let bounds = try answer("bounds of \(partition)", { log.bounds(of: partition, completion: $0) })
    var found = FoundCleaned.Partition(start: bounds.start, end: bounds.end, records: [:])
    var next = bounds.start
    summary.reads += 1
    while next < bounds.end {
      let result = try answer("read of \(partition) from \(next)") {
        log.read(partition, from: next, maxBytes: 5_000, completion: $0)
      }
      for batch in result.batches {
        let pairs: [(offset: Int64, key: String?, value: String?)]
        do throws(WireError) {
          pairs = try SampleBatch.pairs(in: batch)
        } catch {
          throw Simulation.Wrong(message: "\(partition): a torn batch at \(batch.baseOffset): \(error.message)")
        }
        for pair in pairs where pair.offset >= bounds.start {
          guard found.records.updateValue((pair.key, pair.value), forKey: pair.offset) == nil || pair.offset < next
          else { throw Simulation.Wrong(message: "\(partition): offset \(pair.offset) twice") }
        }
      }
      guard result.nextOffset > next else { throw Simulation.Wrong(message: "no progress at \(next) of \(partition)") }
      next = result.nextOffset
    }
    return found
  }

  /// The answer to a question that the reader's thread may have to be run for.
  private func answer<Value: Sendable>(
    _ what: @autoclosure () -> String, _ ask: (@escaping @Sendable (Result<Value, LogError>) -> Void) -> Void
  ) throws(Simulation.Wrong) -> Value {
    let box = Unshared(Answer<Value>())
    ask { box.value.result = $0 }
    for _ in 0..<1_000 where box.value.result == nil { stepQueue("log-reader") }
    switch box.value.result {
    case .success(let value)?: return value
    case .failure(let error)?: throw Simulation.Wrong(message: "\(what()): \(error)")
    case nil: throw Simulation.Wrong(message: "\(what()): no answer")
    }
  }

  private final class Answer<Value> {
    var result: Result<Value, LogError>?
  }
}
