internal import GrapeCore
internal import GrapeLog
internal import GrapeWire

/// Gathers what a piece of a source's records comes to: events for the partitions of the application's input, and dead
/// letters.
struct SourceTransactionBuilder: ~Copyable {
  /// What goes to one partition.
  private final class Part {
    let place: TopicPartition
    let compressor: ZstdCompressor?
    var batch = RecordBatchBuilder(capacity: 16_384)
    var count = 0
    var timestamp = Int64.min

    init(_ place: TopicPartition, _ compressor: ZstdCompressor?) {
      self.place = place
      self.compressor = compressor
    }

    /// Ends the batch. Precondition: it has records.
    func take() -> Transaction.Append {
      do throws(WireError) {
        let finished = try batch.take(compressor: compressor)
        return Transaction.Append(
          place, batch: finished.bytes, maxTimestamp: finished.maxTimestamp, recordCount: finished.recordCount)
      } catch {
        preconditionFailure("records that were gathered can always be packed: \(error)")
      }
    }
  }

  /// Batches end at about this size, in bytes.
  private static let batchBytes = 1 << 20
  /// Keys and headers up to this size go into a dead letter whatever else does not.
  private static let smallBytes = 4096

  private let rules: SourceRules
  private let now: Int64
  private let compressor: ZstdCompressor?
  private var parts: [Int32: Part] = [:]
  private let letters: Part
  private var appends: [Transaction.Append] = []
  /// Bytes so far, before they are packed.
  private(set) var byteCount = 0

  init(_ rules: SourceRules, now: Int64) {
    self.rules = rules
    self.now = now
    compressor = rules.compression.level.map { ZstdCompressor(level: Int32($0)) }
    letters = Part(TopicPartition(rules.deadLettersTopic, 0), nil)
  }

  /// - Parameter spread: the partition if the event has no key.
  mutating func add(_ event: RecordTranslation.Event, timestamp: Int64, spread: Int32) {
    let partition = event.key.map { Partitioner.partition(forKey: $0, of: rules.partitions) } ?? spread
    let part: Part
    if let known = parts[partition] {
      part = known
    } else {
      part = Part(TopicPartition(rules.eventsTopic, partition), compressor)
      parts[partition] = part
    }
    let before = part.batch.byteCount
    part.batch.append(key: event.key, value: event.value, headerSection: event.headerSection, timestamp: timestamp)
    part.count += 1
    part.timestamp = max(part.timestamp, timestamp)
    byteCount += part.batch.byteCount - before
    if part.batch.byteCount >= Self.batchBytes { appends.append(part.take()) }
  }

  /// The record becomes a dead letter: whole if it is small enough to be an event, else as far as it is.
  mutating func setAside(_ record: Record, at offset: Int64, why: String, omittingValue: Bool) {
    let keyBytes = record.key?.count ?? 0
    let valueBytes = record.value?.count ?? 0
    let total = keyBytes + valueBytes + record.headerSection.count
    // Room for what a dead letter says of itself.
    let isWhole = total + Self.smallBytes <= rules.eventLimit && !omittingValue
    var omitted: [String] = []
    let keepsKey = isWhole || keyBytes <= Self.smallBytes
    if !keepsKey { omitted.append("key") }
    if !isWhole, record.value != nil { omitted.append("value") }
    let keepsHeaders = isWhole || record.headerSection.count <= Self.smallBytes
    if !keepsHeaders { omitted.append("headers") }
    var members: [JSONValue.Member] = [
      .init("reason", "unusable"), .init("code", 0), .init("message", .string(why)), .init("attempts", 0),
      .init("topic", .string(rules.place.topic)), .init("partition", JSONValue(rules.place.partition)),
      .init("offset", .int(offset)), .init("version", .string(rules.version)), .init("timeMs", .int(now)),
      .init("bytes", JSONValue(total)),
    ]
    if !omitted.isEmpty { members.append(.init("omitted", JSONValue(strings: omitted))) }

    var headers = HeaderSection()
    headers.append(HeaderName.event, rules.slot)
    if keepsHeaders { Self.copy(record.headers, to: &headers) }
    headers.append(HeaderName.deadLetter, JSONValue.object(members).utf8)
    let before = letters.batch.byteCount
    headers.finish().withUnsafeBytes {
      letters.batch.append(
        key: keepsKey ? record.key : nil, value: isWhole ? record.value : nil, headerSection: $0, timestamp: now)
    }
    byteCount += letters.batch.byteCount - before
    if letters.batch.byteCount >= Self.batchBytes { appends.append(letters.take()) }
  }

  /// As many as can be read: they may be what is wrong with the record.
  private static func copy(_ original: RecordHeaders, to headers: inout HeaderSection) {
    var original = original
    while let (name, value) = try? original.next() {
      if !HeaderName.isReserved(name), String(validating: name, as: UTF8.self) != nil { headers.append(name, value) }
    }
  }

  /// Adds what was gathered to `result`.
  consuming func finish(_ result: consuming SourceWork.Result) -> SourceWork.Result {
    for (partition, part) in parts.sorted(by: { $0.key < $1.key }) {
      if !part.batch.isEmpty { appends.append(part.take()) }
      result.arrivals.append(SourceArrival(partition: partition, count: part.count, timestamp: part.timestamp))
    }
    if !letters.batch.isEmpty { appends.append(letters.take()) }
    result.appends = appends
    return result
  }
}
