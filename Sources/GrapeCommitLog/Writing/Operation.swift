import GrapeLog
import GrapeWire

/// What waits in the queue to become part of a group.
struct Operation: Sendable {
  enum Body: Sendable {
    case commit(Transaction, @Sendable (Result<CommitReceipt, LogError>) -> Void)
    case createTopic(String, TopicConfiguration, @Sendable (Result<Void, LogError>) -> Void)
    case alterTopic(String, TopicConfiguration, @Sendable (Result<Void, LogError>) -> Void)
    case deleteTopic(String, @Sendable (Result<Void, LogError>) -> Void)
    case trim([Trim], @Sendable (Result<Void, LogError>) -> Void)
    case deleteGroup(String, @Sendable (Result<Void, LogError>) -> Void)
  }

  /// Records of a partition that are given up.
  struct Trim: Sendable {
    var partition: TopicPartition
    /// First offset that stays.
    var start: Int64
    /// The topic that is meant, should another have taken its name meanwhile; nil: whichever has it.
    var topic: TopicID?
  }

  let body: Body
  /// Most bytes that its entries take in a group.
  let bytes: Int

  init(_ body: Body) {
    self.body = body
    switch body {
    case .commit(let transaction, _):
      // Also an empty one takes memory while it waits.
      var bytes = 64
      for append in transaction.appends { bytes += EntryEncoder.appendBytes(batch: append.batch.count) }
      for commit in transaction.offsets { bytes += EntryEncoder.offsetBytes(commit) }
      self.bytes = bytes
    case .createTopic(let name, _, _), .alterTopic(let name, _, _): bytes = EntryEncoder.topicBytes(name: name)
    case .deleteTopic: bytes = EntryEncoder.topicDeletedBytes
    case .trim(let trims, _): bytes = trims.count * EntryEncoder.trimmedBytes
    case .deleteGroup(let name, _): bytes = EntryEncoder.groupBytes(name)
    }
  }

  var durability: Durability {
    if case .commit(let transaction, _) = body { transaction.durability } else { .disk }
  }

  /// It writes nothing; what it may ask for is that everything before it is on the disk.
  var isEmpty: Bool {
    if case .commit(let transaction, _) = body { return transaction.appends.isEmpty && transaction.offsets.isEmpty }
    return false
  }

  /// Answers with an error, whatever was asked.
  func fail(_ error: LogError) {
    switch body {
    case .commit(_, let completion): completion(.failure(error))
    case .createTopic(_, _, let completion), .alterTopic(_, _, let completion), .deleteTopic(_, let completion),
      .trim(_, let completion), .deleteGroup(_, let completion):
      completion(.failure(error))
    }
  }

  /// Answers that it is done; a commit with its receipt.
  func succeed(_ durability: Durability, _ baseOffsets: [Int64]) {
    switch body {
    case .commit(_, let completion):
      completion(.success(CommitReceipt(durability: durability, baseOffsets: baseOffsets)))
    case .createTopic(_, _, let completion), .alterTopic(_, _, let completion), .deleteTopic(_, let completion),
      .trim(_, let completion), .deleteGroup(_, let completion):
      completion(.success(()))
    }
  }
}

/// What became of an operation; told once its group has reached its durability.
enum Outcome {
  case committed([Int64])
  case done
  case refused(LogError)
}
