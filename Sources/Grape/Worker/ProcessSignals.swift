internal import Glibc
internal import Synchronization

/// The worker's answer to signals: SIGTERM asks it to end what it has and go; Ctrl-C at the node's terminal is the node's
/// business; a broken pipe is an error of the call.
enum ProcessSignals {
  private static let wakeDescriptor = Atomic<Int32>(-1)
  private static let wasTerminated = Atomic<Bool>(false)

  /// SIGTERM has come.
  static var isTerminated: Bool { wasTerminated.load(ordering: .acquiring) }

  /// From now on SIGTERM makes `wake` readable.
  static func install(waking wake: Int32) {
    // Before the handler: it must find both initialised.
    wakeDescriptor.store(wake, ordering: .releasing)
    wasTerminated.store(false, ordering: .releasing)
    signal(SIGINT, SIG_IGN)
    signal(SIGPIPE, SIG_IGN)
    var action = sigaction()
    action.sa_flags = SA_RESTART
    action.__sigaction_handler.sa_handler = { _ in
      let saved = errno
      ProcessSignals.wasTerminated.store(true, ordering: .releasing)
      LoopExecutor.wake(ProcessSignals.wakeDescriptor.load(ordering: .acquiring))
      errno = saved
    }
    sigaction(SIGTERM, &action, nil)
  }
}
