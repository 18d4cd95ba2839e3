internal import Synchronization

/// What a heartbeat says: which delivery is being worked on, and how far it is. Written by the worker's thread, read by the heartbeat's.
final class Progress: Sendable {
  /// 0: idle.
  let delivery = Atomic<UInt64>(0)
  /// Events of it that are done.
  let done = Atomic<UInt32>(0)

  /// Another delivery is now the oldest that is not answered.
  func turn(to id: UInt64, done count: UInt32) {
    delivery.store(0, ordering: .relaxed)
    done.store(count, ordering: .releasing)
    delivery.store(id, ordering: .releasing)
  }

  /// Both, of one delivery.
  var now: (delivery: UInt64, done: UInt32) {
    let id = delivery.load(ordering: .acquiring)
    let count = done.load(ordering: .acquiring)
    return delivery.load(ordering: .relaxed) == id ? (id, count) : (id, 0)
  }
}
