import GrapeLog
import Synchronization

/// Answers to commits by number.
final class Answers: Sendable {
  private let results = Mutex<[Int: Result<CommitReceipt, LogError>]>([:])

  func add(_ result: Result<CommitReceipt, LogError>, _ number: Int) { results.withLock { $0[number] = result } }

  /// In order of number; nil: success.
  var codes: [LogError.Code?] {
    results.withLock { results in
      results.sorted { $0.key < $1.key }.map { result in
        if case .failure(let error) = result.value { return error.code }
        return nil
      }
    }
  }

  var errors: [LogError] {
    results.withLock { results in
      results.sorted { $0.key < $1.key }.compactMap { result in
        if case .failure(let error) = result.value { return error }
        return nil
      }
    }
  }
}

/// Calls back when it has counted down.
final class Countdown: Sendable {
  private let left: Mutex<Int>
  private let done: @Sendable () -> Void

  init(_ count: Int, done: @escaping @Sendable () -> Void) {
    left = Mutex(count)
    self.done = done
  }

  func one() {
    let isLast = left.withLock { left in
      left -= 1
      return left == 0
    }
    if isLast { done() }
  }
}
