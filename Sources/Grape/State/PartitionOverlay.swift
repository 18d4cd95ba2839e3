internal import GrapeState
internal import GrapeWire

/// One partition's state as this worker knows it: the base, and over it what the worker wrote in results that the base may not have yet.
final class PartitionOverlay {
  /// What one result wrote.
  struct Segment {
    let table: UnsafeMutablePointer<StateTable>
    /// The result's.
    let processed: Int64
  }

  let partition: Int32
  /// What reads go to.
  private(set) var base: any StateBase
  /// Oldest first.
  private(set) var segments: [Segment] = []

  private let preferred: any StateBase
  /// Used as long as the preferred base cannot be.
  private let spare: (any StateBase)?
  private let tables: StateTablePool
  private let note: (StateError) -> Void
  private var wasNoted = false
  /// A delivery of this partition looks at the base.
  private var isOwned = false
  /// Deliveries of other partitions that look at it.
  private var visitors = 0

  init(
    partition: Int32, base: any StateBase, spare: (any StateBase)?, tables: StateTablePool,
    note: @escaping (StateError) -> Void
  ) {
    self.partition = partition
    preferred = base
    self.base = base
    self.spare = spare
    self.tables = tables
    self.note = note
  }

  deinit { for segment in segments { tables.give(segment.table) } }

  /// A delivery of this partition begins at `first`. If events come again the node did not take the result that they had.
  func discard(beyond first: Int64) {
    while let last = segments.last, last.processed > first { tables.give(segments.removeLast().table) }
  }

  /// A delivery of this partition wants to know the state.
  func begin() throws(StateError) {
    let processed = try look(telling: !segments.isEmpty)
    let known = segments.prefix { $0.processed <= processed }.count
    for segment in segments[..<known] { tables.give(segment.table) }
    segments.removeSubrange(..<known)
    isOwned = true
  }

  /// A delivery of another partition wants to know it.
  func visit() throws(StateError) {
    if !isOwned { _ = try look(telling: false) }
    visitors += 1
  }

  private func look(telling: Bool) throws(StateError) -> Int64 {
    do throws(StateError) {
      base = preferred
      let processed = try preferred.begin(telling: telling)
      wasNoted = false
      return processed
    } catch {
      guard let spare else { throw error }
      if !wasNoted { note(error) }
      wasNoted = true
      base = spare
      return try spare.begin(telling: telling)
    }
  }

  /// The delivery of this partition is done.
  func end() {
    isOwned = false
    endIfUnused()
  }

  /// A delivery of another partition is done.
  func leave() {
    visitors -= 1
    endIfUnused()
  }

  private func endIfUnused() { if !isOwned, visitors == 0 { base.end() } }

  /// What a result wrote that is being sent.
  func seal(_ table: UnsafeMutablePointer<StateTable>, processed: Int64) {
    segments.append(Segment(table: table, processed: processed))
  }
}

/// Tables that are not in use, to be used again.
final class StateTablePool {
  private static let most = 8
  private var idle: [UnsafeMutablePointer<StateTable>] = []

  deinit { for table in idle { StateTablePool.destroy(table) } }

  func take() -> UnsafeMutablePointer<StateTable> {
    if let table = idle.popLast() { return table }
    let table = UnsafeMutablePointer<StateTable>.allocate(capacity: 1)
    table.initialize(to: StateTable())
    return table
  }

  func give(_ table: UnsafeMutablePointer<StateTable>) {
    guard idle.count < Self.most else { return StateTablePool.destroy(table) }
    table.pointee.clear()
    idle.append(table)
  }

  private static func destroy(_ table: UnsafeMutablePointer<StateTable>) {
    table.deinitialize(count: 1)
    table.deallocate()
  }
}
