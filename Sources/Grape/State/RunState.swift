internal import Glibc
internal import GrapeState
internal import GrapeWire

/// What the handlers of one delivery read and write of the state. Reused by later deliveries.
@usableFromInline
final class RunState {
  /// nil: the node keeps none.
  private let space: StateSpace?
  let outputs: OutputSet
  /// Time of day in milliseconds.
  let now: @Sendable () -> Int64
  /// An event is being handled.
  var isOpen = false
  private var partition: Int32 = 0
  /// The delivery's partition, once it was looked at.
  private var own: PartitionOverlay?
  /// `own` is being looked at.
  private var isLooking = false
  // What reads go through, without reference counts: `own` keeps it, and changes none of it before the delivery's end.
  private var older: UnsafeMutablePointer<UnsafeMutablePointer<StateTable>>
  private var olderCount = 0
  private var olderCapacity = 16
  private unowned(unsafe) var base: (any StateBase)?
  /// What the delivery writes, once it does.
  private var table: UnsafeMutablePointer<StateTable>?
  /// Partitions of others that were looked at.
  private var visited: [PartitionOverlay] = []
  /// Where full keys are put together.
  let scratch: UnsafeMutableRawPointer
  private let hashStart = StateHash.start
  /// Bytes.
  let maxKey: Int
  let maxValue: Int
  /// The event that wrote more than fits.
  private var overflowedEvent: UInt64 = 0
  /// What ended a sequence that could not say so.
  private var failure: StateError?
  private var records: [Int32: Output] = [:]

  /// Room that the batches of records need beside them, in bytes.
  private static let batchMargin = 512
  private static let plainHeader = ByteSlice([0])

  init(space: StateSpace?, outputs: OutputSet, now: @escaping @Sendable () -> Int64) {
    self.space = space
    self.now = now
    self.outputs = outputs
    maxKey = space?.info.maxKey ?? StateLimits.key
    maxValue = space?.info.maxValue ?? StateLimits.value
    older = .allocate(capacity: olderCapacity)
    scratch = .allocate(byteCount: StateLimits.fullKey + 1, alignment: 16)
  }

  deinit {
    if let table { space?.tables.give(table) }
    scratch.deallocate()
    older.deallocate()
  }

  // MARK: Deliveries and events

  func beginDelivery(partition: Int32, first: Int64) {
    self.partition = partition
    // Whether or not the handlers are going to use state.
    space?.known(partition)?.discard(beyond: first)
  }

  /// The number of the event being handled.
  var event: UInt64 { outputs.event }
  /// More was written for the event being handled than fits into this delivery's result.
  var hasOverflowed: Bool { overflowedEvent == outputs.event }

  /// Why the event being handled must fail though its handler does not know.
  @inline(__always)
  func checkFailure() throws(StateError) {
    if failure != nil { try throwFailure() }
  }

  @inline(never)
  private func throwFailure() throws(StateError) {
    let error = failure
    failure = nil
    if let error { throw error }
  }

  func fail(_ error: StateError) { failure = error }

  /// Drops what the event being handled wrote.
  func rollBackEvent() {
    failure = nil
    guard let table else { return }
    table.pointee.rollBack(outputs.event)
    count(table)
  }

  /// The delivery's events are done: what they wrote becomes part of its outputs.
  func finish(processed: Int64, timestamp: Int64) throws(EmitError) {
    guard let table, let own, let space else { return }
    self.table = nil
    guard table.pointee.count > 0 else { return space.tables.give(table) }
    table.pointee.settle()
    let output: Output
    if let known = records[own.partition] {
      output = known
    } else {
      output = Output(topic: space.info.topic, partition: own.partition, isReply: false)
      records[own.partition] = output
    }
    try output.write(table, timestamp: timestamp)
    outputs.attach(output)
    own.seal(table, processed: processed)
  }

  /// Looks at nothing any more.
  func leave() {
    isOpen = false
    failure = nil
    if let table { space?.tables.give(table) }
    table = nil
    isLooking = false
    base = nil
    olderCount = 0
    own?.end()
    own = nil
    for overlay in visited { overlay.leave() }
    visited.removeAll(keepingCapacity: true)
  }

  // MARK: Opening

  @inline(__always)
  private func open() throws(StateError) {
    if !(isOpen && isLooking) { try openSlowly() }
  }

  @inline(never)
  private func openSlowly() throws(StateError) {
    let overlay = try checkedSpace().partition(partition)
    try overlay.begin()
    if overlay.segments.count > olderCapacity {
      older.deallocate()
      olderCapacity = 2 * overlay.segments.count
      older = .allocate(capacity: olderCapacity)
    }
    olderCount = overlay.segments.count
    for (index, segment) in overlay.segments.enumerated() { (older + index).initialize(to: segment.table) }
    base = overlay.base
    own = overlay
    isLooking = true
  }

  private func checkedSpace() throws(StateError) -> StateSpace {
    guard isOpen else {
      throw StateError(
        .unavailable, "state is used while no event is being handled; it is there for handlers of events")
    }
    guard let space else { throw StateError(.unavailable, "this node keeps no state") }
    return space
  }

  /// Of the application's state.
  func partitionCount() throws(StateError) -> Int32 { try checkedSpace().info.partitions }

  /// The partition that is read: the delivery's own (nil), or another, which is not what the delivery's handlers write.
  private func overlay(_ wanted: Int32?) throws(StateError) -> (overlay: PartitionOverlay, isOwn: Bool) {
    guard let wanted, wanted != partition else {
      try open()
      // It was opened just now.
      return (own.unsafelyUnwrapped, true)
    }
    if let known = visited.first(where: { $0.partition == wanted }) {
      _ = try checkedSpace()
      return (known, false)
    }
    let overlay = try checkedSpace().partition(wanted)
    try overlay.visit()
    visited.append(overlay)
    return (overlay, false)
  }

  // MARK: Reading

  /// The entry of a full key.
  @inline(__always)
  func found(_ key: UnsafeRawBufferPointer, in wanted: Int32?) throws(StateError) -> StateFound? {
    if wanted != nil {
      let (overlay, isOwn) = try overlay(wanted)
      if !isOwn { return try overlay.base.entry(key) }
    }
    return try found(key, StateHash.hash(key, start: hashStart))
  }

  @inline(__always)
  private func found(_ key: UnsafeRawBufferPointer, _ hash: UInt64) throws(StateError) -> StateFound? {
    try open()
    if let table {
      let index = table.pointee.find(key, hash)
      if index >= 0 { return table.pointee[index].block.bytes.map { StateFound(entry: $0) } }
    }
    return try older(key, hash)
  }

  /// What the delivery itself did not write.
  @inline(__always)
  private func older(_ key: UnsafeRawBufferPointer, _ hash: UInt64) throws(StateError) -> StateFound? {
    var position = olderCount
    while position > 0 {
      position &-= 1
      let table = older[position]
      let index = table.pointee.find(key, hash)
      if index >= 0 { return table.pointee[index].block.bytes.map { StateFound(entry: $0) } }
    }
    return try base.unsafelyUnwrapped.entry(key)
  }

  // MARK: Writing

  /// Makes sure that there is a table, and that what comes belongs to the present event.
  @inline(__always)
  private func writable(_ space: StateSpace) -> UnsafeMutablePointer<StateTable> {
    if let table {
      table.pointee.enter(outputs.event)
      return table
    }
    let made = space.tables.take()
    table = made
    made.pointee.enter(outputs.event)
    return made
  }

  /// Writes an entry: `header` is all of it but the value.
  @inline(__always)
  func write(
    _ key: UnsafeRawBufferPointer, header: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer
  ) throws(StateError) {
    try open()
    let table = writable(space.unsafelyUnwrapped)
    let hash = StateHash.hash(key, start: hashStart)
    let known = table.pointee.find(key, hash)
    let size = header.count &+ value.count
    try admit(known < 0 ? StateTable.recordMargin + key.count + size : size - Int(table.pointee[known].block.count))
    let place = table.pointee.place(key, hash, known: known, size: size)
    // The value first: it may be a part of what was there.
    if value.count > 0 { memmove(place + header.count, value.baseAddress.unsafelyUnwrapped, value.count) }
    place.copyMemory(from: header.baseAddress.unsafelyUnwrapped, byteCount: header.count)
    count(table)
  }

  func remove(_ key: UnsafeRawBufferPointer) throws(StateError) {
    try open()
    let table = writable(space.unsafelyUnwrapped)
    let hash = StateHash.hash(key, start: hashStart)
    let known = table.pointee.find(key, hash)
    if known < 0 { try admit(StateTable.recordMargin + key.count) }
    table.pointee.remove(key, hash, known: known)
    count(table)
  }

  /// Appends to the value of an entry, or makes one. The value's size now.
  func append(_ key: UnsafeRawBufferPointer, _ data: UnsafeRawBufferPointer) throws(StateError) -> Int {
    try open()
    let table = writable(space.unsafelyUnwrapped)
    let hash = StateHash.hash(key, start: hashStart)
    let known = table.pointee.find(key, hash)
    if known >= 0, let entry = table.pointee[known].block.bytes {
      let size = try appended(to: entry, data.count)
      try admit(data.count)
      let place = table.pointee.extend(known, by: data.count)
      if data.count > 0 { memmove(place, data.baseAddress.unsafelyUnwrapped, data.count) }
      count(table)
      return size
    }
    let old = known >= 0 ? nil : try older(key, hash)
    let entry = old?.entry ?? Self.plainHeader.unsafeBytes
    let size = try appended(to: entry, data.count)
    let total = entry.count + data.count
    try admit(known < 0 ? StateTable.recordMargin + key.count + total : total)
    let place = table.pointee.place(key, hash, known: known, size: total)
    place.copyMemory(from: entry.baseAddress.unsafelyUnwrapped, byteCount: entry.count)
    if data.count > 0 { memmove(place + entry.count, data.baseAddress.unsafelyUnwrapped, data.count) }
    withExtendedLifetime(old) {}
    count(table)
    return size
  }

  private func appended(to entry: UnsafeRawBufferPointer, _ extra: Int) throws(StateError) -> Int {
    let size = try StateEntry(entry).value.count + extra
    try check(value: size)
    return size
  }

  @inline(__always)
  func check(value size: Int) throws(StateError) {
    if size > maxValue { throw RunState.tooLarge(size, maxValue) }
  }

  @inline(never)
  private static func tooLarge(_ size: Int, _ limit: Int) -> StateError {
    StateError(.tooLarge, "the value would have \(size) bytes, \(limit) are allowed")
  }

  /// Refuses what would make the result too large for a frame.
  @inline(__always)
  private func admit(_ growth: Int) throws(StateError) {
    if !outputs.admits(growth + Self.batchMargin) { try refuse() }
  }

  @inline(never)
  private func refuse() throws(StateError) {
    overflowedEvent = outputs.event
    throw StateError(
      .tooLarge,
      "what is written and emitted for one event passes the \(outputs.byteLimit) bytes that the node takes at once")
  }

  @inline(__always)
  private func count(_ table: UnsafeMutablePointer<StateTable>) {
    outputs.stateByteCount = table.pointee.byteCount
  }

  // MARK: Scanning

  /// Walks a part of the partition's state as it is now.
  func scan(_ request: StatePageRequest, in wanted: Int32?, limit: Int) throws(StateError) -> StateScan {
    let (overlay, isOwn) = try overlay(wanted)
    var changed: [StateScan.Change] = []
    if isOwn {
      var tables = overlay.segments.reversed().map(\.table)
      if let table {
        table.pointee.beginScan()
        tables.insert(table, at: 0)
      }
      changed = try StateScan.changes(in: tables, request, limit: limit)
    }
    return StateScan(overlay, request, changes: changed, limit: limit, copies: !isOwn)
  }
}

extension Output {
  /// Writes the last write of each key as records.
  fileprivate func write(_ table: UnsafeMutablePointer<StateTable>, timestamp: Int64) throws(EmitError) {
    let noHeaders: StaticString = "\0"
    let section = UnsafeRawBufferPointer(start: noHeaders.utf8Start, count: 1)
    for index in 0..<table.pointee.count {
      let entry = table.pointee[index]
      let value = entry.block.bytes
      let size = Int(entry.keyCount) + (value?.count ?? 0) + StateTable.recordMargin
      if state.pointee.builder.byteCount + size > Output.batchLimit, !state.pointee.builder.isEmpty { try cut() }
      state.pointee.builder.append(key: entry.keyBytes, value: value, headerSection: section, timestamp: timestamp)
    }
  }
}
