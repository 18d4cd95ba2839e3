internal import GrapeLog
internal import GrapeWire

/// A transaction that was checked and opened up, ready to be produced.
struct PreparedTransaction: Sendable {
  let transaction: Transaction
  let completion: @Sendable (Result<CommitReceipt, LogError>) -> Void
  /// See `CommitQueue.Waiting`.
  let number: UInt64
  let since: Int64
  let deadline: Int64?
  let stays: [String: UInt64]
  let terms: [UInt64?]
  /// True: it goes without others, because one of those that it went with before was at fault.
  var isAlone = false
  /// Records of each append; their memory is what librdkafka sends from.
  let batches: [UnpackedBatch]
  /// At least what librdkafka counts for the messages.
  let bytes: Int
  let records: Int

  /// Most that librdkafka adds to a record's own bytes when it sizes a set of messages.
  static let overhead = 64

  /// Errors: `invalidArgument` for what is no batch.
  init(_ waiting: CommitQueue.Waiting, unpackedLimit: Int) throws(LogError) {
    transaction = waiting.transaction
    completion = waiting.completion
    number = waiting.number
    since = waiting.since
    deadline = waiting.deadline
    stays = waiting.stays
    terms = waiting.terms
    var batches: [UnpackedBatch] = []
    var bytes = 0
    var records = 0
    for append in waiting.transaction.appends {
      do throws(WireError) {
        let batch = try RecordBatch.unpack(append.batch, checkingCRC: false, limit: unpackedLimit)
        bytes += Self.bytes(batch, append)
        records += Int(append.recordCount)
        batches.append(batch)
      } catch {
        throw LogError(
          error.code == .tooLarge ? .tooLarge : .invalidArgument, "\(append.partition): \(error.message)")
      }
    }
    self.batches = batches
    self.bytes = bytes
    self.records = records
  }

  /// At least what librdkafka counts for the messages of one append.
  func bytes(ofAppend place: Int) -> Int { Self.bytes(batches[place], transaction.appends[place]) }

  private static func bytes(_ batch: UnpackedBatch, _ append: Transaction.Append) -> Int {
    batch.records.count + Int(append.recordCount) * overhead
  }

  /// See `Transaction.mayRepeat`.
  var mayRepeat: Bool { transaction.mayRepeat && transaction.offsets.isEmpty }

  /// The one partition that the transaction touches, if it appends there and does nothing else.
  var onlyPartition: TopicPartition? {
    guard transaction.offsets.isEmpty, let first = transaction.appends.first?.partition,
      transaction.appends.allSatisfy({ $0.partition == first })
    else { return nil }
    return first
  }

  func isLate(_ now: Int64) -> Bool { deadline.map { $0 <= now } ?? false }

  var isEmpty: Bool { transaction.appends.isEmpty && transaction.offsets.isEmpty }
}

/// How prepared transactions go to the cluster: as many as go together, in their order.
struct CommitGrouping {
  enum Kind: Equatable {
    /// Each in one set of messages to one partition, which a broker takes whole or not at all.
    case plain
    /// In one Kafka transaction.
    case transactional
    /// Nothing to write.
    case empty
  }

  /// Most bytes and records that are certain to fit one set of messages.
  var setBytes: Int
  var setRecords: Int
  var allowsPlain: Bool

  /// How many of the first transactions go next, and how. Precondition: there is one.
  func next(_ waiting: some RandomAccessCollection<PreparedTransaction>) -> (count: Int, kind: Kind) {
    if waiting.first!.isAlone { return (1, .transactional) }
    if waiting.first!.isEmpty { return (waiting.prefix { $0.isEmpty }.count, .empty) }
    guard allowsPlain, waiting.allSatisfy({ isPlain($0) || $0.isEmpty }) else {
      return (waiting.count, .transactional)
    }
    var sets: [TopicPartition: (bytes: Int, records: Int)] = [:]
    var count = 0
    counting: for transaction in waiting {
      for (place, append) in transaction.transaction.appends.enumerated() {
        var set = sets[append.partition] ?? (0, 0)
        set.bytes += transaction.bytes(ofAppend: place)
        set.records += Int(append.recordCount)
        // The first fits, or may be taken apart.
        if count > 0, set.bytes > setBytes || set.records > setRecords { break counting }
        sets[append.partition] = set
      }
      count += 1
    }
    return (count, .plain)
  }

  private func isPlain(_ transaction: PreparedTransaction) -> Bool {
    if transaction.mayRepeat { return true }
    // A patient one is tried again and again, so that there must be no doubt whether it was written.
    return transaction.onlyPartition != nil && !transaction.transaction.isPatient && transaction.bytes <= setBytes
      && transaction.records <= setRecords
  }
}
