internal import GrapeCore
internal import GrapeWire

/// The frames of a producer that are not acknowledged yet, in order of their events. No I/O.
struct ProducerWindow {
  /// One APPEND, kept until it is acknowledged so that it can be sent again.
  struct Frame {
    var batches: [(partition: Int32, bytes: ByteSlice)]
    var counts: [Int32]
    var bytes: Int
    var firstEvent: Int64
    var eventCount: Int64
    var tag: EventTag
  }

  private enum State {
    /// May become answered, refused.
    case underWay(id: UInt64)
    /// Waits for its predecessors.
    case answered(AppendReceipt)
    /// The queue was full: to be sent again. May become under way.
    case refused(StatusError)
    /// Handed back for another try: `sent` follows.
    case retrying
  }

  private var entries: [(frame: Frame, state: State)] = []
  private var head = 0
  /// Bytes of all frames held.
  private(set) var bytes = 0
  private var underWay = 0
  private var refused = 0

  var isEmpty: Bool { head == entries.count }
  /// Some frame was refused: nothing new may be sent before it has arrived, or events of a key would change places.
  var isRetrying: Bool { refused > 0 }
  /// All answers have come, and some were refusals.
  var mustRetry: Bool { refused > 0 && underWay == 0 }

  mutating func sent(_ frame: Frame, id: UInt64) {
    underWay += 1
    if let index = entries[head...].firstIndex(where: { if case .retrying = $0.state { true } else { false } }) {
      entries[index].state = .underWay(id: id)
      return
    }
    if head > 256, head * 2 > entries.count {
      entries.removeFirst(head)
      head = 0
    }
    entries.append((frame, .underWay(id: id)))
    bytes += frame.bytes
  }

  private func index(of id: UInt64) throws -> Int {
    let found = entries[head...].firstIndex {
      if case .underWay(id) = $0.state { true } else { false }
    }
    guard let found else {
      throw ClientError(.protocolViolation, "the node answered request \(id), which is not under way")
    }
    return found
  }

  mutating func answered(id: UInt64, _ receipt: AppendReceipt) throws {
    let index = try index(of: id)
    guard receipt.entries.count == entries[index].frame.batches.count else {
      throw ClientError(
        .protocolViolation,
        "the node acknowledged \(receipt.entries.count) batches where \(entries[index].frame.batches.count) were sent")
    }
    underWay -= 1
    entries[index].state = .answered(receipt)
  }

  /// Takes an ERROR: a full queue is to be tried again, everything else is thrown.
  mutating func failed(id: UInt64, _ failure: StatusError) throws {
    let index = try index(of: id)
    guard failure.status == .queueFull else { throw failure }
    underWay -= 1
    refused += 1
    entries[index].state = .refused(failure)
  }

  /// The next acknowledged frame in order; nil while its turn has not come.
  mutating func takeSettled() throws -> Acknowledgement? {
    guard head < entries.count, case .answered(let receipt) = entries[head].state else { return nil }
    let frame = entries[head].frame
    entries[head].frame.batches = []
    head += 1
    bytes -= frame.bytes
    if isEmpty {
      entries.removeAll(keepingCapacity: true)
      head = 0
    }
    return Acknowledgement(
      firstEvent: frame.firstEvent, eventCount: frame.eventCount, tag: frame.tag, durability: receipt.durability,
      topic: receipt.topic,
      batches: zip(receipt.entries, frame.counts).map { ($0.partition, $0.baseOffset, $1) })
  }

  /// The first frame to be sent again, and why; the next `sent` must be this one.
  mutating func takeRefused() -> (Frame, StatusError)? {
    for index in entries.indices[head...] {
      if case .refused(let failure) = entries[index].state {
        entries[index].state = .retrying
        refused -= 1
        return (entries[index].frame, failure)
      }
    }
    return nil
  }
}
