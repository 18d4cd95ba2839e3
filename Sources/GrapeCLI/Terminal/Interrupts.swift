import CGrapeLinux
import Glibc
import Synchronization

/// SIGINT and SIGTERM as a readable descriptor instead of a sudden end. A second signal ends the process at once.
final class Interrupts: Sendable {
  /// Readable once a signal has come; it stays so.
  let descriptor: Int32
  private let seen = Atomic<Bool>(false)

  /// Whether a signal has come.
  var pending: Bool { seen.load(ordering: .relaxed) }

  /// Takes the signals over. To be called on the main thread before there are others: they inherit that the signals are blocked.
  init() throws {
    descriptor = grape_eventfd()
    guard descriptor >= 0 else { throw CommandFailure(.internal, "no eventfd: \(String(cString: strerror(errno)))") }
    var signals = sigset_t()
    sigemptyset(&signals)
    sigaddset(&signals, SIGINT)
    sigaddset(&signals, SIGTERM)
    pthread_sigmask(SIG_BLOCK, &signals, nil)
    var thread = pthread_t()
    let context = Unmanaged.passRetained(self)
    let result = pthread_create(
      &thread, nil,
      { context in
        guard let context else { return nil }
        Unmanaged<Interrupts>.fromOpaque(context).takeRetainedValue().watch()
        return nil
      }, context.toOpaque())
    guard result == 0 else {
      context.release()
      throw CommandFailure(.internal, "no thread for signals: \(String(cString: strerror(result)))")
    }
    pthread_detach(thread)
  }

  private func watch() {
    var signals = sigset_t()
    sigemptyset(&signals)
    sigaddset(&signals, SIGINT)
    sigaddset(&signals, SIGTERM)
    var number: Int32 = 0
    while true {
      guard sigwait(&signals, &number) == 0 else { return }
      if seen.exchange(true, ordering: .relaxed) { _exit(GrapeExit.interrupted.rawValue) }
      var one: UInt64 = 1
      _ = write(descriptor, &one, 8)
    }
  }
}
