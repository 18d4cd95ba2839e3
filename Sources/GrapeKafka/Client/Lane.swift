internal import GrapeLog
internal import Synchronization

/// A thread for calls that block, one after the other, from a queue of bounded length.
final class Lane: Sendable {
  private struct State {
    var jobs: [@Sendable () -> Void] = []
    var stopping = false
  }

  private let state = Mutex(State())
  private let wakeup = Wakeup()
  private let limit: Int

  init(_ name: String, limit: Int = 10_000) {
    self.limit = limit
    BackgroundThread.start(name) { self.run() }
  }

  /// Queues a job. Errors: `closed` after `stop`, `busy` if the queue is full; then the job will not be done.
  func add(_ job: @escaping @Sendable () -> Void) -> LogError? {
    let refusal = state.withLock { state -> LogError? in
      if state.stopping { return .closedLog }
      if state.jobs.count >= limit { return LogError(.busy, "\(limit) questions to Kafka wait already: try later") }
      state.jobs.append(job)
      return nil
    }
    if refusal == nil { wakeup.signal() }
    return refusal
  }

  /// Runs `body` on the lane and hands its result on; the refusal if the lane takes no more.
  func answer<Value: Sendable>(
    _ completion: @escaping @Sendable (Result<Value, LogError>) -> Void,
    _ body: @escaping @Sendable () throws(LogError) -> Value
  ) {
    let refusal = add {
      do throws(LogError) {
        completion(.success(try body()))
      } catch {
        completion(.failure(error))
      }
    }
    if let refusal { completion(.failure(refusal)) }
  }

  /// Does what is queued, then `last`, then ends. Only the first call counts.
  func stop(last: @escaping @Sendable () -> Void) {
    state.withLock { state in
      if state.stopping { return }
      state.stopping = true
      state.jobs.append(last)
    }
    wakeup.signal()
  }

  /// Tries `body` until it gives a value, waiting longer each time. Only on the lane. Errors: those of `body` that
  /// trying again does not help against; `busy` with the last of the others at the deadline.
  func retrying<Value>(
    until deadline: Int64, _ doing: String, _ body: (Int) throws(LogError) -> Value?
  ) throws(LogError) -> Value {
    let pause = Wakeup()
    var milliseconds = 2
    var last = LogError(.busy, "Kafka: \(doing): not done in time, may be tried again")
    while true {
      do throws(LogError) {
        if let value = try body(MonotonicClock.milliseconds(until: deadline)) { return value }
      } catch {
        guard error.code == .busy else { throw error }
        last = error
      }
      guard MonotonicClock.after(milliseconds: milliseconds) < deadline else { throw last }
      pause.wait(until: MonotonicClock.after(milliseconds: milliseconds))
      milliseconds = min(milliseconds * 2, 200)
    }
  }

  private func run() {
    while true {
      let (jobs, stopping) = state.withLock { state in
        defer { state.jobs = [] }
        return (state.jobs, state.stopping)
      }
      for job in jobs { job() }
      if stopping { return }
      if jobs.isEmpty { wakeup.wait() }
    }
  }
}

extension LogError {
  static let closedLog = LogError(.closed, "the log is closed")
}
