internal import CGrapeLinux
public import GrapeCore
internal import GrapeLog
internal import GrapeReactor
internal import GrapeWorkers

/// Figures.
extension ApplicationEngine {
  /// Events not dealt with.
  public var lag: Int64 { lanes.reduce(0) { $0 + $1.lag } }

  /// Events were appended to the input topic: one count per slot.
  public func noteAppended(_ counts: [Int]) {
    for (slot, count) in counts.enumerated() where slot < statistics.count { statistics[slot].queued += count }
  }

  /// Whether the queue has room for more events, by the profile's limit.
  public var admitsEvents: Bool {
    profile.queueLimit == 0 || statistics.reduce(0) { $0 + $1.queued } < profile.queueLimit
  }

  /// Whether an event has been handed to a worker (or may have been).
  public func wasDelivered(partition: Int32, offset: Int64) -> Bool {
    guard lanes.indices.contains(Int(partition)) else { return true }
    let lane = lanes[Int(partition)]
    return offset < (lane.delivery?.end ?? lane.processed)
  }

  /// Older events count as so old: a year, milliseconds.
  private static let longestLatency: Int64 = 366 * 86_400_000

  /// A result was committed.
  func record(_ result: WorkerResult, delivery: LaneStateMachine.Delivery) {
    // Timestamps are the sender's word: anything that a validated batch may hold.
    let age = min(max(0, grape_realtime_ms() - delivery.timestamp), Self.longestLatency)
    let latency = age * 1000
    for tally in result.tallies {
      statistics[tally.slot].processed += tally.succeeded
      statistics[tally.slot].failed += tally.failed
      statistics[tally.slot].handlerNanoseconds += tally.nanoseconds
      statistics[tally.slot].queued = max(0, statistics[tally.slot].queued - tally.succeeded - tally.failed)
      statistics[tally.slot].rate.add(tally.succeeded + tally.failed, now: reactor.now)
      statistics[tally.slot].record(latencyMicroseconds: latency, count: tally.succeeded)
    }
    // Expired and set-aside events are in no tally; an empty queue settles the account.
    if lag == 0 {
      for slot in statistics.indices { statistics[slot].queued = 0 }
    }
  }

  /// As in the answer to `stats`.
  public func statisticsJSON() -> JSONValue {
    let now = reactor.now
    var busy = 0
    for session in sessions.values where !session.deliveries.isEmpty { busy += 1 }
    let workers: JSONValue = [
      "live": JSONValue(readySessions.count), "starting": JSONValue(pool.startingCount), "busy": JSONValue(busy),
      "min": JSONValue(profile.workers.min), "max": JSONValue(profile.workers.max),
      "restarts": JSONValue(pool.failures), "started": JSONValue(pool.spawned),
    ]
    var rate = 0.0
    var slots: [JSONValue] = []
    for index in slotNames.indices {
      let slotRate = statistics[index].rate.perSecond(now: now)
      rate += slotRate
      slots.append(slotJSON(index, rate: slotRate))
    }
    let partitions: [JSONValue] = lanes.map { lane in
      [
        "partition": JSONValue(lane.partition), "end": .int(lane.end), "committed": .int(lane.committed),
        "lag": .int(lane.lag), "inFlight": .int(lane.delivery.map { $0.end - $0.first } ?? 0),
      ]
    }
    return [
      "name": .string(name.text), "state": .string(reportedState), "problem": JSONValue(problem), "workers": workers,
      "lag": .int(lag), "oldestMs": .int(oldestMilliseconds), "deadLetters": JSONValue(deadLetters),
      "retries": JSONValue(retries), "rate": .double(rate), "slots": .array(slots), "partitions": .array(partitions),
    ]
  }

  private func slotJSON(_ index: Int, rate: Double) -> JSONValue {
    let slot = statistics[index]
    let handled = slot.processed + slot.failed
    return [
      "name": .string(slotNames[index]), "processed": JSONValue(slot.processed), "failed": JSONValue(slot.failed),
      "lag": JSONValue(slot.queued), "rate": .double(rate),
      "latencyMs": [
        "p50": .double(slot.latencyMilliseconds(atPercentile: 50)),
        "p90": .double(slot.latencyMilliseconds(atPercentile: 90)),
        "p99": .double(slot.latencyMilliseconds(atPercentile: 99)),
        "max": .double(slot.latencyMilliseconds(atPercentile: 100)),
      ],
      "handlerMicros": .double(handled == 0 ? 0 : Double(slot.handlerNanoseconds) / 1000 / Double(handled)),
    ]
  }

  /// `running`, `stopped` or `failed`.
  public var reportedState: String {
    switch state {
    case .stopping, .stopped: "stopped"
    case .loading, .running: problem == nil ? "running" : "failed"
    }
  }

  /// Age of the oldest event not dealt with, as far as the lanes have it at hand; 0 if there is none.
  private var oldestMilliseconds: Int64 {
    let now = grape_realtime_ms()
    return lanes.compactMap { lane -> Int64? in
      guard lane.lag > 0, let batch = lane.firstBatch else { return nil }
      return max(0, now - batch.maxTimestamp)
    }.max() ?? 0
  }

  /// Workers ready to work.
  public var liveWorkers: Int { readySessions.count }
}
