public import GrapeCore
public import GrapeReactor

/// What the sources of an application need of the node around them. Lives on the reactor's thread.
public struct SourceEnvironment {
  public var reactor: Reactor
  public var gate: CommitGate
  /// Where records are translated. May be the reactor itself, in tests.
  public var thread: Reactor
  /// Bytes of key + value + headers of one event.
  public var eventLimit: Int
  /// Bytes of a batch's records, unpacked.
  public var batchLimit: Int
  /// Writes to the application's log.
  public var note: (_ level: String, _ message: String) -> Void
  /// Told of events before the log is given them; returns what takes that back.
  public var arriving: (_ slot: EventName, _ arrivals: [SourceArrival]) -> () -> Void

  public init(
    reactor: Reactor, gate: CommitGate, thread: Reactor, eventLimit: Int, batchLimit: Int,
    note: @escaping (_ level: String, _ message: String) -> Void,
    arriving: @escaping (_ slot: EventName, _ arrivals: [SourceArrival]) -> () -> Void
  ) {
    self.reactor = reactor
    self.gate = gate
    self.thread = thread
    self.eventLimit = eventLimit
    self.batchLimit = batchLimit
    self.note = note
    self.arriving = arriving
  }
}

/// Events of one slot on their way into a partition of the application's input.
public struct SourceArrival: Sendable, Hashable {
  public var partition: Int32
  public var count: Int
  /// Greatest timestamp, milliseconds since 1970 UTC.
  public var timestamp: Int64

  public init(partition: Int32, count: Int, timestamp: Int64) {
    self.partition = partition
    self.count = count
    self.timestamp = timestamp
  }
}

extension ApplicationEngine {
  /// Counts events that a source is about to append; the result takes them back.
  public func noteArriving(_ slot: EventName, _ arrivals: [SourceArrival]) -> () -> Void {
    guard let index = slotNames.firstIndex(of: slot.text) else { return {} }
    let noted = arrivals.map { arrival -> Arrival in
      var counts = [Int](repeating: 0, count: slotNames.count)
      counts[index] = arrival.count
      return Arrival(partition: arrival.partition, counts: counts, timestamp: arrival.timestamp)
    }
    for arrival in noted { noteAppended(arrival) }
    let width = slotNames.count
    return { [self] in
      // Another version may have other slots by now; its counts are set right when the queue is empty.
      guard slotNames.count == width else { return }
      for arrival in noted { noteRefused(arrival) }
    }
  }

  /// Writes a line of the node's to the application's log.
  public func noteSource(_ level: String, _ message: String) { note(level, message) }
}
