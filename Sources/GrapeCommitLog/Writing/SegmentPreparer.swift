import GrapeLog
import Synchronization

/// Makes segment files ahead of their use, so that changing to the next one does not hold up commits.
final class SegmentPreparer: Sendable {
  /// A segment file that is ready to take groups.
  struct Prepared: Sendable {
    let name: String
    let file: any SegmentFile
    let base: Int64
    let capacity: Int64
  }

  /// A file under construction has this name; it means nothing after a crash.
  static let draftName = "next.tmp"

  private let storage: any SegmentStorage
  private let clock: LogClock
  private let identity: LogIdentity
  /// Held while a file is being made: who needs it next waits exactly for that.
  private let ready = Mutex<Prepared?>(nil)

  init(storage: any SegmentStorage, clock: LogClock, identity: LogIdentity) {
    self.storage = storage
    self.clock = clock
    self.identity = identity
  }

  /// Makes the segment that will begin at `base`, unless it is there already.
  func prepare(base: Int64, capacity: Int64) throws(LogError) {
    let result: Result<Void, LogError> = ready.withLock { ready in
      if ready != nil { return .success(()) }
      return make(base: base, capacity: capacity).map { ready = $0 }
    }
    try result.get()
  }

  /// Hands out the segment that begins at `base`, with at least `capacity`, making it now if need be.
  func take(base: Int64, capacity: Int64) throws(LogError) -> Prepared {
    let result: Result<Prepared, LogError> = ready.withLock { ready in
      if let made = ready {
        precondition(made.base == base, "segments are used in the order they were prepared")
        if made.capacity >= capacity {
          ready = nil
          return .success(made)
        }
        ready = nil
        made.file.close()
      }
      // Replaces a prepared file that is too small: it holds no groups yet.
      return make(base: base, capacity: capacity)
    }
    return try result.get()
  }

  /// A prepared file found at start.
  func adopt(_ prepared: Prepared) { ready.withLock { $0 = prepared } }

  /// Removes what was prepared and not used.
  func discard() throws(LogError) {
    let unused = ready.withLock { ready in
      defer { ready = nil }
      return ready
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
    do {
      try draft.preallocate(to: capacity)
      try writeHeader(
        SegmentHeader(identity: identity, base: base, capacity: capacity, created: clock.wallMilliseconds()), to: draft)
      try draft.synchronize()
      draft.close()
      let name = SegmentHeader.fileName(base: base)
      try storage.rename(Self.draftName, to: name)
      try storage.synchronizeDirectory()
      return Prepared(
        name: name, file: try storage.open(name, writable: true), base: base, capacity: capacity)
    } catch {
      draft.close()
      throw error
    }
  }

  private func writeHeader(_ header: SegmentHeader, to file: any SegmentFile) throws(LogError) {
    try withUnsafeTemporaryAllocation(byteCount: SegmentHeader.byteCount, alignment: 8) { bytes throws(LogError) in
      header.encode(into: bytes)
      try file.write(UnsafeRawBufferPointer(bytes), at: 0)
    }
  }
}
