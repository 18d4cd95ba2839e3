import Glibc

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
    var attributes = pthread_condattr_t()
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(condition, &attributes)
    pthread_condattr_destroy(&attributes)
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

  /// True if `wait` would return at once.
  var isSignalled: Bool {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return signalled
  }

  /// Returns when there was a signal, or at `deadline` (nanoseconds of the monotonic clock).
  func wait(until deadline: Int64? = nil) {
    pthread_mutex_lock(mutex)
    while !signalled {
      guard let deadline else {
        pthread_cond_wait(condition, mutex)
        continue
      }
      var time = timespec(tv_sec: Int(deadline / 1_000_000_000), tv_nsec: Int(deadline % 1_000_000_000))
      if pthread_cond_timedwait(condition, mutex, &time) == ETIMEDOUT { break }
    }
    signalled = false
    pthread_mutex_unlock(mutex)
  }
}
