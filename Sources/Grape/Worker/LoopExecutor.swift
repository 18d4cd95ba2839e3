internal import CGrapeLinux
internal import Glibc
internal import Synchronization

/// Runs the jobs of `async` handlers on the worker's thread, between frames.
final class LoopExecutor: TaskExecutor {
  private struct State {
    var jobs: [UnownedJob] = []
    var owner: pthread_t?
  }

  private let state = Mutex(State())
  /// Readable once something wants the worker's thread.
  let wakeDescriptor: Int32

  /// Fails with errno if the system gives no descriptor.
  init?() {
    wakeDescriptor = grape_eventfd()
    if wakeDescriptor < 0 { return nil }
  }

  deinit { close(wakeDescriptor) }

  /// Makes the calling thread the one that runs the jobs.
  func adoptThread() { state.withLock { $0.owner = pthread_self() } }

  func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    let isForeign = state.withLock { state in
      state.jobs.append(job)
      return state.owner.map { pthread_equal($0, pthread_self()) == 0 } ?? true
    }
    if isForeign { wake() }
  }

  /// Ends the wait of the worker's thread. Safe in a signal handler.
  func wake() { LoopExecutor.wake(wakeDescriptor) }

  static func wake(_ descriptor: Int32) {
    var one: UInt64 = 1
    // EAGAIN: the counter is full, so the thread is being woken already. Other errors cannot be.
    while write(descriptor, &one, 8) < 0, errno == EINTR {}
  }

  /// Forgets that it was woken.
  func clearWake() {
    var count: UInt64 = 0
    while read(wakeDescriptor, &count, 8) < 0, errno == EINTR {}
  }

  /// Runs the jobs that wait, and those that they enqueue for a while. False if there were none.
  func runJobs() -> Bool {
    let jobs = state.withLock { state in
      var jobs: [UnownedJob] = []
      swap(&jobs, &state.jobs)
      return jobs
    }
    for job in jobs { job.runSynchronously(on: asUnownedTaskExecutor()) }
    return !jobs.isEmpty
  }
}
