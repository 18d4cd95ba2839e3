import GrapeWorkers
import Testing

@Suite struct WorkerPoolStateMachineTests {
  private func pool(minimum: Int = 0, maximum: Int = 3) -> WorkerPoolStateMachine {
    WorkerPoolStateMachine(
      policy: .init(
        minimum: minimum, maximum: maximum, idleTimeout: 1000, startupTimeout: 100, terminationTimeout: 50, backoff: 10,
        maximumBackoff: 80))
  }

  @Test func nothingRunsBeforeTheFirstEvent() {
    var pool = pool()
    #expect(pool.advance(now: 0).isEmpty)
    #expect(pool.demand(0, now: 0).isEmpty)
    #expect(pool.demand(1, now: 1) == [.spawn(1)])
  }

  @Test func theMinimumIsKept() {
    var pool = pool(minimum: 2)
    #expect(pool.advance(now: 0) == [.spawn(1), .spawn(2)])
  }

  @Test func demandIsBoundedByTheMaximum() {
    var pool = pool(maximum: 2)
    #expect(pool.demand(10, now: 0) == [.spawn(1), .spawn(2)])
    #expect(pool.demand(10, now: 1).isEmpty)
  }

  @Test func idleWorkersLeaveAfterTheTimeout() {
    var pool = pool()
    _ = pool.demand(2, now: 0)
    pool.connect(1, 2)
    _ = pool.demand(0, now: 10)
    #expect(pool.nextDeadline(now: 10) == 1010)
    #expect(pool.advance(now: 1009).isEmpty)
    #expect(pool.advance(now: 1010) == [.drain(2), .drain(1)])
    #expect(pool.exited(1, now: 1011).isEmpty)
    #expect(pool.exited(2, now: 1011).isEmpty)
    #expect(pool.failures == 0)
    #expect(pool.demand(1, now: 1012) == [.spawn(3)])
  }

  @Test func aWorkerThatDoesNotStartIsKilled() {
    var pool = pool()
    _ = pool.demand(1, now: 0)
    #expect(pool.nextDeadline(now: 0) == 100)
    #expect(pool.advance(now: 100) == [.kill(1, "it did not say hello within the startup timeout")])
    let isWelcome = pool.connected(1)
    #expect(!isWelcome, "too late")
  }

  @Test func failuresBackOffAndOneWorkerTriesFirst() {
    var pool = pool()
    _ = pool.demand(3, now: 0)
    pool.connect(1, 2, 3)
    #expect(pool.exited(1, now: 5).isEmpty)
    #expect(pool.advance(now: 14).isEmpty)
    #expect(pool.advance(now: 15) == [.spawn(4)])
    #expect(pool.exited(4, now: 16).isEmpty)
    #expect(pool.advance(now: 35).isEmpty, "the wait has doubled")
    #expect(pool.advance(now: 36) == [.spawn(5)])
    for id in 5...20 { _ = (pool.exited(id, now: 100), pool.advance(now: 100_000)) }
    #expect(pool.nextDeadline(now: 100).map { $0 <= 100_000 + 100 } ?? true, "the wait has a cap")
    pool.proved()
    #expect(pool.consecutiveFailures == 0)
  }

  @Test func onlyWorkersThatNeverSaidHelloCountAsFailedStarts() {
    var pool = pool()
    _ = pool.demand(3, now: 0)
    pool.connect(1, 2)
    for id in 1...2 { _ = pool.exited(id, now: 1) }
    #expect(pool.failedStarts == 0, "they had started")
    _ = pool.exited(3, now: 2)
    #expect(pool.failedStarts == 1)
    #expect(pool.advance(now: 1000) == [.spawn(4)])
    _ = pool.condemn(4, why: "too slow")
    _ = pool.exited(4, now: 1001)
    #expect(pool.failedStarts == 2)
    #expect(pool.advance(now: 2000) == [.spawn(5)])
    pool.connect(5)
    #expect(pool.failedStarts == 0)
    _ = pool.condemn(5, why: "it broke the protocol")
    _ = pool.exited(5, now: 2001)
    #expect(pool.failedStarts == 0, "it had started")
  }

  @Test func stoppingDrainsAndStartsNone() {
    var pool = pool(minimum: 1)
    _ = pool.advance(now: 0)
    pool.connect(1)
    #expect(pool.stop(now: 1) == [.drain(1)])
    #expect(pool.demand(5, now: 2).isEmpty)
    #expect(pool.advance(now: 51) == [.kill(1, "it did not end within the termination timeout")])
    #expect(pool.exited(1, now: 52).isEmpty)
    #expect(pool.isAtRest)
    #expect(pool.resume(now: 60) == [.spawn(2)])
  }

  @Test func aCondemnedWorkerIsKilledOnce() {
    var pool = pool()
    _ = pool.demand(1, now: 0)
    pool.connect(1)
    #expect(pool.condemn(1, why: "silent") == [.kill(1, "silent")])
    #expect(pool.condemn(1, why: "silent") == [])
    #expect(pool.ready.isEmpty)
  }
}

extension WorkerPoolStateMachine {
  /// The workers say hello, and are welcome.
  fileprivate mutating func connect(_ ids: ID...) {
    for id in ids {
      let isWelcome = connected(id)
      #expect(isWelcome)
    }
  }
}
