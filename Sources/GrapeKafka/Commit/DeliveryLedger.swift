internal import CRDKafka
internal import GrapeLog

/// What became of the messages of one commit: delivery reports, counted per append. Confined to the thread that polls
/// the producer.
final class DeliveryLedger {
  struct Delivery {
    /// Messages handed to librdkafka and not reported on yet.
    var outstanding: Int32 = 0
    /// Least offset among those delivered.
    var baseOffset: Int64 = .max
    /// Greatest offset among those delivered.
    var lastOffset: Int64 = -1
    /// How many were delivered. They are in the order in which they were handed over.
    var count: Int64 = 0
    var failure: rd_kafka_resp_err_t = RD_KAFKA_RESP_ERR_NO_ERROR
    /// Some message that failed may be in the log all the same.
    var mayBeThere = false
  }

  /// By append: where messages do not follow those before. Rare.
  private var interruptions: [Int: [CommitReceipt.Interruption]] = [:]
  // Plain memory: it is touched twice for every message.
  private let storage: UnsafeMutableBufferPointer<Delivery>

  init(appends: Int) {
    storage = .allocate(capacity: appends)
    storage.initialize(repeating: Delivery())
  }

  deinit { storage.deallocate() }

  /// What is told of some of the appends, all of them delivered.
  func receipt(_ places: Range<Int>) -> CommitReceipt {
    var found: [Int: [CommitReceipt.Interruption]] = [:]
    for (append, some) in interruptions where places.contains(append) { found[append - places.lowerBound] = some }
    return CommitReceipt(durability: .disk, baseOffsets: storage[places].map(\.baseOffset), interruptions: found)
  }

  /// What became of some of the appends.
  func deliveries(_ places: Range<Int>) -> [Delivery] { Array(storage[places]) }

  /// What goes with each message of an append.
  static func opaque(append: Int) -> UnsafeMutableRawPointer? { UnsafeMutableRawPointer(bitPattern: append + 1) }

  @inline(__always)
  func handedOver(append: Int) { storage[append].outstanding += 1 }

  /// librdkafka would not even queue a message.
  func refused(append: Int, _ code: rd_kafka_resp_err_t) {
    if storage[append].failure == RD_KAFKA_RESP_ERR_NO_ERROR { storage[append].failure = code }
  }

  func report(_ message: UnsafePointer<rd_kafka_message_t>) {
    let append = Int(bitPattern: message.pointee._private) - 1
    guard storage.indices.contains(append) else { return }
    storage[append].outstanding -= 1
    if message.pointee.err == RD_KAFKA_RESP_ERR_NO_ERROR {
      let offset = message.pointee.offset
      let delivered = storage[append].count
      if delivered > 0, offset != storage[append].lastOffset + 1 {
        interruptions[append, default: []].append(CommitReceipt.Interruption(record: delivered, offset: offset))
      }
      storage[append].count = delivered + 1
      storage[append].baseOffset = min(storage[append].baseOffset, offset)
      storage[append].lastOffset = max(storage[append].lastOffset, offset)
    } else {
      refused(append: append, message.pointee.err)
      if rd_kafka_message_status(message) != RD_KAFKA_MSG_STATUS_NOT_PERSISTED { storage[append].mayBeThere = true }
    }
  }

  /// Messages that were not reported on are not waited for any more: they may be in the log.
  func close() {
    for place in storage.indices where storage[place].outstanding > 0 {
      refused(append: place, RD_KAFKA_RESP_ERR__TIMED_OUT)
      storage[place].mayBeThere = true
    }
  }

  var isComplete: Bool { storage.allSatisfy { $0.outstanding == 0 } }

  var firstFailure: rd_kafka_resp_err_t? {
    storage.first { $0.failure != RD_KAFKA_RESP_ERR_NO_ERROR }?.failure
  }
}
