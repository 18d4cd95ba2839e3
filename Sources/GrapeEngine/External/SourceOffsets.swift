internal import GrapeLog
internal import GrapeReactor

/// What a consumer group has committed, asked of the log once for all who want to know it in one turn of the reactor.
final class SourceOffsets {
  typealias Answer = Result<[TopicPartition: CommittedOffset], LogError>

  private let group: String
  /// Where the group's events go: what others have begun to write there is to be decided before the group's offsets mean
  /// anything.
  private let outputs: [TopicPartition]
  private let log: any EventLog
  private let reactor: Reactor
  private var waiting: [(Answer) -> Void] = []

  init(group: String, outputs: [TopicPartition], log: any EventLog, reactor: Reactor) {
    self.outputs = outputs
    self.group = group
    self.log = log
    self.reactor = reactor
  }

  /// `completion` gets what the group had committed at some moment after this call.
  func get(_ completion: @escaping (Answer) -> Void) {
    waiting.append(completion)
    guard waiting.count == 1 else { return }
    reactor.deferred { [self] in
      let asking = waiting
      waiting = []
      ask { answer in for completion in asking { completion(answer) } }
    }
  }

  private func ask(_ completion: @escaping (Answer) -> Void) {
    log.settled(
      outputs,
      completion: reactor.completion { [self] settled in
        if case .failure(let error) = settled { return completion(.failure(error)) }
        log.committedOffsets(group: group, completion: reactor.completion(completion))
      })
  }
}
