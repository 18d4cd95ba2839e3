internal import CGrapeLinux
internal import Glibc

/// A thread that a log owns. Its body gets no arguments; it ends when the body returns.
package enum BackgroundThread {
  private final class Start {
    let name: String
    let body: @Sendable () -> Void

    init(_ name: String, _ body: @escaping @Sendable () -> Void) {
      self.name = name
      self.body = body
    }
  }

  /// Starts a thread; `name` (at most 15 bytes) shows in `top` and `perf`.
  package static func start(_ name: String, _ body: @escaping @Sendable () -> Void) {
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
        grape_name_thread(start.name)
        start.body()
        return nil
      }, Unmanaged.passRetained(Start(name, body)).toOpaque())
    precondition(result == 0, "cannot start a thread: pthread_create: error \(result)")
    pthread_detach(thread)
  }
}
