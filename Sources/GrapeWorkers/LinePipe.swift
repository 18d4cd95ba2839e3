internal import CGrapeLinux
internal import Glibc
internal import GrapeReactor

/// Reads lines from a worker's standard output or error.
final class LinePipe {
  /// A longer line is cut into pieces of this many bytes.
  static let lineLimit = 8192

  private let reactor: Reactor
  private let descriptor: Int32
  private let onLine: (String) -> Void
  private var source: Reactor.SourceID?
  private var partial: [UInt8] = []

  /// Takes over `descriptor`.
  init(_ descriptor: Int32, reactor: Reactor, onLine: @escaping (String) -> Void) throws(SystemError) {
    self.reactor = reactor
    self.descriptor = descriptor
    self.onLine = onLine
    try system("fcntl O_NONBLOCK") { grape_set_nonblocking(descriptor, true) }
    source = try reactor.watch(descriptor, for: .read) { [unowned self] _ in receive(reads: 4) }
  }

  private func receive(reads: Int) {
    withUnsafeTemporaryAllocation(byteCount: 16 * 1024, alignment: 16) { buffer in
      for _ in 0..<reads {
        let count = Glibc.read(descriptor, buffer.baseAddress!, buffer.count)
        if count > 0 {
          take(UnsafeRawBufferPointer(rebasing: buffer[0..<count]))
        } else if count == 0 {
          return close()
        } else if errno != EINTR {
          // EAGAIN: more comes later. Anything else: there is no more to come.
          if errno != EAGAIN { close() }
          return
        }
      }
    }
  }

  private func take(_ bytes: UnsafeRawBufferPointer) {
    for byte in bytes {
      if byte == 0x0a {
        emit()
      } else {
        partial.append(byte)
        if partial.count >= Self.lineLimit { emit() }
      }
    }
  }

  private func emit() {
    let line = String(decoding: partial, as: UTF8.self)
    partial.removeAll(keepingCapacity: true)
    onLine(line)
  }

  /// The process is gone: takes what is left in the pipe, then closes it.
  func finish() {
    guard source != nil else { return }
    receive(reads: 64)
    close()
  }

  func close() {
    guard let source else { return }
    reactor.unwatch(source)
    self.source = nil
    Glibc.close(descriptor)
    if !partial.isEmpty { emit() }
  }
}
