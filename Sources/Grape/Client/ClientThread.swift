internal import CGrapeLinux
internal import Glibc

/// A detached thread for blocking work, off the cooperative pool.
enum ClientThread {
  private final class Body {
    let run: @Sendable () -> Void
    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
  }

  /// Runs `body` on a thread of its own; false if the system has none.
  static func start(_ body: @escaping @Sendable () -> Void) -> Bool {
    let context = Unmanaged.passRetained(Body(body))
    var attributes = pthread_attr_t()
    guard pthread_attr_init(&attributes) == 0 else {
      context.release()
      return false
    }
    defer { pthread_attr_destroy(&attributes) }
    pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    var thread = pthread_t()
    let result = pthread_create(
      &thread, &attributes,
      { context in
        guard let context else { return nil }
        Unmanaged<Body>.fromOpaque(context).takeRetainedValue().run()
        return nil
      }, context.toOpaque())
    guard result == 0 else {
      context.release()
      return false
    }
    return true
  }
}

/// An eventfd that wakes a thread out of poll(2).
final class WakeDescriptor: Sendable {
  let descriptor: Int32

  init() throws(ClientError) {
    descriptor = grape_eventfd()
    guard descriptor >= 0 else {
      throw ClientError(.unreachable, "no eventfd for the client: \(String(cString: strerror(errno)))")
    }
  }

  deinit { close(descriptor) }

  /// Makes the descriptor readable. A full counter is readable already.
  func signal() {
    var one: UInt64 = 1
    _ = write(descriptor, &one, 8)
  }

  /// Makes it unreadable again.
  func clear() {
    var count: UInt64 = 0
    _ = read(descriptor, &count, 8)
  }
}
