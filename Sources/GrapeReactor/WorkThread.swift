internal import Glibc

/// A thread for work that blocks (files, archives), as the executor of an actor: such work must not sit on the threads that run all other
/// tasks.
public final class WorkThread: SerialExecutor, @unchecked Sendable {
  // Sendable: `jobs` is guarded by `mutex`.
  private var jobs: [UnownedJob] = []
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

  /// Starts the thread; it lives as long as the process.
  public init(name: String) throws(SystemError) {
    pthread_mutex_init(mutex, nil)
    pthread_cond_init(condition, nil)
    try startThread(name: name) { [self] in run() }
  }

  public func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    pthread_mutex_lock(mutex)
    jobs.append(job)
    pthread_cond_signal(condition)
    pthread_mutex_unlock(mutex)
  }

  private func run() {
    while true {
      pthread_mutex_lock(mutex)
      while jobs.isEmpty { pthread_cond_wait(condition, mutex) }
      let ready = jobs
      jobs.removeAll(keepingCapacity: true)
      pthread_mutex_unlock(mutex)
      for job in ready { job.runSynchronously(on: asUnownedSerialExecutor()) }
    }
  }
}
