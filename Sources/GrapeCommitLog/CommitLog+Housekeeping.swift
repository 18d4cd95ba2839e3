import GrapeLog
import GrapeWire
import Synchronization

/// A segment that is full, with what its index and the checkpoint behind it are made from.
struct SealedSegment: Sendable {
  var segment: Segment
  var touched: [(topic: TopicID, partition: Int32)]
  /// The state at the segment's end; nil once it is written.
  var snapshot: StateSnapshot?
}

extension CommitLog.SharedState {
  /// The group about to be applied is the first of another segment.
  mutating func beginSegment(_ header: SegmentHeader, lastSequence: UInt64) {
    let last = table.segments.last!
    last.seal(lastSequence: lastSequence)
    unindexed.append(
      SealedSegment(
        segment: last, touched: state.takeTouched(), snapshot: state.snapshot(sequence: lastSequence)))
    table.append(Segment(header, lastSequence: nil))
    forget()
  }

  /// The first of `unindexed` has its index file now.
  mutating func indexed() {
    var sealed = unindexed.removeFirst()
    sealed.snapshot = nil
    remembered.append(sealed)
    forget()
  }

  /// Drops from memory where batches are that index files know and the cache no longer holds.
  private mutating func forget() {
    while let oldest = remembered.first, oldest.segment.upperBound <= cache.start ?? .max {
      state.drop(oldest.touched, before: oldest.segment.upperBound)
      table.raiseFloor(to: oldest.segment.upperBound)
      epoch += 1
      remembered.removeFirst()
    }
  }
}

/// What keeps starts quick and memory small: indexes and checkpoints.
extension CommitLog {
  /// Partitions whose locations are copied while readers and the writer wait.
  private static let chunk = 256

  /// Writes the index files of sealed segments, and the checkpoint behind the last.
  func indexSealed() {
    while let sealed = shared.withLock({ $0.unindexed.first }), let snapshot = sealed.snapshot {
      do throws(LogError) {
        var parts = IndexFile.parts(of: snapshot)
        var first = 0
        while first < sealed.touched.count {
          let touched = sealed.touched[first..<min(first + Self.chunk, sealed.touched.count)]
          let pages = shared.withLock { shared in
            touched.map { shared.state.pages($0.topic, $0.partition, segment: sealed.segment.base) }
          }
          IndexFile.fill(&parts, zip(touched, pages))
          first += touched.count
        }
        try indexes.write(IndexFile.encode(parts, of: sealed.segment), of: sealed.segment)
        try writeCheckpoint(snapshot, behind: sealed.segment)
      } catch {
        // Memory keeps what the file would have said; the next segment's end is the next attempt.
        return note(error)
      }
      shared.withLock { $0.indexed() }
      counters.withLock { $0.indexes += 1 }
    }
  }

  private func writeCheckpoint(_ snapshot: StateSnapshot, behind segment: Segment) throws(LogError) {
    let base = segment.upperBound
    let name = Checkpoint.fileName(base: base)
    let bytes = Checkpoint.encode(snapshot, base: base, identity: segment.header.identity)
    try storage.write(bytes, to: name + ".tmp")
    try storage.replace(name, with: name + ".tmp")
    // The one before stays, should this one turn out to be damaged.
    let old = try storage.list().compactMap(Checkpoint.base(ofFile:)).sorted().dropLast(2)
    for base in old { try storage.removeIfThere(Checkpoint.fileName(base: base)) }
  }

  /// Remembers a failure of work in the background, which nobody waits for.
  func note(_ error: LogError) {
    counters.withLock { counters in
      counters.backgroundFailures += 1
      counters.lastBackgroundFailure = error.message
    }
  }

  /// Looks whether the disk has space for new records.
  func checkSpace() {
    let limit = options.lowSpaceBytes ?? Int64(2 * options.segmentBytes)
    do throws(LogError) {
      let free = try storage.availableBytes()
      let error = LogError(
        .noSpace,
        "\(storage.directory): \(free) bytes are free on the disk, fewer than the \(limit) that are kept for finishing what "
          + "was accepted; free some space, or shorten the retention of topics")
      lowSpace.withLock { $0 = free >= limit ? nil : LowSpace(error: error, isCritical: free < limit / 4) }
    } catch {
      note(error)
    }
  }
}

/// Lets the cleaner's queue call a log that does not exist yet when the queue is made.
final class PeriodicMaintenance: Sendable {
  let log = Mutex<@Sendable () -> Void>({})

  func run() { log.withLock { $0 }() }
}
