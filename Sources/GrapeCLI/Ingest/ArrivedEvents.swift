import Grape
import GrapeCore
import GrapeWire

/// Finds events in a topic that an interrupted ingest sent without hearing of their arrival.
///
/// Every batch of an ingest bears the ingest's name and the number of its frame's first event. A frame is appended whole or not at
/// all, so the number of its events is the sum over its batches. The node has fenced the interrupted connection before this one
/// was welcomed: what is not there now never will be.
struct ArrivedEvents {
  private let node: NodeConnection
  private let topic: String
  private let run: [UInt8]

  init(_ node: NodeConnection, topic: String, run: [UInt8]) {
    self.node = node
    self.topic = topic
    self.run = run
  }

  /// The ranges within `wanted` that are there, in order, from the offsets `ends` on.
  func find(from ends: [Int64], wanted: Range<Int64>) throws -> [Range<Int64>] {
    var counts: [Int64: Int64] = [:]
    for partition in ends.indices { try scan(Int32(partition), from: ends[partition], &counts) }
    return Self.ranges(counts, in: wanted)
  }

  private func scan(_ partition: Int32, from start: Int64, _ counts: inout [Int64: Int64]) throws {
    var cursor = start
    while true {
      let result: FetchResult
      do {
        result = try node.fetch(topic: topic, partition: partition, offset: cursor)
      } catch let error as StatusError where error.status == .offsetOutOfRange {
        result = try node.fetch(topic: topic, partition: partition, offset: -2)
        guard result.startOffset > cursor else {
          throw CommandFailure(
            .conflict,
            "\(topic)/\(partition) ends before offset \(cursor), which the state names: it is not the topic of that ingest"
          )
        }
      }
      guard !result.batches.isEmpty else { return }
      for batch in result.batches { try count(batch, from: cursor, &counts) }
      cursor = result.nextOffset
    }
  }

  /// Adds what a batch has from `cursor` on. As many as were sent, whether or not each is still kept.
  private func count(_ batch: ByteSlice, from cursor: Int64, _ counts: inout [Int64: Int64]) throws {
    let unpacked = try RecordBatch.unpack(batch, checkingCRC: false, limit: 1 << 30)
    defer { withExtendedLifetime(unpacked) {} }
    let size = Int64(unpacked.header.lastOffsetDelta) + 1
    var records = unpacked.reader()
    while let record = try records.next() {
      guard unpacked.header.baseOffset + Int64(record.offsetDelta) >= cursor, let found = try frame(of: record) else {
        continue
      }
      counts[found.first, default: 0] += found.count ?? size
      // The batch is as it was sent; a log may put records into others. Without a count it is of a version that knew no such log.
      if record.offsetDelta == 0, (found.count ?? size) == size { return }
    }
  }

  /// Number of the first event of the frame that a record came with, if it is of this ingest and the first of a batch as sent, and how many that
  /// batch has.
  private func frame(of record: Record) throws -> (first: Int64, count: Int64?)? {
    var headers = record.headers
    while let (name, value) = try headers.next() {
      guard name.elementsEqual(EventProducer.provenanceHeader.utf8), let value,
        value.count == run.count + 8 || value.count == run.count + 12, value.prefix(run.count).elementsEqual(run)
      else { continue }
      let first = Int64(bigEndian: value.loadUnaligned(fromByteOffset: run.count, as: Int64.self))
      let hasCount = value.count == run.count + 12
      return (
        first,
        hasCount ? Int64(UInt32(bigEndian: value.loadUnaligned(fromByteOffset: run.count + 8, as: UInt32.self))) : nil
      )
    }
    return nil
  }

  /// Frames as ranges, in order, cut to `wanted`.
  static func ranges(_ counts: [Int64: Int64], in wanted: Range<Int64>) -> [Range<Int64>] {
    counts.sorted { $0.key < $1.key }
      .map { ($0.key..<$0.key + $0.value).clamped(to: wanted) }
      .filter { !$0.isEmpty }
  }
}
