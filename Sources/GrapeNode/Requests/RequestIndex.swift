internal import DequeModule
internal import GrapeCore
internal import GrapeLog
internal import GrapeWire

/// The requests with an idempotency key that are remembered, and what became of them. Pure.
///
/// The window is bounded by age and by number: what is beyond either is forgotten, oldest first. O(1) per operation, amortised.
struct RequestIndex {
  /// How far a request has come whose node must first know that it is the first of its name.
  enum Claim: Hashable {
    /// This node's, on its way to the topic or back.
    case sent
    /// It was read. Its event is appended before this time, or never; milliseconds of this machine's monotonic clock.
    case held(until: Int64)
  }

  struct Entry {
    var marker: RequestMarker
    /// nil: its event is in the log, or about to be.
    var claim: Claim?
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

    init(_ marker: RequestMarker, time: Int64, markerOffset: Int64? = nil, claim: Claim? = nil) {
      self.marker = marker
      self.time = time
      self.markerOffset = markerOffset
      self.claim = claim
    }

    /// True if its node had the time to append its event, and did not.
    func isForfeited(_ clock: Int64) -> Bool {
      if case .held(let until) = claim { until <= clock } else { false }
    }
  }

  /// What a record of the topic, read in its turn, says of a name.
  enum Reading: Equatable {
    /// This node's claim is the first: its event may be appended.
    case won
    /// What was known under the name until now gives way to the record's request.
    case superseded(CorrelationID)
    case noted
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

  /// A claim was read. Of all claims to a name the first in the topic counts, until its node has had the time to append the event and did not.
  ///
  /// Whoever claims a name that seems taken here has perhaps found that it is not any more: so each claim puts off the time from which this node would claim the
  /// name itself.
  ///
  /// - Parameters:
  ///   - entry: as it is to be remembered, with `claim` as of now.
  ///   - clock: milliseconds of this machine's monotonic clock.
  mutating func readClaim(
    _ name: ByteSlice, _ entry: Entry, clock: Int64, now: Int64, window: Profile.Idempotency
  ) -> Reading {
    guard let known = find(name, now: now, window: window) else {
      insert(name, entry, now: now, window: window)
      return .noted
    }
    let isSame = known.marker.id == entry.marker.id
    switch known.claim {
    case nil: return .noted
    case .sent where isSame:
      update(known.marker.id) { $0.claim = entry.claim }
      return .won
    case .held where isSame: return .noted
    case .held where !known.isForfeited(clock):
      update(known.marker.id) { $0.claim = entry.claim }
      return .noted
    case .sent, .held:
      insert(name, entry, now: now, window: window)
      return .superseded(known.marker.id)
    }
  }

  /// A marker was read: the event is in the log.
  ///
  /// - Parameter isLoading: it is from before this node's start; the last one of a name counts.
  mutating func readMarker(
    _ name: ByteSlice, _ entry: Entry, isLoading: Bool, now: Int64, window: Profile.Idempotency
  ) -> Reading {
    guard let known = find(name, now: now, window: window) else {
      insert(name, entry, now: now, window: window)
      return .noted
    }
    if known.marker.id == entry.marker.id {
      // Of what this node has appended itself it knows more.
      guard known.claim != nil else { return .noted }
    } else if known.claim == nil, !isLoading {
      return .noted
    }
    insert(name, entry, now: now, window: window)
    return known.marker.id == entry.marker.id ? .noted : .superseded(known.marker.id)
  }

  /// Changes what is known of a request, if it is still remembered.
  mutating func update(_ id: CorrelationID, _ change: (inout Entry) -> Void) {
    guard let name = names[id] else { return }
    change(&entries[name]!)
  }

  /// The name of the request with this id.
  func name(_ id: CorrelationID) -> ByteSlice? { names[id] }

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
