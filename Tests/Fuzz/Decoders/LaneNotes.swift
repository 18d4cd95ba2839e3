import GrapeLog
import GrapeWire

@testable import GrapeEngine

extension FuzzTarget {
  /// What an application has noted with its committed offset; then a lane lives on from there.
  static let laneNotes = FuzzTarget("lane-notes") {
    [
      Sample.written {
        $0.i64(5); $0.u8(1); $0.i64(9); $0.i64(5); $0.u32(2)
      },
      Sample.written {
        $0.i64(0); $0.u8(1); $0.i64(100); $0.i64(-1); $0.u32(0)
      }, Sample.written { $0.i64(7) },
    ]
  } body: { bytes in
    var reader = ByteReader(bytes.unsafeBytes)
    guard let offset = try taken({ try reader.i64() }) else { return }
    let notes = [UInt8](reader.rest())
    let bounds = PartitionBounds(start: 3, end: 40)
    var lane = makeLane(offset, notes, bounds)
    try promise((3...40).contains(lane.processed), "the lane begins at \(lane.processed)")
    try promise(makeLane(lane.processed, lane.metadata, bounds).metadata == lane.metadata, "notes do not come back")
    let batch = try Sample.batchWithGaps()
    if case .read(let offset) = lane.planFetch(batchBytes: 1 << 20) {
      let found = LogBatch(bytes: batch, baseOffset: 0, lastOffset: 39, maxTimestamp: 0)
      lane.read(ReadResult(batches: [found], bounds: bounds), from: offset)
    }
    var rounds = 0
    while lane.hasWork {
      rounds += 1
      try promise(rounds < 1000, "the lane does not end")
      guard let plan = lane.planDelivery(now: .max, batchBytes: 1 << 20) else {
        // What was left were gaps.
        return try promise(!lane.hasWork, "work, but nothing to deliver")
      }
      try promise(plan.first < plan.end && plan.end <= 40 && plan.attempt >= 1, "\(plan.first) to \(plan.end)")
      lane.delivered(
        .init(id: 1, worker: 1, first: plan.first, end: plan.end, bytes: plan.bytes, timestamp: 0, sentAt: 0))
      if rounds % 3 == 1 {
        if lane.workerDied(now: 0, delay: 1, isAlone: true) { lane.attemptCommitted() }
      } else {
        lane.completed(upTo: plan.end)
      }
      try promise(makeLane(lane.processed, lane.metadata, bounds).metadata == lane.metadata, "notes do not come back")
    }
  }

  private static func makeLane(_ offset: Int64, _ notes: [UInt8], _ bounds: PartitionBounds) -> LaneStateMachine {
    LaneStateMachine(partition: 0, start: CommittedOffset(offset: offset, metadata: notes), bounds: bounds)
  }
}
