extension EngineSimulation {
  /// What a run did, for those who want to know whether it was worth it.
  package struct Summary: Sendable, CustomStringConvertible {
    package var steps = 0
    /// Transactions that were handed to the log.
    package var commits = 0
    package var events = 0
    package var replies = 0
    package var deadLetters = 0
    /// From clients.
    package var appends = 0
    package var writes = 0
    package var reads = 0
    package var failedReads = 0
    package var workers = 0
    package var workerKills = 0
    package var deliveries = 0
    package var deployments = 0
    package var starts = 0
    package var restarts = 0
    package var kills = 0
    package var powerLosses = 0
    /// Commits that a start found missing, none of which had been acknowledged as so safe.
    package var lost = 0
    /// Calls to stores that failed.
    package var storeFaults = 0
    /// By the log, in the last life of the node.
    package var partitionsTaken = 0
    package var commitsRefused = 0
    /// Stores that were not trusted after a loss of power.
    package var storesDiscarded = 0

    package init() {}

    package static func += (left: inout Summary, right: Summary) {
      left.steps += right.steps
      left.commits += right.commits
      left.events += right.events
      left.replies += right.replies
      left.deadLetters += right.deadLetters
      left.appends += right.appends
      left.writes += right.writes
      left.reads += right.reads
      left.failedReads += right.failedReads
      left.workers += right.workers
      left.workerKills += right.workerKills
      left.deliveries += right.deliveries
      left.deployments += right.deployments
      left.starts += right.starts
      left.restarts += right.restarts
      left.kills += right.kills
      left.powerLosses += right.powerLosses
      left.lost += right.lost
      left.storeFaults += right.storeFaults
      left.storesDiscarded += right.storesDiscarded
      left.partitionsTaken += right.partitionsTaken
      left.commitsRefused += right.commitsRefused
    }

    package var description: String {
      "\(events) events, \(commits) commits in \(steps) steps; \(deliveries) deliveries to \(workers) workers, \(workerKills) "
        + "of them killed; \(replies) replies, \(deadLetters) dead letters; \(writes) writes, \(reads) reads, "
        + "\(failedReads) failed; \(starts) starts, \(kills) kills, \(powerLosses) losses of power, \(restarts) orderly "
        + "stops, \(deployments) deployments; \(lost) commits lost, \(storeFaults) faults of stores, \(storesDiscarded) "
        + "stores not trusted; \(partitionsTaken) partitions taken, \(commitsRefused) commits refused"
    }
  }
}
