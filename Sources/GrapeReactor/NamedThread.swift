internal import CGrapeLinux
internal import Glibc

/// Starts a thread that runs `body` to its end. The name (at most 15 bytes) shows in `top -H` and in profiles.
public func startThread(name: String, _ body: @escaping @Sendable () -> Void) throws(SystemError) {
  let box = Unmanaged.passRetained(ThreadBody(name: name, body: body))
  var attributes = pthread_attr_t()
  pthread_attr_init(&attributes)
  defer { pthread_attr_destroy(&attributes) }
  pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
  var thread = pthread_t()
  let result = pthread_create(
    &thread, &attributes,
    { argument in
      let body = Unmanaged<ThreadBody>.fromOpaque(argument!).takeRetainedValue()
      grape_name_thread(body.name)
      body.body()
      return nil
    }, box.toOpaque())
  guard result == 0 else {
    box.release()
    throw SystemError("pthread_create \(name)", errno: result)
  }
}

private final class ThreadBody {
  let name: String
  let body: @Sendable () -> Void

  init(name: String, body: @escaping @Sendable () -> Void) {
    self.name = name
    self.body = body
  }
}
