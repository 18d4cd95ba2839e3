internal import CGrapeLinux
internal import Glibc

/// What one thread sleeps on: woken by other threads, and by librdkafka through its descriptor. A signal that comes
/// while the thread is busy is kept.
///
/// `@unchecked Sendable`: the descriptor never changes.
final class Wakeup: @unchecked Sendable {
  let descriptor: Int32

  init() {
    descriptor = grape_eventfd()
    precondition(descriptor >= 0, "eventfd: errno \(errno)")
  }

  deinit { close(descriptor) }

  func signal() {
    var one: UInt64 = 1
    while write(descriptor, &one, 8) < 0 {
      // EAGAIN: the counter is full, so there is a signal already.
      if errno != EINTR { return }
    }
  }

  /// Returns when there was a signal, or at `deadline` (nanoseconds of the monotonic clock).
  func wait(until deadline: Int64? = nil) {
    while true {
      var timeout: Int32 = -1
      if let deadline {
        let left = deadline - MonotonicClock.now
        timeout = left <= 0 ? 0 : Int32(clamping: (left + 999_999) / 1_000_000)
      }
      var poll = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
      let ready = Glibc.poll(&poll, 1, timeout)
      if ready < 0 && errno == EINTR { continue }
      precondition(ready >= 0, "poll: errno \(errno)")
      if ready > 0 { take() }
      if ready > 0 || timeout >= 0 && MonotonicClock.now >= deadline! { return }
    }
  }

  private func take() {
    var count: UInt64 = 0
    while read(descriptor, &count, 8) < 0 && errno == EINTR {}
  }
}

enum MonotonicClock {
  /// Nanoseconds.
  static var now: Int64 { grape_monotonic_ns() }
  static func after(milliseconds: Int) -> Int64 { now + Int64(milliseconds) * 1_000_000 }
  /// Whole milliseconds left until `deadline`, at least 1.
  static func milliseconds(until deadline: Int64) -> Int { max(1, Int((deadline - now) / 1_000_000)) }
}
