public import GrapeCore
public import GrapeWire
internal import Glibc

/// Checks the record batches that are about to enter an application's input topic, down to the last record, and counts their
/// events by slot. One pass, no allocation per event; runs of equal headers are parsed once.
public struct EventScanner: Sendable {
  /// Who made the batch: decides which of Grape's headers it may carry.
  public enum Origin: Sendable { case client, worker }

  private let app: String
  private let slotNames: [[UInt8]]
  /// Key + value + headers of one event, bytes.
  private let eventLimit: Int
  /// Records of one batch, unpacked, bytes.
  private let batchLimit: Int

  public init(app: String, slots: [String], eventLimit: Int, batchLimit: Int) {
    self.app = app
    slotNames = slots.map { Array($0.utf8) }
    self.eventLimit = eventLimit
    self.batchLimit = batchLimit
  }

  /// Index of a slot by its name in UTF-8. O(slots).
  public func slot(_ name: UnsafeRawBufferPointer) -> Int? {
    slotNames.firstIndex { $0.count == name.count && memcmp($0, name.baseAddress!, name.count) == 0 }
  }

  /// Checks `batch` and adds its events to `counts` (one per slot, in the order given to `init`).
  public func scan(
    _ batch: ByteSlice, from origin: Origin, checkingCRC: Bool, counts: inout [Int]
  ) throws(StatusError) -> RecordBatchHeader {
    var last: UnsafeRawBufferPointer?
    var lastSlot = 0
    var problem: StatusError?
    var tallied = counts
    let header: RecordBatchHeader
    do throws(WireError) {
      header = try RecordBatch.validate(batch, checkingCRC: checkingCRC, limit: batchLimit) {
        (record) throws(WireError) in
        let size = (record.key?.count ?? 0) + (record.value?.count ?? 0) + record.headerSection.count
        if size > eventLimit, problem == nil {
          problem = StatusError(
            .tooLarge, "an event of \(size) bytes (key, value and headers); \(eventLimit) are allowed")
        }
        if let last, last.count == record.headerSection.count,
          memcmp(last.baseAddress!, record.headerSection.baseAddress!, last.count) == 0
        {
          tallied[lastSlot] += 1
          return
        }
        let headers = try EventHeaders(record)
        guard let name = headers.event else {
          throw WireError(.malformed, "record \(record.offsetDelta) has no header g.e: it names the event")
        }
        if origin == .client, headers.replyAddress != nil || headers.hops != 0 {
          throw WireError(.malformed, "record \(record.offsetDelta) carries a header that only the node may set")
        }
        guard let slot = slot(name) else {
          if problem == nil {
            problem = StatusError(
              .noSuchSlot,
              "\(app) has no slot for event \"\(String(decoding: name, as: UTF8.self))\"; its slots are \(slotList)")
          }
          return
        }
        last = record.headerSection
        lastSlot = slot
        tallied[slot] += 1
      }
    } catch {
      throw StatusError(error.code == .tooLarge ? .tooLarge : .badRequest, "record batch: \(error.message)")
    }
    if let problem { throw problem }
    counts = tallied
    return header
  }

  /// The slots' names, for messages.
  public var slotList: String { slotNames.map { String(decoding: $0, as: UTF8.self) }.joined(separator: ", ") }
}
