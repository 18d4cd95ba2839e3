internal import GrapeLog
internal import Synchronization

/// Watches that wait for the end of a partition to move. Tokens are given and cancelled on any thread; the rest is for
/// the reader's thread.
final class WatchTable: Sendable {
  private struct State {
    var lastID: UInt64 = 0
    /// Given and neither fired nor cancelled, with where they wait, if they do.
    var live: [UInt64: TopicPartition?] = [:]
    var waiting: [TopicPartition: [Reader.Watch]] = [:]
  }

  private let state = Mutex(State())

  func makeToken() -> WatchToken {
    state.withLock { state in
      state.lastID += 1
      state.live[state.lastID] = .some(nil)
      return WatchToken(id: state.lastID)
    }
  }

  func cancel(_ id: UInt64) {
    state.withLock { state in
      guard let place = state.live.removeValue(forKey: id), let partition = place else { return }
      let others = state.waiting[partition]?.filter { $0.id != id } ?? []
      state.waiting[partition] = others.isEmpty ? nil : others
    }
  }

  func isCancelled(_ id: UInt64) -> Bool { state.withLock { $0.live[id] == nil } }

  func has(_ partition: TopicPartition) -> Bool { state.withLock { $0.waiting[partition] != nil } }

  func add(_ watch: Reader.Watch, on partition: TopicPartition) {
    state.withLock { state in
      guard state.live[watch.id] != nil else { return }
      state.live[watch.id] = .some(partition)
      state.waiting[partition, default: []].append(watch)
    }
  }

  /// Calls it, unless it was cancelled.
  func notify(_ watch: Reader.Watch) {
    if state.withLock({ $0.live.removeValue(forKey: watch.id) }) != nil { watch.notify() }
  }

  /// Calls those that wait for an end beyond theirs.
  func fire(_ partition: TopicPartition, end: Int64) {
    let due = state.withLock { state -> [Reader.Watch] in
      guard let waiting = state.waiting[partition] else { return [] }
      let later = waiting.filter { $0.offset >= end }
      state.waiting[partition] = later.isEmpty ? nil : later
      return waiting.filter { $0.offset < end }
    }
    for watch in due { notify(watch) }
  }

  /// Calls all on certain partitions.
  func fire(where matches: (TopicPartition) -> Bool) {
    let due = state.withLock { state -> [Reader.Watch] in
      let partitions = state.waiting.keys.filter(matches)
      return partitions.flatMap { state.waiting.removeValue(forKey: $0) ?? [] }
    }
    for watch in due { notify(watch) }
  }

  /// Takes the watches on a partition out, to be begun anew.
  func take(_ partition: TopicPartition) -> [Reader.Watch] {
    state.withLock { $0.waiting.removeValue(forKey: partition) ?? [] }
  }
}
