import CGrapeLinux
import Glibc
import Synchronization

/// SIGINT and SIGTERM as a readable descriptor instead of a sudden end. A second signal ends the process at once.
///
/// A handler and not a blocked signal, because threads of the runtime may exist already, and one that does not block the
/// signal would get it.
struct Interrupts {
  /// Readable once a signal has come; it stays so.
  let descriptor: Int32

  /// Whether a signal has come.
  var pending: Bool { interruptSeen.load(ordering: .relaxed) }

  /// Takes the signals over, for the rest of the process's life. To be made once.
  init() throws {
    descriptor = grape_eventfd()
    guard descriptor >= 0 else { throw CommandFailure(.internal, "no eventfd: \(String(cString: strerror(errno)))") }
    // Both globals are touched here, before a handler can run, so that the handler does not initialise them.
    interruptDescriptor.store(descriptor, ordering: .relaxed)
    interruptSeen.store(false, ordering: .relaxed)
    for number in [SIGINT, SIGTERM] {
      let previous = signal(number) { _ in
        if interruptSeen.exchange(true, ordering: .relaxed) { _exit(GrapeExit.interrupted.rawValue) }
        let before = errno
        var one: UInt64 = 1
        _ = write(interruptDescriptor.load(ordering: .relaxed), &one, 8)
        errno = before
      }
      // Ignored from the beginning (a background job of a script): it stays so.
      if let previous, unsafeBitCast(previous, to: Int.self) == 1 { signal(number, SIG_IGN) }
    }
  }
}

private let interruptSeen = Atomic<Bool>(false)
private let interruptDescriptor = Atomic<Int32>(-1)
