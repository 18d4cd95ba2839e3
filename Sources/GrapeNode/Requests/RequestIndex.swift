internal import DequeModule
internal import GrapeCore
internal import GrapeLog
internal import GrapeWire

/// The requests with an idempotency key that are remembered, and what became of them. Pure.
///
/// The window is bounded by age and by number: what is beyond either is forgotten, oldest first. O(1) per operation, amortised.
struct RequestIndex {
  struct Entry {
    var marker: RequestMarker
    /// When the request was taken, milliseconds since 1970.
    var time: Int64
    /// Where its marker is; nil: it is on its way to the log.
    var markerOffset: Int64?
    /// The event's; nil: on its way, or not looked up since the node started.
    var offset: Int64?
    /// What is known of marker and event to hold.
    var durability = Durability.memory
    /// Offsets of its first and its final reply in the topic.
    var firstReply: Int64?
    var finalReply: Int64?

    init(_ marker: RequestMarker, time: Int64, markerOffset: Int64? = nil) {
      self.marker = marker
      self.time = time
      self.markerOffset = markerOffset
    }
  }

  private var entries: [ByteSlice: Entry] = [:]
  private var names: [CorrelationID: ByteSlice] = [:]
  /// In the order in which they came; some may be forgotten already.
  private var order: Deque<(name: ByteSlice, id: CorrelationID)> = []
  /// Forgotten for their number since `oldestMarker` was asked for.
  private(set) var dropped = 0

  var count: Int { entries.count }

  /// The request of this name, unless it is older than the window.
  mutating func find(_ name: ByteSlice, now: Int64, window: Profile.Idempotency) -> Entry? {
    forgetOld(now: now, window)
    guard let entry = entries[name], Self.isWithin(window, entry.time, now: now) else { return nil }
    return entry
  }

  /// Remembers a request. One of the same name that was remembered before is forgotten.
  mutating func insert(_ name: ByteSlice, _ entry: Entry, now: Int64, window: Profile.Idempotency) {
    forget(name)
    entries[name] = entry
    names[entry.marker.id] = name
    order.append((name, entry.marker.id))
    if order.count > 2 * max(entries.count, 1024) { order.removeAll { entries[$0.name]?.marker.id != $0.id } }
    forgetOld(now: now, window)
    while entries.count > window.keys, let oldest = order.popFirst() {
      guard entries[oldest.name]?.marker.id == oldest.id else { continue }
      forget(oldest.name)
      dropped += 1
    }
  }

  /// Changes what is known of a request, if it is still remembered.
  mutating func update(_ id: CorrelationID, _ change: (inout Entry) -> Void) {
    guard let name = names[id] else { return }
    change(&entries[name]!)
  }

  /// What is remembered under this id.
  func entry(_ id: CorrelationID) -> Entry? { names[id].flatMap { entries[$0] } }

  /// A reply was found. One that says that the event never ran, and never will, frees the name: a repeat is a first.
  mutating func replied(_ id: CorrelationID, at offset: Int64, _ status: ReplyStatus) {
    guard let name = names[id] else { return }
    if status.isFinal, status.ran == .never { return forget(name) }
    if entries[name]!.firstReply == nil { entries[name]!.firstReply = offset }
    if status.isFinal { entries[name]!.finalReply = entries[name]!.finalReply ?? offset }
  }

  /// The request came to nothing.
  mutating func remove(_ id: CorrelationID) {
    if let name = names[id] { forget(name) }
  }

  /// Offset of the oldest marker that is remembered: what is before it in the topic is of no use. nil: nothing is remembered. O(n).
  mutating func oldestMarker() -> Int64? {
    dropped = 0
    return entries.values.lazy.compactMap(\.markerOffset).min()
  }

  private mutating func forget(_ name: ByteSlice) {
    guard let entry = entries.removeValue(forKey: name) else { return }
    names[entry.marker.id] = nil
  }

  private mutating func forgetOld(now: Int64, _ window: Profile.Idempotency) {
    while let oldest = order.first {
      if let entry = entries[oldest.name], entry.marker.id == oldest.id {
        if Self.isWithin(window, entry.time, now: now) { return }
        forget(oldest.name)
      }
      order.removeFirst()
    }
  }

  private static func isWithin(_ window: Profile.Idempotency, _ time: Int64, now: Int64) -> Bool {
    now - time < Int64(window.window / .milliseconds(1))
  }
}
