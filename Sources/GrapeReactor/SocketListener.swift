internal import CGrapeLinux
internal import Glibc

/// Accepts connections on a Unix socket that only its owner may open.
public final class SocketListener {
  /// Path of the socket.
  public let path: String
  private let reactor: Reactor
  private let descriptor: Int32
  private var source: Reactor.SourceID?
  private var onAccept: ((Int32) -> Void)?

  /// Listens at `path` with the given file permissions. A socket left behind by a dead process must have been removed by the caller.
  public init(path: String, mode: UInt32 = 0o600, reactor: Reactor) throws(SystemError) {
    self.path = path
    self.reactor = reactor
    descriptor = try system("listen on \(path)") { grape_unix_listen(path, 512, mode) }
  }

  deinit { if source != nil { close() } }

  /// Begins to accept; `accept` owns the descriptors it is given (non-blocking).
  public func start(accept: @escaping (Int32) -> Void) throws(SystemError) {
    onAccept = accept
    source = try reactor.watch(descriptor, for: .read) { [unowned self] _ in acceptAll() }
  }

  private func acceptAll() {
    // Bounded per turn; level-triggered readiness brings the rest.
    for _ in 0..<64 {
      let accepted = grape_accept(descriptor)
      if accepted >= 0 {
        onAccept?(accepted)
      } else if errno == EINTR || errno == ECONNABORTED {
        continue
      } else if errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM {
        return pauseAccepting()
      } else {
        return
      }
    }
  }

  /// Out of descriptors: waits for some to be closed instead of spinning on a readiness that cannot be served.
  private func pauseAccepting() {
    guard let source else { return }
    do throws(SystemError) {
      try reactor.update(source, for: [])
      reactor.schedule(after: 100_000_000) { [weak self] in
        guard let self, let source = self.source else { return }
        do throws(SystemError) { try self.reactor.update(source, for: .read) } catch { self.close() }
      }
    } catch { close() }
  }

  /// Stops listening and removes the socket file.
  public func close() {
    guard let source else { return }
    reactor.unwatch(source)
    self.source = nil
    onAccept = nil
    Glibc.close(descriptor)
    unlink(path)
  }
}
