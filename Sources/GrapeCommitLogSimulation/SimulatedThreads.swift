package import GrapeCommitLog

/// The log's threads, standing still: each does one step when it is told to.
package final class SimulatedThreads: LogThreads, @unchecked Sendable {
  // A simulation lives on one thread.
  /// In the order in which the log made them.
  package private(set) var queues: [SimulatedJobQueue] = []
  private var writer: Writer?
  /// Told of every job before it is done, by the name of its queue.
  var willDo: ((String) -> Void)?
  /// The queue whose job, or the writer whose step, is being done.
  package private(set) var running: [Runner] = []

  private struct Writer {
    let step: @Sendable () -> WriterStep
    let wait: @Sendable () -> Void
    let isWoken: @Sendable () -> Bool
    /// It waits, until it is woken.
    var idle = false
  }

  package enum Runner: Equatable {
    case writer
    case queue(String)
  }

  package init() {}

  package func runWriter(
    step: @escaping @Sendable () -> WriterStep, wait: @escaping @Sendable () -> Void,
    isWoken: @escaping @Sendable () -> Bool
  ) {
    writer = Writer(step: step, wait: wait, isWoken: isWoken)
  }

  package func makeJobQueue(name: String, limit: Int) -> any JobQueue {
    let queue = SimulatedJobQueue(name: name, limit: limit)
    queues.append(queue)
    return queue
  }

  package func makeJobQueue(
    name: String, limit: Int, every nanoseconds: Int64, tick: @escaping @Sendable () -> Void
  ) -> any JobQueue {
    let queue = SimulatedJobQueue(name: name, limit: limit)
    queue.tick = tick
    queues.append(queue)
    return queue
  }

  /// Time passes for the queues that do something now and then.
  package func tick() {
    for queue in queues { queue.tick?() }
  }

  /// One step of the writer; false if there was nothing to do. A writer that waits does nothing before it is woken: if nobody
  /// does, what it should have done never happens.
  package func stepWriter() -> Bool {
    guard let writer else { return false }
    if writer.idle {
      guard writer.isWoken() else { return false }
      writer.wait()
      self.writer!.idle = false
    }
    running.append(.writer)
    defer { running.removeLast() }
    switch writer.step() {
    case .wrote: return true
    case .idle:
      self.writer?.idle = true
      return false
    case .ended:
      self.writer = nil
      return true
    }
  }

  /// The writer waits, and nobody has woken it.
  package var isWriterAsleep: Bool {
    guard let writer else { return false }
    return writer.idle && !writer.isWoken()
  }

  /// The next job of a queue; false if there is none.
  package func step(_ queue: SimulatedJobQueue) -> Bool {
    guard let job = queue.take() else { return false }
    willDo?(queue.name)
    running.append(.queue(queue.name))
    defer { running.removeLast() }
    job()
    return true
  }

  /// Runs everything until nobody has anything to do. False if that takes suspiciously long.
  package func runUntilIdle() -> Bool {
    for _ in 0..<10_000 {
      var worked = stepWriter()
      for queue in queues where step(queue) { worked = true }
      if !worked { return true }
    }
    return false
  }

  /// Forgets all work, as the death of the process does.
  package func discard() {
    writer = nil
    willDo = nil
    for queue in queues { queue.discard() }
    queues = []
  }
}

/// A queue of jobs that waits to be told to go on.
package final class SimulatedJobQueue: JobQueue, @unchecked Sendable {
  package let name: String
  private let limit: Int
  private var jobs: [@Sendable () -> Void] = []
  private var first = 0
  private var stopping = false
  fileprivate(set) var tick: (@Sendable () -> Void)?

  init(name: String, limit: Int) {
    self.name = name
    self.limit = limit
  }

  /// Number of jobs that wait.
  package var count: Int { jobs.count - first }

  package func add(_ job: @escaping @Sendable () -> Void) -> Bool {
    if stopping || count >= limit { return false }
    jobs.append(job)
    return true
  }

  package func stop(last: @escaping @Sendable () -> Void) {
    if stopping { return }
    tick = nil
    stopping = true
    jobs.append(last)
  }

  func take() -> (@Sendable () -> Void)? {
    if first == jobs.count { return nil }
    defer {
      first += 1
      if first == jobs.count {
        jobs.removeAll(keepingCapacity: true)
        first = 0
      }
    }
    return jobs[first]
  }

  func discard() {
    jobs = []
    first = 0
    stopping = true
    tick = nil
  }
}
