internal import GrapeLog
internal import GrapeReactor
internal import GrapeWire
internal import Logging

/// What waits, slot by slot.
extension ApplicationEngine {
  /// A batch that was handed to the log for the input topic: where to, of which slots, and when its events were made.
  public struct Arrival {
    public var partition: Int32
    /// Events by slot, in the manifest's order.
    public var counts: [Int]
    /// Greatest timestamp, milliseconds.
    public var timestamp: Int64

    public init(partition: Int32, counts: [Int], timestamp: Int64) {
      self.partition = partition
      self.counts = counts
      self.timestamp = timestamp
    }
  }

  /// Notes events from the moment on at which the log has been given them. In the order in which it has.
  public func noteAppended(_ arrival: Arrival) {
    let lane = Int(arrival.partition)
    guard tenures.indices.contains(lane), tenures[lane].isHere else { return }
    change(lane) { $0.appended(arrival.counts, timestamp: arrival.timestamp) }
  }

  /// Takes back what `noteAppended` noted: the log refused it.
  public func noteRefused(_ arrival: Arrival) {
    let lane = Int(arrival.partition)
    guard tenures.indices.contains(lane), tenures[lane].isHere else { return }
    change(lane) { $0.withdrawn(arrival.counts) }
  }

  /// The lane is about to move on to `offset`, before it lets go of the batches. `handled`: how many events of each slot ran.
  func noteProgress(_ lane: Int, to offset: Int64, handled: [WorkerResult.Tally] = []) {
    var counts = [Int](repeating: 0, count: slotNames.count)
    for tally in handled { counts[tally.slot] += tally.succeeded + tally.failed }
    change(lane) { backlog in
      backlog.advance(to: offset, handled: counts) { [self] in countFetched($0, lane: lane) }
    }
  }

  /// The lane has moved on by itself, over offsets without a record.
  func noteGaps(_ lane: Int) {
    let offset = lanes[lane].processed
    guard offset > backlogs[lane].first else { return }
    let none = [Int](repeating: 0, count: slotNames.count)
    change(lane) { $0.advance(to: offset, handled: none) { _ in none } }
  }

  /// The log shows the partition to be longer than what was noted.
  func noteSeen(_ lane: Int, end: Int64) {
    guard end > backlogs[lane].end else { return }
    let count = slotNames.count
    change(lane) { $0.seen(end: end, slots: count, timestamp: reactor.clock.wall) }
  }

  private func change(_ lane: Int, _ body: (inout LaneBacklog) -> Void) {
    waiting -= backlogs[lane].count
    body(&backlogs[lane])
    waiting += backlogs[lane].count
  }

  /// Counts events that are at hand, by slot; nil if some of them are not.
  private func countFetched(_ range: Range<Int64>, lane: Int) -> [Int]? {
    var counts = [Int](repeating: 0, count: slotNames.count)
    guard let batches = lanes[lane].batches(covering: range) else { return nil }
    for batch in batches {
      guard add(batch, from: range.lowerBound, to: range.upperBound, into: &counts) else { return nil }
    }
    return counts
  }

  // MARK: What waited at the start

  /// Counts what waited when the lane began, in the background.
  func countBacklog(_ index: Int) {
    countBacklog(lane: index, from: lanes[index].processed, to: lanes[index].end, term: tenures[index].term)
  }

  private func countBacklog(lane index: Int, from offset: Int64, to end: Int64, term: Int) {
    let offset = max(offset, backlogs[index].first)
    guard offset < end else { return }
    log.read(
      TopicPartition(topic, lanes[index].partition), from: offset, maxBytes: 256 * 1024,
      completion: reactor.completion { [self] result in
        // Only figures depend on it; the same fault is reported when the events are to be delivered.
        guard isTerm(term, index), case .success(let read) = result, let last = read.batches.last else { return }
        for batch in read.batches {
          var counts = [Int](repeating: 0, count: slotNames.count)
          _ = add(batch, from: max(offset, backlogs[index].first), to: end, into: &counts)
          backlogs[index].counted(counts, upTo: min(batch.lastOffset + 1, end), timestamp: batch.maxTimestamp)
        }
        countBacklog(lane: index, from: last.lastOffset + 1, to: end, term: term)
      })
  }

  /// Adds a batch's events in a range of offsets to `counts`. False if it cannot be read.
  private func add(_ batch: LogBatch, from first: Int64, to end: Int64, into counts: inout [Int]) -> Bool {
    do throws(WireError) {
      let unpacked = try RecordBatch.unpack(batch.bytes, checkingCRC: false, limit: environment.batchLimit)
      var reader = unpacked.reader()
      while let record = try reader.next() {
        let offset = batch.baseOffset + Int64(record.offsetDelta)
        guard offset >= first, offset < end else { continue }
        var headers = record.headers
        if let (_, value) = try headers.next(), let value, let slot = scanner.slot(value) { counts[slot] += 1 }
      }
      withExtendedLifetime(unpacked) {}
      return true
    } catch {
      logger.debug("events not counted", metadata: ["app": "\(name)", "error": "\(error)"])
      return false
    }
  }
}
