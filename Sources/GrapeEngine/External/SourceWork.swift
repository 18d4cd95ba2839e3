internal import GrapeCore
internal import GrapeLog
internal import GrapeWire

/// A piece of work: batches of a source from an offset on, to be made into what is appended for them. Pure: the same piece
/// gives the same result, on whatever thread.
struct SourceWork: Sendable {
  /// How careful one has to be, after the log has refused what came of a piece for its size.
  enum Care: Sendable {
    case none
    /// One record alone.
    case single
    /// The one record becomes a dead letter without its value.
    case setAside
  }

  var rules: SourceRules
  /// As they were read, in order.
  var batches: [LogBatch]
  /// First offset that is to be dealt with.
  var from: Int64
  var care = Care.none
  /// Partition of the input for events without key.
  var spread: Int32
  /// Time of day, milliseconds since 1970 UTC.
  var now: Int64

  /// What came of it.
  struct Result: Sendable {
    var appends: [Transaction.Append] = []
    /// Events per partition of the input, and the greatest timestamp.
    var arrivals: [SourceArrival] = []
    /// Everything below is dealt with.
    var next: Int64
    /// All batches are dealt with: `next` lies behind them.
    var isComplete = false
    var events = 0
    /// Records that became dead letters, and why the first of them did.
    var unusable = 0
    var firstUnusable: (offset: Int64, message: String)?
    /// Why nothing behind `next` can be read.
    var damage: String?
  }

  /// Bytes that one transaction takes, about: enough for large writes, and little enough for others' transactions between
  /// them. One record more may come on top.
  static let transactionBytes = 4 << 20

  func run() -> Result {
    var builder = SourceTransactionBuilder(rules, now: now)
    var translation = RecordTranslation(rules)
    var result = Result(next: from)
    let mostRecords = care == .none ? Int.max : 1
    var taken = 0
    for batch in batches where batch.lastOffset >= from {
      let unpacked: UnpackedBatch
      do throws(WireError) {
        unpacked = try RecordBatch.unpack(batch.bytes, checkingCRC: false, limit: rules.batchLimit)
      } catch {
        result.damage = "the batch at offset \(batch.baseOffset) cannot be unpacked: \(error.message)"
        break
      }
      // Marks of transactions are no records of anybody's.
      if unpacked.header.isControl {
        result.next = batch.lastOffset + 1
        continue
      }
      var reader = unpacked.reader()
      var previous: Int32 = -1
      do throws(WireError) {
        while let record = try reader.next() {
          // A place outside of the batch would be committed, and could not be read from.
          guard record.offsetDelta > previous, record.offsetDelta <= unpacked.header.lastOffsetDelta else {
            throw WireError(
              .malformed,
              "offset delta \(record.offsetDelta) behind \(previous), the last is \(unpacked.header.lastOffsetDelta)")
          }
          previous = record.offsetDelta
          let offset = batch.baseOffset + Int64(record.offsetDelta)
          guard offset >= from else { continue }
          guard taken < mostRecords, builder.byteCount < Self.transactionBytes else {
            result.next = offset
            return builder.finish(result)
          }
          taken += 1
          add(record, at: offset, of: unpacked.header, &translation, to: &builder, &result)
          result.next = offset + 1
        }
      } catch {
        result.damage = "the batch at offset \(batch.baseOffset) is no batch: \(error.message)"
        break
      }
      withExtendedLifetime(unpacked) {}
      result.next = max(result.next, batch.lastOffset + 1)
    }
    result.isComplete = result.damage == nil
    return builder.finish(result)
  }

  private func add(
    _ record: Record, at offset: Int64, of header: RecordBatchHeader, _ translation: inout RecordTranslation,
    to builder: inout SourceTransactionBuilder, _ result: inout Result
  ) {
    let written = header.hasLogTimestamp ? header.maxTimestamp : header.baseTimestamp &+ record.timestampDelta
    // A time that nobody can have meant, or none at all: the event is made now.
    let timestamp = written >= 0 && RecordBatch.timestamps.contains(written) ? written : now
    do throws(UnusableRecord) {
      if care == .setAside { throw UnusableRecord(message: "the log does not take the event: it is too large") }
      builder.add(try translation.translate(record, at: offset), timestamp: timestamp, spread: spread)
      result.events += 1
    } catch {
      builder.setAside(record, at: offset, why: error.message, omittingValue: care == .setAside)
      result.unusable += 1
      if result.firstUnusable == nil { result.firstUnusable = (offset, error.message) }
    }
  }
}
