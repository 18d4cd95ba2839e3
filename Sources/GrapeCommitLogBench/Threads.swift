import Glibc
import Synchronization

/// A counting semaphore.
final class Semaphore: @unchecked Sendable {
  private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)

  init() { sem_init(semaphore, 0, 0) }

  deinit {
    sem_destroy(semaphore)
    semaphore.deallocate()
  }

  func signal() { sem_post(semaphore) }
  func wait() { while sem_wait(semaphore) != 0 {} }
}

/// What is raised once and seen by others.
final class Flag: Sendable {
  private let state = Atomic(false)
  var isUp: Bool { state.load(ordering: .acquiring) }
  func raise() { state.store(true, ordering: .releasing) }
  func lower() { state.store(false, ordering: .relaxed) }
}

/// A thread that can be waited for.
final class Worker: Sendable {
  private let ended = Semaphore()

  private final class Body {
    let run: @Sendable () -> Void
    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
  }

  init(_ body: @escaping @Sendable () -> Void) {
    let ended = ended
    let start = Unmanaged.passRetained(
      Body {
        body()
        ended.signal()
      })
    var thread = pthread_t()
    let result = pthread_create(
      &thread, nil,
      { argument in
        Unmanaged<Body>.fromOpaque(argument!).takeRetainedValue().run()
        return nil
      }, start.toOpaque())
    if result != 0 { fail("pthread_create: \(String(cString: strerror(result)))") }
    pthread_detach(thread)
  }

  /// Waits for its end. To be called once.
  func join() { ended.wait() }
}

/// Sleeps until `deadline` (nanoseconds of the monotonic clock).
func sleep(until deadline: Int64) {
  var time = timespec(tv_sec: Int(deadline / 1_000_000_000), tv_nsec: Int(deadline % 1_000_000_000))
  while clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nil) == EINTR {}
}
