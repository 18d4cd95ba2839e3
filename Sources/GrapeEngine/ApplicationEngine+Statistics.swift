public import GrapeCore
internal import GrapeLog
internal import GrapeReactor
internal import GrapeWorkers

/// Figures.
extension ApplicationEngine {
  /// Events not dealt with.
  public var lag: Int64 { waiting }

  /// Whether the queue has room for more events, by the profile's limit.
  public var admitsEvents: Bool { profile.queueLimit == 0 || waiting < Int64(profile.queueLimit) }

  /// Nothing waits, nothing is at a worker, and what was done is in the log. If all applications are idle in one turn of the
  /// reactor nothing is on its way from one to another either: an event that is emitted waits at its new place as soon
  /// as the one it comes from is done.
  public var isIdle: Bool {
    state != .loading && waiting == 0 && unfinishedCommits == 0 && lanes.allSatisfy { $0.delivery == nil }
      && tenures.allSatisfy(\.isAtRest) && !awaitsGroup
      && here.allSatisfy { stateGates[$0].isSettled && chores[$0].isIdle && offsetPacing[$0].due == nil }
  }

  /// It is not known yet which partitions are this engine's.
  private var awaitsGroup: Bool {
    awaitsGroupSince.map { reactor.clock.monotonic - $0 < Self.groupPatience } ?? false
  }

  /// Whether an event has been handed to a worker (or may have been).
  public func wasDelivered(partition: Int32, offset: Int64) -> Bool {
    guard isHere(partition) else { return true }
    let lane = lanes[Int(partition)]
    return offset < (lane.delivery?.end ?? lane.processed)
  }

  /// The end of a partition of the input as far as it is known: the next event's offset is at or above it.
  public func knownEnd(of partition: Int32) -> Int64 { isHere(partition) ? lanes[Int(partition)].end : 0 }

  /// Whether a partition is this engine's and at work.
  public func isHere(_ partition: Int32) -> Bool {
    tenures.indices.contains(Int(partition)) && tenures[Int(partition)].isHere
  }

  /// A result was committed.
  func record(_ result: WorkerResult, delivery: LaneStateMachine.Delivery) {
    let latency = Self.age(of: delivery.timestamp, now: reactor.clock.wall) * 1000
    for tally in result.tallies {
      statistics[tally.slot].processed += tally.succeeded
      statistics[tally.slot].failed += tally.failed
      statistics[tally.slot].handlerNanoseconds += tally.nanoseconds
      statistics[tally.slot].rate.add(tally.succeeded + tally.failed, now: reactor.now)
      statistics[tally.slot].record(latencyMicroseconds: latency, count: tally.succeeded)
    }
  }

  /// Milliseconds since `timestamp`, which a client may have set to anything: 0 to a hundred years.
  private static func age(of timestamp: Int64, now: Int64) -> Int64 {
    min(max(0, now.subtractingReportingOverflow(max(0, timestamp)).partialValue), 3_155_760_000_000)
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
    var counts = [Int](repeating: 0, count: slotNames.count)
    var oldest = [Int64?](repeating: nil, count: slotNames.count)
    for backlog in backlogs { backlog.report(counts: &counts, oldest: &oldest) }
    let today = reactor.clock.wall
    let ages = oldest.map { $0.map { Self.age(of: $0, now: today) } ?? 0 }
    var rate = 0.0
    var slots: [JSONValue] = []
    for index in slotNames.indices {
      let slotRate = statistics[index].rate.perSecond(now: now)
      rate += slotRate
      slots.append(slotJSON(index, rate: slotRate, lag: counts[index], oldest: ages[index]))
    }
    let partitions: [JSONValue] = here.map { index in
      let (lane, backlog) = (lanes[index], backlogs[index])
      return [
        "partition": JSONValue(lane.partition), "end": .int(backlog.end), "committed": .int(lane.committed),
        "lag": .int(backlog.count), "inFlight": .int(lane.delivery.map { $0.end - $0.first } ?? 0),
      ]
    }
    return [
      "name": .string(name.text), "state": .string(reportedState), "problem": JSONValue(problem), "workers": workers,
      "lag": .int(lag), "oldestMs": .int(ages.max() ?? 0), "idle": .bool(isIdle),
      "counting": .bool(backlogs.contains { $0.isCounting }), "deadLetters": JSONValue(deadLetters),
      "retries": JSONValue(retries), "rate": .double(rate), "slots": .array(slots), "partitions": .array(partitions),
    ]
  }

  private func slotJSON(_ index: Int, rate: Double, lag: Int, oldest: Int64) -> JSONValue {
    let slot = statistics[index]
    let handled = slot.processed + slot.failed
    return [
      "name": .string(slotNames[index]), "processed": JSONValue(slot.processed), "failed": JSONValue(slot.failed),
      "lag": JSONValue(lag), "oldestMs": .int(oldest), "rate": .double(rate),
      "latencyMs": [
        "p50": .double(slot.latencyMilliseconds(atPercentile: 50)),
        "p90": .double(slot.latencyMilliseconds(atPercentile: 90)),
        "p99": .double(slot.latencyMilliseconds(atPercentile: 99)),
        "max": .double(slot.latencyMilliseconds(atPercentile: 100)),
      ],
      "handlerMicros": .double(handled == 0 ? 0 : Double(slot.handlerNanoseconds) / 1000 / Double(handled)),
    ]
  }

  /// `loading` (where it stands is being found out), `running`, `stopped` or `failed`.
  public var reportedState: String {
    switch state {
    case .stopping, .stopped: "stopped"
    case .loading where problem == nil: "loading"
    case .loading, .running: problem == nil ? "running" : "failed"
    }
  }

  /// Workers ready to work.
  public var liveWorkers: Int { readySessions.count }
}
