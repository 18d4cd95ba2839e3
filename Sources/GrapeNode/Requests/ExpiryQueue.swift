internal import CGrapeLinux
internal import DequeModule
internal import GrapeReactor

/// Calls something for each of many things when its time has come, with one timer for all. For things whose times come in the order in which they are added,
/// or nearly: one that is added later is never looked at before those added earlier. Lives on the reactor's thread.
final class ExpiryQueue<Element> {
  private let reactor: Reactor
  private let expired: (Element) -> Void
  private var waiting: Deque<(element: Element, due: Int64)> = []
  private var isTimed = false

  init(_ reactor: Reactor, expired: @escaping (Element) -> Void) {
    self.reactor = reactor
    self.expired = expired
  }

  /// `due`: milliseconds of the monotonic clock.
  func add(_ element: Element, due: Int64) {
    waiting.append((element, due))
    arm()
  }

  private func arm() {
    guard !isTimed, let first = waiting.first else { return }
    isTimed = true
    reactor.schedule(after: max(first.due - clock, 1) * 1_000_000) { [weak self] in self?.fire() }
  }

  private func fire() {
    isTimed = false
    while let first = waiting.first, first.due <= clock {
      waiting.removeFirst()
      expired(first.element)
    }
    arm()
  }

  private var clock: Int64 { grape_monotonic_ns() / 1_000_000 }
}
