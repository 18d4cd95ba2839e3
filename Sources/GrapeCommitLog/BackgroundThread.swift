import Glibc
import Synchronization

/// A thread that the log owns. Its body gets no arguments; it ends when the body returns.
enum BackgroundThread {
  private final class Start {
    let name: String
    let body: @Sendable () -> Void

    init(_ name: String, _ body: @escaping @Sendable () -> Void) {
      self.name = name
      self.body = body
    }
  }

  /// Starts a thread; `name` (at most 15 bytes) shows in `top` and `perf`.
  static func start(_ name: String, _ body: @escaping @Sendable () -> Void) {
    // Signals are for the thread that asked for them, not for ours.
    var all = sigset_t()
    var before = sigset_t()
    sigfillset(&all)
    pthread_sigmask(SIG_SETMASK, &all, &before)
    defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
    var thread = pthread_t()
    let result = pthread_create(
      &thread, nil,
      { argument in
        let start = Unmanaged<Start>.fromOpaque(argument!).takeRetainedValue()
        setName(start.name)
        start.body()
        return nil
      }, Unmanaged.passRetained(Start(name, body)).toOpaque())
    precondition(result == 0, "cannot start a thread: pthread_create: \(SystemCall.describe(result))")
    pthread_detach(thread)
  }
}

/// Names the calling thread. Only for people who watch it, so a failure is none.
private func setName(_ name: String) {
  let file = open("/proc/thread-self/comm", O_WRONLY | O_CLOEXEC)
  if file < 0 { return }
  _ = write(file, name, name.utf8.count)
  close(file)
}

/// Wakes a thread. A signal that comes while nobody waits is kept for the next wait.
final class ThreadSignal: @unchecked Sendable {
  // Both are set up before anyone else can see them and used only through the pthread calls.
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let condition: UnsafeMutablePointer<pthread_cond_t>
  private var signalled = false

  init() {
    mutex = .allocate(capacity: 1)
    condition = .allocate(capacity: 1)
    pthread_mutex_init(mutex, nil)
    pthread_cond_init(condition, nil)
  }

  deinit {
    pthread_cond_destroy(condition)
    pthread_mutex_destroy(mutex)
    condition.deallocate()
    mutex.deallocate()
  }

  func signal() {
    pthread_mutex_lock(mutex)
    signalled = true
    pthread_mutex_unlock(mutex)
    pthread_cond_signal(condition)
  }

  func wait() {
    pthread_mutex_lock(mutex)
    while !signalled { pthread_cond_wait(condition, mutex) }
    signalled = false
    pthread_mutex_unlock(mutex)
  }
}

/// A thread that does jobs in order, from a queue of bounded length.
final class JobThread: Sendable {
  private struct State {
    var jobs: [@Sendable () -> Void] = []
    var stopping = false
  }

  private let state = Mutex(State())
  private let wake = ThreadSignal()
  private let limit: Int

  init(name: String, limit: Int) {
    self.limit = limit
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
    while true {
      let (jobs, stopping) = state.withLock { state in
        defer { state.jobs = [] }
        return (state.jobs, state.stopping)
      }
      for job in jobs { job() }
      if stopping { return }
      if jobs.isEmpty { wake.wait() }
    }
  }
}
