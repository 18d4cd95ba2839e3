import GrapeLog
import Synchronization

/// Makes segment files ahead of their use, so that changing to the next one does not hold up commits.
final class SegmentPreparer: Sendable {
  /// A segment file that is ready to take groups.
  struct Prepared: Sendable {
    let file: any SegmentFile
    let header: SegmentHeader

    var name: String { SegmentHeader.fileName(base: header.base) }
    var base: Int64 { header.base }
    var capacity: Int64 { header.capacity }
  }

  /// A file under construction has this name; it means nothing after a crash.
  static let draftName = "next.tmp"

  private let storage: any SegmentStorage
  private let clock: LogClock
  private let identity: LogIdentity
  private struct State {
    var ready: Prepared?
    /// Segments before this position are in use: a preparation asked for earlier and done later must not touch them.
    var firstUnused: Int64 = 0
  }

  /// Held while a file is being made: who needs it next waits exactly for that.
  private let state = Mutex(State())

  init(storage: any SegmentStorage, clock: LogClock, identity: LogIdentity) {
    self.storage = storage
    self.clock = clock
    self.identity = identity
  }

  /// Makes the segment that will begin at `base`, unless it is there already or was taken meanwhile.
  func prepare(base: Int64, capacity: Int64) throws(LogError) {
    let result: Result<Void, LogError> = state.withLock { state in
      if state.ready != nil || base < state.firstUnused { return .success(()) }
      return make(base: base, capacity: capacity).map { state.ready = $0 }
    }
    try result.get()
  }

  /// Hands out the segment that begins at `base`, with at least `capacity`, making it now if need be.
  func take(base: Int64, capacity: Int64) throws(LogError) -> Prepared {
    let result: Result<Prepared, LogError> = state.withLock { state in
      do throws(LogError) {
        let taken = try Self.take(&state, base: base, capacity: capacity, self)
        state.firstUnused = taken.base + taken.capacity
        return .success(taken)
      } catch {
        return .failure(error)
      }
    }
    return try result.get()
  }

  private static func take(
    _ state: inout State, base: Int64, capacity: Int64, _ preparer: SegmentPreparer
  ) throws(LogError) -> Prepared {
    if let made = state.ready {
      precondition(made.base == base, "segments are used in the order they were prepared")
      state.ready = nil
      if made.capacity >= capacity { return made }
      // Too small for what must go into it. It holds no groups yet.
      made.file.close()
      try preparer.storage.remove(made.name)
    }
    return try preparer.make(base: base, capacity: capacity).get()
  }

  /// Removes what was prepared and not used.
  func discard() throws(LogError) {
    let unused = state.withLock { state in
      defer { state.ready = nil }
      return state.ready
    }
    guard let unused else { return }
    unused.file.close()
    try storage.remove(unused.name)
  }

  private func make(base: Int64, capacity: Int64) -> Result<Prepared, LogError> {
    do {
      return .success(try build(base: base, capacity: capacity))
    } catch {
      return .failure(error)
    }
  }

  /// Under its own name only when whole and durable, so that a crash leaves no half-made segment.
  private func build(base: Int64, capacity: Int64) throws(LogError) -> Prepared {
    if try storage.list().contains(Self.draftName) { try storage.remove(Self.draftName) }
    let draft = try storage.create(Self.draftName)
    do throws(LogError) {
      try draft.preallocate(to: capacity)
      let header = SegmentHeader(
        identity: identity, base: base, capacity: capacity, created: clock.wallMilliseconds())
      try header.write(to: draft)
      try draft.synchronize()
      draft.close()
      let name = SegmentHeader.fileName(base: base)
      try storage.rename(Self.draftName, to: name)
      do throws(LogError) {
        try storage.synchronizeDirectory()
        return Prepared(file: try storage.open(name, writable: true), header: header)
      } catch {
        // Or it would be in the way of the next attempt.
        try? storage.remove(name)
        throw error
      }
    } catch {
      draft.close()
      // Its blocks may be the last ones; if it cannot be removed now, the next attempt or start does it.
      try? storage.remove(Self.draftName)
      throw error
    }
  }
}
