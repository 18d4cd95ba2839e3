import Grape
import GrapeCore
import GrapeWire

/// Finds events in a topic that an interrupted ingest sent without hearing of their arrival.
///
/// Every batch of an ingest bears the ingest's name and the number of its frame's first event. A frame is appended whole or not at
/// all, so the number of its events is the sum over its batches.
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
  ///
  /// What the interrupted process left in its socket may still be on its way into the log, so unless everything is found the
  /// topic is looked at until nothing new has come for a while.
  func find(from ends: [Int64], wanted: Range<Int64>) throws -> [Range<Int64>] {
    var cursors = ends
    var counts: [Int64: Int64] = [:]
    var quietUntil = ContinuousClock.now + Self.patience
    while true {
      var isNew = false
      for partition in cursors.indices {
        isNew = try scan(Int32(partition), &cursors[partition], &counts) || isNew
      }
      let found = Self.ranges(counts, in: wanted)
      if found.reduce(0, { $0 + $1.count }) == wanted.count { return found }
      if isNew { quietUntil = ContinuousClock.now + Self.patience }
      guard ContinuousClock.now < quietUntil else { return found }
      try node.pause(until: .now + .milliseconds(20))
    }
  }

  /// How long the topic must have been quiet.
  private static let patience = Duration.milliseconds(700)

  private func scan(_ partition: Int32, _ cursor: inout Int64, _ counts: inout [Int64: Int64]) throws -> Bool {
    var isNew = false
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
      guard !result.batches.isEmpty else { return isNew }
      for batch in result.batches {
        if let first = try frame(of: batch) {
          let header = try RecordBatchHeader(batch.unsafeBytes)
          if header.baseOffset >= cursor {
            // As many as were sent, whether or not each is still kept.
            counts[first, default: 0] += Int64(header.lastOffsetDelta) + 1
            isNew = true
          }
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
