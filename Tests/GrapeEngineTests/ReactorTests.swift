import Glibc
import GrapeReactor
import GrapeWire
import Synchronization
import Testing

@Suite struct ReactorTests {
  /// Runs `body` on a reactor of its own until it calls `done`.
  private func onReactor(_ body: @escaping @Sendable (Reactor, _ done: @escaping @Sendable () -> Void) -> Void)
    async throws
  {
    let reactor = try Reactor()
    try startThread(name: "test-reactor") { reactor.run() }
    await withCheckedContinuation { continuation in
      reactor.post { body(reactor) { continuation.resume() } }
    }
    reactor.stop()
  }

  @Test func postedWorkOfOneThreadRunsInOrder() async throws {
    let reactor = try Reactor()
    let seen = Mutex<[Int]>([])
    for number in 0..<1000 { reactor.post { seen.withLock { $0.append(number) } } }
    try startThread(name: "test-reactor") { reactor.run() }
    await withCheckedContinuation { continuation in reactor.post { continuation.resume() } }
    #expect(seen.withLock { $0 } == Array(0..<1000))
    reactor.stop()
  }

  @Test func timersFireInOrderOfTheirDeadlines() async throws {
    let order = Mutex<[Int]>([])
    try await onReactor { reactor, done in
      for milliseconds in [5, 1, 3] {
        reactor.schedule(after: Int64(milliseconds) * 1_000_000) { order.withLock { $0.append(milliseconds) } }
      }
      let cancelled = reactor.schedule(after: 2_000_000) { order.withLock { $0.append(-1) } }
      reactor.cancel(cancelled)
      reactor.schedule(after: 8_000_000) { done() }
    }
    #expect(order.withLock { $0 } == [1, 3, 5])
  }

  @Test func turnEndsRunBeforeSleepAndTheirWorkIsDoneInTheSameTurn() async throws {
    let reactor = try Reactor()
    let log = Mutex<[String]>([])
    let pending = Mutex(false)
    reactor.atTurnEnd {
      guard
        pending.withLock({ value in
          defer { value = false }; return value
        })
      else { return }
      log.withLock { $0.append("end") }
      reactor.deferred { log.withLock { $0.append("after") } }
    }
    try startThread(name: "test-reactor") { reactor.run() }
    await withCheckedContinuation { continuation in
      reactor.post {
        log.withLock { $0.append("job") }
        pending.withLock { $0 = true }
        reactor.schedule(after: 1) { continuation.resume() }
      }
    }
    #expect(log.withLock { $0 } == ["job", "end", "after"])
    reactor.stop()
  }

  @Test func framesArriveWholeHoweverTheyAreCut() async throws {
    for seed in UInt64(1)...20 {
      let received = Mutex<[[UInt8]]>([])
      let sent = Self.frames(seed: seed)
      try await onReactor { reactor, done in
        var pair: [Int32] = [0, 0]
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0, &pair) == 0 else {
          return done()
        }
        let (mine, theirs) = (pair[0], pair[1])
        let flusher = ConnectionFlusher()
        reactor.atTurnEnd { flusher.flush() }
        guard let connection = try? FrameConnection(descriptor: mine, reactor: reactor, flusher: flusher) else {
          return done()
        }
        connection.frameLimit = 8 * 1024 * 1024
        connection.onFrame = { header, body in
          received.withLock { $0.append(body.array) }
          if received.withLock({ $0.count }) == sent.count {
            connection.close()
            done()
          }
        }
        try? startThread(name: "test-writer") {
          var stream = ByteWriter()
          for body in sent {
            let start = stream.beginFrame(.log, id: 3)
            stream.bytes(body)
            stream.endFrame(start)
          }
          let bytes = stream.finish()
          var random = SeededGenerator(seed: seed)
          var position = 0
          while position < bytes.count {
            let size = min(Int.random(in: 1...200_000, using: &random), bytes.count - position)
            let count = write(theirs, bytes.unsafeBytes.baseAddress! + position, size)
            if count > 0 {
              position += count
            } else {
              var waiting = pollfd(fd: theirs, events: Int16(POLLOUT), revents: 0)
              poll(&waiting, 1, 1000)
            }
          }
          close(theirs)
        }
      }
      #expect(received.withLock { $0 } == sent, "seed \(seed)")
    }
  }

  private static func frames(seed: UInt64) -> [[UInt8]] {
    var random = SeededGenerator(seed: seed &* 77)
    return (0..<30).map { _ in
      let size =
        Bool.random(using: &random)
        ? Int.random(in: 0...100, using: &random) : Int.random(in: 0...700_000, using: &random)
      return [UInt8](repeating: UInt8.random(in: 0...255, using: &random), count: size)
    }
  }
}
