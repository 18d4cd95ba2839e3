internal import CGrapeLinux
internal import Synchronization

/// When the node was heard last. Written by the worker's thread, read by the heartbeat's.
final class Liveness: Sendable {
  private let heard = Atomic<Int64>(0)

  func hear() { heard.store(grape_monotonic_ns(), ordering: .relaxed) }

  /// Nanoseconds of silence.
  var silence: Int64 { grape_monotonic_ns() - heard.load(ordering: .relaxed) }
}
