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
      for batch in result.batches {
        if let first = try frame(of: batch) {
          let header = try RecordBatchHeader(batch.unsafeBytes)
          // As many as were sent, whether or not each is still kept.
          if header.baseOffset >= cursor { counts[first, default: 0] += Int64(header.lastOffsetDelta) + 1 }
        }
      }
      cursor = result.nextOffset
    }
  }

  /// Number of the first event of the frame that a batch came with; nil if it is not of this ingest.
  private func frame(of batch: ByteSlice) throws -> Int64? {
    let unpacked = try RecordBatch.unpack(batch, checkingCRC: false, limit: 1 << 30)
    defer { withExtendedLifetime(unpacked) {} }
    var records = unpacked.reader()
    guard let record = try records.next() else { return nil }
    var headers = record.headers
    while let (name, value) = try headers.next() {
      guard name.elementsEqual(EventProducer.provenanceHeader.utf8), let value, value.count == run.count + 8,
        value.prefix(run.count).elementsEqual(run)
      else { continue }
      return Int64(bigEndian: value.loadUnaligned(fromByteOffset: run.count, as: Int64.self))
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
