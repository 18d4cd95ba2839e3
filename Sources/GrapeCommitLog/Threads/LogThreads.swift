import GrapeLog

/// Where the log's work in the background happens: on threads of its own, or step by step where a simulation wants it.
package protocol LogThreads: Sendable {
  /// Runs the writer: `step` does what there is to do and tells what it found; `wait` returns when there may be more,
  /// which `isWoken` tells without waiting.
  func runWriter(
    step: @escaping @Sendable () -> WriterStep, wait: @escaping @Sendable () -> Void,
    isWoken: @escaping @Sendable () -> Bool)

  /// True if reads and commits happen at the same time, so that they compete for the disk.
  var areConcurrent: Bool { get }

  /// A queue for jobs that are done one after the other, at most `limit` waiting besides
  /// those taken already.
  func makeJobQueue(name: String, limit: Int) -> any JobQueue

  /// The same, and `tick` is called on it whenever `nanoseconds` have passed.
  func makeJobQueue(
    name: String, limit: Int, every nanoseconds: Int64, tick: @escaping @Sendable () -> Void
  ) -> any JobQueue
}

extension LogThreads {
  /// Steps taken one after the other.
  package var areConcurrent: Bool { false }

  /// Without a clock of its own nothing happens by itself.
  package func makeJobQueue(
    name: String, limit: Int, every nanoseconds: Int64, tick: @escaping @Sendable () -> Void
  ) -> any JobQueue { makeJobQueue(name: name, limit: limit) }
}

/// What the writer found to do.
package enum WriterStep: Sendable {
  case wrote
  /// Nothing: it must be woken.
  case idle
  /// There will never be more.
  case ended
}

/// Jobs that are done in the order in which they were added.
package protocol JobQueue: Sendable {
  /// False if the queue is full or was stopped.
  func add(_ job: @escaping @Sendable () -> Void) -> Bool

  /// Lets everything be done that is queued, then `last`, then nothing more. Only the first call counts.
  func stop(last: @escaping @Sendable () -> Void)
}

/// The threads of a real log.
struct SystemThreads: LogThreads {
  var areConcurrent: Bool { true }

  func runWriter(
    step: @escaping @Sendable () -> WriterStep, wait: @escaping @Sendable () -> Void,
    isWoken: @escaping @Sendable () -> Bool
  ) {
    BackgroundThread.start("log-writer") {
      while true {
        switch step() {
        case .wrote: break
        case .idle: wait()
        case .ended: return
        }
      }
    }
  }

  func makeJobQueue(name: String, limit: Int) -> any JobQueue { JobThread(name: name, limit: limit) }

  func makeJobQueue(
    name: String, limit: Int, every nanoseconds: Int64, tick: @escaping @Sendable () -> Void
  ) -> any JobQueue { JobThread(name: name, limit: limit, every: nanoseconds, tick: tick) }
}
