import GrapeLog
import Synchronization

/// Operations waiting to be written, and the writing role: at most one thread holds it, and only the holder touches
/// the `GroupWriter`.
///
/// Legal order of phases: open, then closing, then closed; failed from open or closing.
final class CommitQueue: Sendable {
  enum Phase: Sendable {
    case open
    /// Accepted operations are still written.
    case closing
    case closed
    case failed(LogError)
  }

  private struct State: Sendable {
    var waiting: [Operation] = []
    var waitingBytes = 0
    /// Of the operations that the role's holder has taken.
    var takenBytes = 0
    var held = false
    var phase = Phase.open
  }

  /// What `add` found.
  enum Added {
    /// Somebody must be woken to write.
    case wake
    /// The role's holder, or a promised call of `assist`, will see to it.
    case cared
    case refused(LogError)
  }

  /// What the writing thread should do.
  enum Work {
    case write([Operation])
    case wait
    /// Everything is written and nothing more will come.
    case finish
    case stop
  }

  private let state = Mutex(State())
  private let byteLimit: Int

  init(byteLimit: Int) { self.byteLimit = byteLimit }

  /// `deferred`: the caller promises to see to the writing.
  func add(_ operation: Operation, deferred: Bool) -> Added {
    state.withLock { state in
      switch state.phase {
      case .open: break
      case .closing, .closed: return .refused(LogError(.closed, "the log is closed"))
      case .failed(let error): return .refused(error)
      }
      let queued = state.waitingBytes + state.takenBytes
      // An operation that alone is larger than the limit is taken when nothing else is there.
      guard queued == 0 || queued + operation.bytes <= byteLimit else {
        return .refused(
          LogError(.busy, "\(queued) bytes of commits are waiting, the limit is \(byteLimit): try again later"))
      }
      state.waiting.append(operation)
      state.waitingBytes += operation.bytes
      return deferred || state.held ? .cared : .wake
    }
  }

  /// The writing thread asks what to do. With `.write` it holds the role.
  func take() -> Work {
    state.withLock { state in
      if state.held { return .wait }
      if state.waiting.isEmpty {
        switch state.phase {
        case .open: return .wait
        case .closing:
          state.held = true
          return .finish
        case .closed, .failed: return .stop
        }
      }
      return .write(Self.takeAll(&state))
    }
  }

  /// What `assist` found.
  enum Assistance {
    case write([Operation])
    case wake
    case nothing
  }

  /// Another thread offers to write at most `limit` bytes itself. With `.write` it holds the role.
  func takeIfSmall(_ limit: Int) -> Assistance {
    state.withLock { state in
      if state.held || state.waiting.isEmpty { return .nothing }
      return state.waitingBytes <= limit ? .write(Self.takeAll(&state)) : .wake
    }
  }

  private static func takeAll(_ state: inout State) -> [Operation] {
    state.held = true
    state.takenBytes = state.waitingBytes
    state.waitingBytes = 0
    let taken = state.waiting
    state.waiting = []
    state.waiting.reserveCapacity(min(taken.count, 1_024))
    return taken
  }

  /// The holder tells that `bytes` of what it took are done, so that others may come in.
  func finished(bytes: Int) { state.withLock { $0.takenBytes -= bytes } }

  /// Gives the role back; true if there is more to do.
  func release() -> Bool {
    state.withLock { state in
      state.held = false
      state.takenBytes = 0
      if case .closing = state.phase { return true }
      return !state.waiting.isEmpty
    }
  }

  /// No more operations from now on; false if that was so already.
  func beginClosing() -> Bool {
    state.withLock { state in
      switch state.phase {
      case .open:
        state.phase = .closing
        return true
      case .failed, .closing, .closed: return false
      }
    }
  }

  func finishClosing() {
    state.withLock { state in
      state.phase = .closed
      state.held = false
    }
  }

  /// A write failed: returns what waited, to be answered. There is nothing left to hold the role for.
  func fail(_ error: LogError) -> [Operation] {
    state.withLock { state in
      state.phase = .failed(error)
      state.held = false
      state.waitingBytes = 0
      defer { state.waiting = [] }
      return state.waiting
    }
  }

  var phase: Phase { state.withLock { $0.phase } }
}
