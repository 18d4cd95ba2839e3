import GrapeLog
import Synchronization

extension CommitLog {
  public func close(completion: @escaping @Sendable () -> Void) {
    let finished = ending.withLock { ending in
      ending.asked = true
      if !ending.finished { ending.completions.append(completion) }
      return ending.finished
    }
    if finished { return completion() }
    if queue.beginClosing() {
      wake.signal()
    } else if case .failed = queue.phase {
      shutDown()
    }
  }

  /// The writing thread, with everything written: seals the last segment and lets go.
  func finish() {
    do {
      try writer.seal()
    } catch {
      // Whatever was acknowledged is where it was promised to be; the file is only not trimmed.
      writer.abandon()
    }
    queue.finishClosing()
    shutDown()
  }

  /// Ends the other threads one after the other, then gives the directory back.
  func shutDown() {
    let first = ending.withLock { ending in
      defer { ending.shuttingDown = true }
      return !ending.shuttingDown
    }
    guard first else { return }
    let fired = shared.withLock { shared in
      shared.closed = true
      return shared.state.takeAllWatches()
    }
    for notify in fired { notify() }
    cleaner.stop {
      self.housekeeper.stop {
        // An unused segment is no loss; one that cannot be removed is found and removed at the next start.
        try? self.preparer.discard()
        self.reader.stop { self.letGo() }
      }
    }
  }

  private func letGo() {
    storage.close()
    queue.finishClosing()
    let completions = ending.withLock { ending in
      ending.finished = true
      defer { ending.completions = [] }
      return ending.completions
    }
    for completion in completions { completion() }
  }
}
