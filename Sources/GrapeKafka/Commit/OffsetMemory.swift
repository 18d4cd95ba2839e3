internal import GrapeLog
internal import Synchronization

/// What this log has last committed for each group and partition, so that a transaction whose predecessor failed is
/// refused (`OffsetCommit.previous`).
///
/// The rules, for a commit that says what it builds on:
/// 1. If the last commit that succeeded is known, it must be that one.
/// 2. It must not build on a commit that failed before this one was handed over to the log, or while it waited there; as
///    long as no success is known, on none that ever failed.
///
/// A commit that failed, and said what it builds on, makes known that this was the last success. All is forgotten of a
/// partition that is assigned anew or lost, and when its committed offset is read while nothing of the group is being
/// committed, what was read is known. A commit that builds on nothing is never refused.
final class OffsetMemory: Sendable {
  fileprivate struct Key: Hashable {
    let group: String
    let partition: TopicPartition
  }

  fileprivate struct Entry {
    /// Offset of the last commit that succeeded, if known.
    var committed: Int64?
    /// Offsets of commits that failed, with the number of the last transaction that may not know it.
    var failed: [Int64: UInt64] = [:]
  }

  fileprivate struct State {
    var entries: [Key: Entry] = [:]
    /// Counts successes and failures per group.
    var changes: [String: UInt64] = [:]
    /// Transactions that are being written, per group.
    var underWay: [String: Int] = [:]
  }

  /// What a group of transactions that go together would make of it.
  struct Draft {
    fileprivate var committed: [Key: Int64] = [:]
  }

  private let state = Mutex(State())

  /// Why the transaction with this number must not go behind those in the draft; nil: it may, and the draft has it now.
  func refusal(_ transaction: Transaction, number: UInt64, after draft: inout Draft) -> LogError? {
    let refusal = state.withLock { state -> LogError? in
      for commit in transaction.offsets {
        guard let previous = commit.previous else { continue }
        let key = Key(group: commit.group, partition: commit.partition)
        let entry = state.entries[key]
        let what = "group \(commit.group) in \(commit.partition): a commit of offset \(commit.committed.offset)"
        if let expected = draft.committed[key] {
          if expected == previous { continue }
          return LogError(.outOfSequence, "\(what) builds on \(previous), but \(expected) is committed before it")
        }
        if let horizon = entry?.failed[previous], number <= horizon {
          return LogError(.outOfSequence, "\(what) builds on \(previous), whose commit has failed")
        }
        if let committed = entry?.committed, committed != previous {
          return LogError(.outOfSequence, "\(what) builds on \(previous), but \(committed) was committed last")
        }
      }
      return nil
    }
    if refusal == nil {
      for commit in transaction.offsets {
        draft.committed[Key(group: commit.group, partition: commit.partition)] = commit.committed.offset
      }
    }
    return refusal
  }

  /// The transaction is being written; `succeeded`, `failed` or `undone` follows.
  func begin(_ transaction: Transaction) {
    state.withLock { state in
      for group in Set(transaction.offsets.map(\.group)) { state.underWay[group, default: 0] += 1 }
    }
  }

  func succeeded(_ transaction: Transaction, number: UInt64) {
    state.withLock { state in
      state.end(transaction)
      for commit in transaction.offsets {
        let key = Key(group: commit.group, partition: commit.partition)
        var entry = state.entries[key] ?? Entry()
        entry.committed = commit.committed.offset
        entry.failed = entry.failed.filter { $0.value > number && $0.value != .max }
        state.entries[key] = entry
      }
    }
  }

  /// Nothing was written, and it will be tried again.
  func undone(_ transaction: Transaction) { state.withLock { $0.end(transaction, hasChanged: false) } }

  /// - Parameters:
  ///   - wasTried: false if it was refused before anything was sent, and `begin` was not called.
  ///   - isUnknown: it may have been written all the same.
  ///   - horizon: the number of the last transaction that was handed over until now.
  func failed(_ transaction: Transaction, number: UInt64, wasTried: Bool, isUnknown: Bool, horizon: UInt64) {
    state.withLock { state in
      if wasTried { state.end(transaction) }
      for commit in transaction.offsets {
        let key = Key(group: commit.group, partition: commit.partition)
        var entry = state.entries[key] ?? Entry()
        if isUnknown {
          entry.committed = nil
        } else if wasTried, entry.committed == nil {
          entry.committed = commit.previous
        }
        // Transactions come in the order of their numbers.
        entry.failed = entry.failed.filter { $0.value >= number }
        entry.failed[commit.committed.offset] = entry.committed == nil ? .max : horizon
        state.entries[key] = entry
      }
    }
  }

  /// The partitions have gone, or come anew, and with them those of the same number in topics that the group has not been joined for.
  func forget(_ group: String, _ partitions: [TopicPartition], joined topics: Set<String>) {
    let numbers = Set(partitions.map(\.partition))
    state.withLock { state in
      for partition in partitions { state.entries[Key(group: group, partition: partition)] = nil }
      state.entries = state.entries.filter { key, _ in
        key.group != group || topics.contains(key.partition.topic) || !numbers.contains(key.partition.partition)
      }
    }
  }

  func forget(group: String) {
    state.withLock { state in state.entries = state.entries.filter { $0.key.group != group } }
  }

  func forget(topic: String) {
    state.withLock { state in state.entries = state.entries.filter { $0.key.partition.topic != topic } }
  }

  /// To be taken before the committed offsets of a group are read; nil: something is being committed.
  func reading(_ group: String) -> UInt64? {
    state.withLock { $0.underWay[group] == nil ? $0.changes[group] ?? 0 : nil }
  }

  /// What was read of a group's committed offsets, unless something happened since `reading`.
  /// - Parameter horizon: the number of the last transaction that was handed over until now.
  func read(
    _ group: String, _ offsets: [TopicPartition: CommittedOffset], since reading: UInt64?, horizon: UInt64
  ) {
    state.withLock { state in
      guard let reading, state.underWay[group] == nil, state.changes[group] ?? 0 == reading else { return }
      for key in state.entries.keys where key.group == group {
        state.entries[key]!.committed = offsets[key.partition]?.offset
        state.entries[key]!.failed = state.entries[key]!.failed.mapValues { min($0, horizon) }
      }
    }
  }
}

extension OffsetMemory.State {
  fileprivate mutating func end(_ transaction: Transaction, hasChanged: Bool = true) {
    for group in Set(transaction.offsets.map(\.group)) {
      if hasChanged { changes[group, default: 0] += 1 }
      let left = (underWay[group] ?? 1) - 1
      underWay[group] = left == 0 ? nil : left
    }
  }
}
