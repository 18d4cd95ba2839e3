/// Names a timer.
public struct TimerID: Hashable, Sendable { let raw: UInt64 }

/// Timers in order of their deadlines: a binary heap. Cancelled ones are dropped when they surface.
struct TimerQueue {
  private struct Entry {
    let deadline: Int64
    let id: UInt64
  }

  private var heap: [Entry] = []
  private var actions: [UInt64: () -> Void] = [:]
  private var nextID: UInt64 = 1

  /// O(log n).
  mutating func add(deadline: Int64, _ action: @escaping () -> Void) -> TimerID {
    let id = nextID
    nextID += 1
    actions[id] = action
    heap.append(Entry(deadline: deadline, id: id))
    var child = heap.count - 1
    while child > 0 {
      let parent = (child - 1) / 2
      if heap[parent].deadline <= heap[child].deadline { break }
      heap.swapAt(parent, child)
      child = parent
    }
    return TimerID(raw: id)
  }

  /// O(1); the heap is rebuilt once most of it is cancelled.
  mutating func cancel(_ timer: TimerID) {
    actions[timer.raw] = nil
    if heap.count > 64, heap.count > actions.count * 2 {
      let live = heap.filter { actions[$0.id] != nil }.sorted { $0.deadline < $1.deadline }
      heap = live
    }
  }

  /// Takes the actions whose deadline has come, in its order.
  mutating func due(now: Int64) -> [() -> Void] {
    var ready: [() -> Void] = []
    while let first = heap.first, first.deadline <= now || actions[first.id] == nil {
      popFirst()
      if let action = actions.removeValue(forKey: first.id) { ready.append(action) }
    }
    return ready
  }

  /// Nanoseconds until the next deadline; 0 if it has passed, -1 if there is none.
  mutating func timeUntilNext(now: Int64) -> Int64 {
    while let first = heap.first, actions[first.id] == nil { popFirst() }
    guard let first = heap.first else { return -1 }
    return max(0, first.deadline - now)
  }

  private mutating func popFirst() {
    heap.swapAt(0, heap.count - 1)
    heap.removeLast()
    var parent = 0
    while true {
      var least = parent
      for child in [2 * parent + 1, 2 * parent + 2]
      where child < heap.count && heap[child].deadline < heap[least].deadline {
        least = child
      }
      if least == parent { return }
      heap.swapAt(parent, least)
      parent = least
    }
  }
}
