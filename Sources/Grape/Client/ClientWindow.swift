internal import GrapeCore
internal import GrapeWire

/// A request of a `Client` and who waits for its answer.
struct ClientRequest: Sendable {
  enum Receiver: Sendable {
    case single(CheckedContinuation<ReceivedFrame, any Error>)
    case replies(ReplyBuffer)
  }

  var id: UInt64
  var frame: [ByteSlice]
  var size: Int
  var deadline: ContinuousClock.Instant
  /// CANCEL means something to the node for this request.
  var isCancellable: Bool
  var receiver: Receiver

  func fail(_ error: any Error) {
    switch receiver {
    case .single(let continuation): continuation.resume(throwing: error)
    case .replies(let buffer): buffer.finish(error)
    }
  }

  /// Hands an answer over. Returns whether the request is done, and an error that makes the client give it up.
  func take(_ answer: ReceivedFrame) -> Disposition {
    if let failure = answer.failure {
      fail(failure)
      return .done
    }
    let isFinal = answer.type != .reply || answer.flags & 1 != 0
    switch receiver {
    case .single(let continuation):
      guard isFinal else { return .more }
      continuation.resume(returning: answer)
      return .done
    case .replies(let buffer):
      guard buffer.take(answer, isFinal: isFinal) else { return .giveUp }
      return isFinal ? .done : .more
    }
  }

  enum Disposition { case done, more, giveUp }
}

/// Which requests of a client are under way and which wait for their turn. No I/O, no clock.
struct ClientWindow {
  private let limit: Int
  private let byteLimit: Int
  private var underWay: [UInt64: ClientRequest] = [:]
  private var waiting: [ClientRequest] = []
  private var waitingHead = 0
  private var bytes = 0
  /// No request's deadline is before this; it may be too early after removals.
  private(set) var earliestDeadline: ContinuousClock.Instant?

  init(limit: Int, byteLimit: Int) {
    self.limit = max(1, limit)
    self.byteLimit = byteLimit
  }

  private func hasRoom(_ size: Int) -> Bool {
    underWay.isEmpty || (underWay.count < limit && bytes + size <= byteLimit)
  }

  private mutating func begin(_ request: ClientRequest) -> [ByteSlice] {
    var kept = request
    kept.frame = []
    underWay[request.id] = kept
    bytes += request.size
    return request.frame
  }

  /// Takes a new request; returns what to send now.
  mutating func submit(_ request: ClientRequest) -> [ByteSlice] {
    earliestDeadline = min(earliestDeadline ?? request.deadline, request.deadline)
    guard waitingHead == waiting.count, hasRoom(request.size) else {
      waiting.append(request)
      return []
    }
    return begin(request)
  }

  /// Takes the requests that there is room for now; returns what to send.
  mutating func admitWaiting() -> [ByteSlice] {
    var frames: [ByteSlice] = []
    while waitingHead < waiting.count, hasRoom(waiting[waitingHead].size) {
      frames += begin(waiting[waitingHead])
      waitingHead += 1
    }
    if waitingHead == waiting.count || waitingHead > 1024 {
      waiting.removeFirst(waitingHead)
      waitingHead = 0
    }
    return frames
  }

  /// The request that an answer belongs to; nil for one that was given up.
  func request(_ id: UInt64) -> ClientRequest? { underWay[id] }

  /// Removes a request, under way or waiting. `wasSent`: whether the node knows of it.
  mutating func remove(_ id: UInt64) -> (request: ClientRequest, wasSent: Bool)? {
    if let request = underWay.removeValue(forKey: id) {
      bytes -= request.size
      return (request, true)
    }
    guard let index = waiting[waitingHead...].firstIndex(where: { $0.id == id }) else { return nil }
    return (waiting.remove(at: index), false)
  }

  /// Removes what is past its deadline at `now`.
  mutating func removeExpired(at now: ContinuousClock.Instant) -> [(request: ClientRequest, wasSent: Bool)] {
    guard let earliest = earliestDeadline, earliest <= now else { return [] }
    let expired =
      underWay.values.filter { $0.deadline <= now }.map { $0.id }
      + waiting[waitingHead...].filter { $0.deadline <= now }.map { $0.id }
    let removed = expired.compactMap { remove($0) }
    earliestDeadline =
      (underWay.values.map { $0.deadline } + waiting[waitingHead...].map { $0.deadline }).min()
    return removed
  }

  /// Removes everything.
  mutating func removeAll() -> [ClientRequest] {
    let all = Array(underWay.values) + waiting[waitingHead...]
    underWay = [:]
    waiting = []
    waitingHead = 0
    bytes = 0
    earliestDeadline = nil
    return all
  }
}
