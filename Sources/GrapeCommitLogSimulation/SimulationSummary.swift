extension Simulation {
  /// What a run did, for those who want to know whether it was worth it.
  package struct Summary: Sendable, CustomStringConvertible {
    package var steps = 0
    /// Commits and changes of topics that the log took.
    package var operations = 0
    /// To the disk.
    package var calls = 0
    /// Steps of one thread in the middle of a step of another.
    package var interludes = 0
    /// Reads compared with the model, and how many of them failed for good reasons.
    package var reads = 0
    package var failedReads = 0
    /// Starts that succeeded, and that did not.
    package var starts = 0
    package var failedStarts = 0
    package var kills = 0
    package var powerLosses = 0
    /// Calls that failed.
    package var faults = 0
    /// Ends of a log that a start cut off.
    package var cuts = 0
    /// Operations that a start found missing, none of which had been acknowledged as so safe.
    package var lost = 0
    /// Bits turned over, and how many of them were noticed.
    package var flips = 0
    package var noticedFlips = 0
    /// Segments rewritten by processes that came to their end.
    package var cleaned = 0

    package init() {}

    package static func += (left: inout Summary, right: Summary) {
      left.steps += right.steps
      left.operations += right.operations
      left.calls += right.calls
      left.interludes += right.interludes
      left.reads += right.reads
      left.failedReads += right.failedReads
      left.starts += right.starts
      left.failedStarts += right.failedStarts
      left.kills += right.kills
      left.powerLosses += right.powerLosses
      left.faults += right.faults
      left.cuts += right.cuts
      left.lost += right.lost
      left.flips += right.flips
      left.noticedFlips += right.noticedFlips
      left.cleaned += right.cleaned
    }

    package var description: String {
      "\(operations) operations in \(steps) steps, \(calls) calls to the disk, \(interludes) interludes; "
        + "\(reads) reads, \(failedReads) of them failed; \(starts) starts, \(failedStarts) failed; \(kills) kills, "
        + "\(powerLosses) losses of power, \(faults) faults, \(cuts) cuts, \(lost) operations lost; "
        + "\(flips) bits flipped, \(noticedFlips) noticed; \(cleaned) segments cleaned"
    }
  }
}
