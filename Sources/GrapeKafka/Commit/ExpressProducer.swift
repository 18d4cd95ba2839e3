internal import CRDKafka
internal import GrapeLog
internal import GrapeWire
internal import Synchronization

/// Sends single records at once, from the thread that hands them over, and is told of them by librdkafka's own: the way by the committer's thread costs two
/// changes of thread more, which is a good part of what one record takes.
///
/// One record is one set of messages, which a broker takes or does not: there is nothing that could be half written. Of anything but success the committer is
/// told, and sees to the rest.
final class ExpressProducer: Sendable {
  /// Why a record was not simply written.
  struct Failure: Error {
    var code: rd_kafka_resp_err_t
    /// It may be in the log all the same.
    var mayBeThere: Bool
  }

  /// Told what became of a transaction: its record's offset, or why it was not written. On a thread of librdkafka's, which it must not block.
  typealias Told = @Sendable (PreparedTransaction, Result<Int64, Failure>) -> Void

  private struct UnderWay {
    var transactions: [Int: PreparedTransaction] = [:]
    var lastID = 0
  }

  /// `@unchecked Sendable`: used behind the lock only.
  private struct Sender: @unchecked Sendable {
    /// Nil in the end.
    var producer: Producer?
    /// The topics that can be sent to without asking the cluster first.
    var topics: [String: RDKafkaTopic] = [:]
  }

  /// Most bytes of a record, which is copied.
  static let limit = 16 << 10

  private let configuration: KafkaConfiguration
  private let underWay: Tracking
  private let sender: Mutex<Sender>

  /// What librdkafka's threads reach.
  private final class Tracking: Sendable {
    private let state = Mutex(UnderWay())
    private let told: Told

    init(_ told: @escaping Told) { self.told = told }

    func add(_ transaction: PreparedTransaction) -> Int {
      state.withLock { state in
        state.lastID += 1
        state.transactions[state.lastID] = transaction
        return state.lastID
      }
    }

    func remove(_ id: Int) -> PreparedTransaction? { state.withLock { $0.transactions.removeValue(forKey: id) } }

    func acknowledged(_ message: UnsafePointer<rd_kafka_message_t>) {
      guard let transaction = remove(Int(bitPattern: message.pointee._private)) else { return }
      let code = message.pointee.err
      if code == RD_KAFKA_RESP_ERR_NO_ERROR { return told(transaction, .success(message.pointee.offset)) }
      let mayBeThere = rd_kafka_message_status(message) != RD_KAFKA_MSG_STATUS_NOT_PERSISTED
      told(transaction, .failure(Failure(code: code, mayBeThere: mayBeThere)))
    }
  }

  /// Errors: those of `Producer`.
  init(_ configuration: KafkaConfiguration, told: @escaping Told) throws(LogError) {
    self.configuration = configuration
    underWay = Tracking(told)
    sender = Mutex(Sender(producer: try Self.makeProducer(configuration, underWay)))
  }

  private static func makeProducer(_ configuration: KafkaConfiguration, _ underWay: Tracking) throws(LogError)
    -> Producer
  {
    try Producer(
      configuration, messageTimeout: configuration.commitTimeout, own: [("linger.ms", "0")],
      acknowledged: { underWay.acknowledged($0) })
  }

  /// Whether a transaction is of the kind that is sent from here: one record of moderate size, and nothing else.
  static func suits(_ transaction: Transaction) -> Bool {
    guard transaction.appends.count == 1, transaction.offsets.isEmpty else { return false }
    let append = transaction.appends[0]
    // A patient one is tried again and again, so that there must be no doubt whether it was written; unless it may be written twice.
    return append.recordCount == 1 && append.batch.count <= limit && (!transaction.isPatient || transaction.mayRepeat)
  }

  /// Sends what suits. False, and nothing was done: it cannot be sent from here, or not now. Does not block.
  func send(_ transaction: PreparedTransaction, to clusterName: String) -> Bool {
    let id = underWay.add(transaction)
    let isSent = sender.withLock { sender in
      guard let producer = sender.producer, let topic = sender.topics[clusterName] else { return false }
      var reader = transaction.batches[0].reader()
      do {
        guard let record = try reader.next() else { return false }
        let timestamp = transaction.batches[0].header.baseTimestamp &+ record.timestampDelta
        let code = try producer.send(
          record, timestamp, to: topic, transaction.transaction.appends[0].partition.partition,
          UnsafeMutableRawPointer(bitPattern: id), copying: true)
        return code == RD_KAFKA_RESP_ERR_NO_ERROR
      } catch {
        // Whoever takes it next says what is wrong with it.
        return false
      }
    }
    if !isSent { _ = underWay.remove(id) }
    return isSent
  }

  // MARK: for the committer's thread, while nothing is under way

  /// Finds out where a topic's records go, so that they can be sent. Blocks if that is not known yet.
  func prepare(_ clusterName: String) {
    if sender.withLock({ $0.topics[clusterName] != nil }) { return }
    let producer = sender.withLock { $0.producer }
    // Whatever speaks against it will be told by those who write in another way.
    guard let topic = try? producer?.topic(clusterName) else { return }
    sender.withLock { $0.topics[clusterName] = topic }
  }

  /// Something the cluster said speaks against what is known of a topic.
  func doubt(_ clusterName: String) {
    sender.withLock { sender in
      sender.topics[clusterName] = nil
      sender.producer?.forget(clusterName)
    }
  }

  /// librdkafka takes no more from this client.
  var hasFailed: Bool {
    sender.withLock { sender in
      guard let client = sender.producer?.client else { return false }
      return rd_kafka_fatal_error(client.pointer, nil, 0) != RD_KAFKA_RESP_ERR_NO_ERROR
    }
  }

  /// The topic was created, deleted or changed. A partition made anew does not know the sequence numbers of the old one, so that a new producer is needed if
  /// this one has written there. Errors: those of `Producer`.
  func forget(_ clusterName: String) throws(LogError) {
    if sender.withLock({ $0.topics[clusterName] != nil }) { try renew() }
  }

  /// Begins anew with another client. Errors: those of `Producer`.
  func renew() throws(LogError) { replace(with: try Self.makeProducer(configuration, underWay)) }

  /// Lets go of the client. Afterwards nobody is told of anything any more, and librdkafka has no thread left that could be the last to let go of whoever was.
  func close() { replace(with: nil) }

  private func replace(with producer: Producer?) {
    let fresh = Sender(producer: producer)
    let old = sender.withLock { sender in
      defer { sender = fresh }
      return sender
    }
    // Destroyed here, which may take a moment, and not behind the lock.
    withExtendedLifetime(old) {}
  }
}
