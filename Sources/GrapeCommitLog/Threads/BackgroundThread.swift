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
