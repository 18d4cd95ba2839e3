internal import GrapeCore
internal import GrapeReactor
internal import GrapeWire
internal import GrapeWorkers

/// One worker as its engine sees it: the process, the connection once it has said hello, and what it was given.
final class WorkerSession {
  let id: Int
  let name: String
  /// Good for one hello.
  var token: String?
  var process: (any RunningWorker)?
  var connection: (any FrameChannel)?
  /// Unanswered deliveries: partition by delivery id.
  var deliveries: [UInt64: Int32] = [:]
  var turns = SuspectTurns()
  var acceptsZstd = false
  /// Questions about state that were not answered yet.
  var questions = 0
  var isDraining = false
  /// It was told to go (by us): its end is no failure of the events it holds.
  var wasReleased = false
  /// Why it was killed, if it was.
  var condemnation: String?

  /// When anything was heard of it last, monotonic.
  var lastHeard: Int64
  /// The delivery it said it is working on, how far it was, and since when that has not changed.
  var current: UInt64 = 0
  var currentDone: UInt32 = 0
  var unchangedSince: Int64

  init(id: Int, name: String, token: String, now: Int64) {
    self.id = id
    self.name = name
    self.token = token
    lastHeard = now
    unchangedSince = now
  }

  var isReady: Bool { connection != nil && !isDraining }

  /// Notes that a delivery came back.
  func answered(_ delivery: UInt64, now: Int64) {
    deliveries[delivery] = nil
    turns.answered()
    lastHeard = now
    unchangedSince = now
  }

  /// Notes a heartbeat.
  func heard(delivery: UInt64, done: UInt32, now: Int64) {
    lastHeard = now
    if delivery != current || done != currentDone {
      current = delivery
      currentDone = done
      unchangedSince = now
    }
  }

  func disconnect() {
    connection?.close()
    connection = nil
  }
}
