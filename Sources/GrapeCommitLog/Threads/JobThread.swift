import CGrapeLinux
import GrapeLog
import Synchronization

/// A thread that does jobs in order, from a queue of bounded length.
final class JobThread: JobQueue {
  private struct State {
    var jobs: [@Sendable () -> Void] = []
    var stopping = false
  }

  private let state = Mutex(State())
  private let wake = ThreadSignal()
  private let limit: Int

  private let interval: Int64?
  private let tick: @Sendable () -> Void

  /// `tick` is called about every `interval` nanoseconds, between jobs; never if that is nil.
  init(name: String, limit: Int, every interval: Int64? = nil, tick: @escaping @Sendable () -> Void = {}) {
    self.limit = limit
    self.interval = interval
    self.tick = tick
    BackgroundThread.start(name) { self.run() }
  }

  /// False if the queue is full or the thread was told to stop.
  func add(_ job: @escaping @Sendable () -> Void) -> Bool {
    let added = state.withLock { state in
      if state.stopping || state.jobs.count >= limit { return false }
      state.jobs.append(job)
      return true
    }
    if added { wake.signal() }
    return added
  }

  /// Does what is queued, then `last`, then ends. Only the first call counts.
  func stop(last: @escaping @Sendable () -> Void) {
    state.withLock { state in
      if state.stopping { return }
      state.stopping = true
      state.jobs.append(last)
    }
    wake.signal()
  }

  private func run() {
    var due = interval.map { grape_monotonic_ns() + $0 }
    while true {
      let (jobs, stopping) = state.withLock { state in
        defer { state.jobs = [] }
        return (state.jobs, state.stopping)
      }
      for job in jobs { job() }
      if stopping { return }
      if let now = due, let interval, grape_monotonic_ns() >= now {
        tick()
        due = grape_monotonic_ns() + interval
      } else if jobs.isEmpty {
        wake.wait(until: due)
      }
    }
  }
}
