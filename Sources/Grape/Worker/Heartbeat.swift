internal import CGrapeLinux
internal import Glibc
internal import GrapeWire

/// The thread that tells the node that the worker lives, however busy its handlers are, and ends the worker when the
/// node does not.
final class Heartbeat: Sendable {
  /// How long the worker's thread may take to notice the end of the connection itself, with the node's last words.
  private static let graceMilliseconds: Int32 = 250
  /// Linux's `POLLRDHUP`, which the C library's module leaves out.
  private static let peerClosed: Int16 = 0x2000

  private let descriptor: Int32
  private let intervalMilliseconds: Int64
  private let sender: FrameSender
  private let progress: Progress
  private let liveness: Liveness
  private let log: LogQueue
  /// Readable once the thread is to end.
  private let stopDescriptor: Int32
  private let connectionLost: @Sendable (String) -> Void

  init?(
    descriptor: Int32, intervalMilliseconds: Int64, sender: FrameSender, progress: Progress, liveness: Liveness,
    log: LogQueue, connectionLost: @escaping @Sendable (String) -> Void
  ) {
    self.descriptor = descriptor
    self.intervalMilliseconds = intervalMilliseconds
    self.sender = sender
    self.progress = progress
    self.liveness = liveness
    self.log = log
    self.connectionLost = connectionLost
    stopDescriptor = grape_eventfd()
    if stopDescriptor < 0 { return nil }
  }

  deinit { close(stopDescriptor) }

  func stop() { LoopExecutor.wake(stopDescriptor) }

  /// The thread's body.
  func run() {
    var next = now() + intervalMilliseconds
    while true {
      let left = next - now()
      if left > 0 {
        let (closed, stopped) = wait(for: Self.peerClosed, milliseconds: Int32(clamping: left))
        if stopped { return }
        if closed { return endAfterGrace("the connection to the node ended") }
        continue
      }
      next = max(next + intervalMilliseconds, now())
      if sender.trySend(frame()) == .closed { return endAfterGrace("the connection to the node ended") }
      let waiting = log.take()
      if !waiting.isEmpty { deliver(waiting) }
      // Bytes that nobody has read yet mean that the worker's thread is busy, not that the node is silent.
      let (hasInput, stopped) = wait(for: Int16(POLLIN), milliseconds: 0)
      if stopped { return }
      if !hasInput, liveness.silence > 3 * intervalMilliseconds * 1_000_000 {
        return connectionLost("nothing was heard from the node for three heartbeats")
      }
    }
  }

  /// Log frames that were taken off the queue: sent now, or by the next one who writes.
  private func deliver(_ frames: [UInt8]) {
    if sender.trySend(frames) == .busy { log.putBack(frames) }
  }

  private func endAfterGrace(_ reason: String) {
    let (_, stopped) = wait(for: 0, milliseconds: Self.graceMilliseconds)
    if !stopped { connectionLost(reason) }
  }

  /// Waits for `events` at the socket or the order to stop.
  private func wait(for events: Int16, milliseconds: Int32) -> (happened: Bool, stopped: Bool) {
    let isSocketWatched = events != 0
    var entries = [
      pollfd(fd: stopDescriptor, events: Int16(POLLIN), revents: 0),
      pollfd(fd: descriptor, events: events, revents: 0),
    ]
    let count = poll(&entries, isSocketWatched ? 2 : 1, milliseconds)
    guard count > 0 else { return (false, false) }
    return (isSocketWatched && entries[1].revents != 0, entries[0].revents != 0)
  }

  private func frame() -> [UInt8] {
    let (delivery, done) = progress.now
    var writer = ByteWriter(capacity: 32)
    let start = writer.beginFrame(.heartbeat, id: 0)
    writer.u64(delivery)
    writer.u32(done)
    writer.u32(0)
    writer.endFrame(start)
    return writer.finish().array
  }

  private func now() -> Int64 { grape_monotonic_ns() / 1_000_000 }
}
