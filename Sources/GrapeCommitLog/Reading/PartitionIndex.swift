/// Where the batches of one partition are: offset and time to position.
///
/// Sixteen bytes per batch. Batches stand in pages of up to 4,096 that hold what is common to them; a page ends early
/// when a difference does not fit 32 bits, and with its segment, so that what index files know too can be dropped.
/// Pages grow with use, so that a partition with little in it costs little.
struct PartitionIndex: Sendable {
  /// One batch.
  struct Location: Equatable, Sendable {
    var baseOffset: Int64
    /// Logical position of the batch's first byte.
    var position: Int64
    var length: Int
    /// Milliseconds since 1970 UTC.
    var maxTimestamp: Int64
  }

  private struct Slot {
    var offset: UInt32
    var position: UInt32
    var length: UInt32
    var timestamp: Int32
  }

  /// Batches of one segment that lie near each other.
  struct Page: Sendable {
    fileprivate let segment: Int64
    fileprivate let baseOffset: Int64
    fileprivate let basePosition: Int64
    fileprivate let baseTimestamp: Int64
    /// Greatest of this page and all before it: makes the search by time a binary one.
    fileprivate var greatestTimestamp: Int64
    private var slots: [Slot] = []

    init(_ location: Location, segment: Int64, greatestTimestamp: Int64) {
      self.segment = segment
      baseOffset = location.baseOffset
      basePosition = location.position
      baseTimestamp = location.maxTimestamp
      self.greatestTimestamp = max(greatestTimestamp, location.maxTimestamp)
      _ = append(location)
    }

    var count: Int { slots.count }
    var bytes: UInt64 { slots.reduce(0) { $0 + UInt64($1.length) } }

    fileprivate mutating func append(_ location: Location) -> Bool {
      let (timestamp, overflow) = location.maxTimestamp.subtractingReportingOverflow(baseTimestamp)
      guard slots.count < PartitionIndex.pageSlots, !overflow,
        let offset = UInt32(exactly: location.baseOffset - baseOffset),
        let position = UInt32(exactly: location.position - basePosition),
        let timestamp = Int32(exactly: timestamp)
      else { return false }
      slots.append(Slot(offset: offset, position: position, length: UInt32(location.length), timestamp: timestamp))
      greatestTimestamp = max(greatestTimestamp, location.maxTimestamp)
      return true
    }

    func location(_ place: Int) -> Location {
      let slot = slots[place]
      return Location(
        baseOffset: baseOffset + Int64(slot.offset), position: basePosition + Int64(slot.position),
        length: Int(slot.length), maxTimestamp: baseTimestamp + Int64(slot.timestamp))
    }

    /// The last slot whose base offset is not beyond `offset`. Precondition: the first one's is not.
    fileprivate func slot(of offset: Int64) -> Int {
      let relative = offset - baseOffset
      return partition(slots.count) { Int64(slots[$0].offset) <= relative } - 1
    }
  }

  /// Names a batch in the index.
  struct Place {
    fileprivate var page: Int
    fileprivate var slot: Int
  }

  private static let pageSlots = 4_096
  private var pages: [Page] = []
  /// Of the batches that were dropped: those whose pages index files have.
  private(set) var droppedTimestamp: Int64

  /// An index of batches behind others whose greatest timestamp was `greatestTimestamp`.
  init(greatestTimestamp: Int64 = .min) { droppedTimestamp = greatestTimestamp }

  /// Number of batches. O(pages).
  var count: Int { pages.reduce(0) { $0 + $1.count } }

  /// Bytes of all batches. O(batches).
  var bytes: UInt64 { pages.reduce(0) { $0 + $1.bytes } }

  /// Offset of the first batch; nil if there is none.
  var firstOffset: Int64? { pages.first?.baseOffset }

  /// Of all batches ever added.
  var greatestTimestamp: Int64 { pages.last?.greatestTimestamp ?? droppedTimestamp }

  /// Adds a batch of the segment that begins at `segment`, behind all others.
  mutating func append(_ location: Location, segment: Int64) {
    let last = pages.count - 1
    if last >= 0, pages[last].segment == segment, pages[last].append(location) { return }
    pages.append(Page(location, segment: segment, greatestTimestamp: greatestTimestamp))
  }

  /// Makes `greatestTimestamp` at least `timestamp`: of batches that were there once.
  mutating func raise(timestamp: Int64) {
    if pages.isEmpty {
      droppedTimestamp = max(droppedTimestamp, timestamp)
    } else {
      pages[pages.count - 1].greatestTimestamp = max(pages[pages.count - 1].greatestTimestamp, timestamp)
    }
  }

  /// The pages of one segment.
  func pages(of segment: Int64) -> ArraySlice<Page> {
    let first = partition(pages.count) { pages[$0].segment < segment }
    let last = partition(pages.count) { pages[$0].segment <= segment }
    return pages[first..<last]
  }

  /// Forgets the batches of segments before `segment`.
  mutating func drop(before segment: Int64) {
    let count = partition(pages.count) { pages[$0].segment < segment }
    if count == 0 { return }
    droppedTimestamp = pages[count - 1].greatestTimestamp
    pages.removeFirst(count)
  }

  /// The last batch whose base offset is not beyond `offset`, or the first of all; nil if there is none. O(log n).
  func place(of offset: Int64) -> Place? {
    if pages.isEmpty { return nil }
    let page = partition(pages.count) { pages[$0].baseOffset <= offset } - 1
    guard page >= 0 else { return Place(page: 0, slot: 0) }
    return Place(page: page, slot: pages[page].slot(of: offset))
  }

  /// The first batch with a maximum timestamp at or after `timestamp`; nil if there is none. O(log n + 4,096), unless
  /// batches that were dropped had later timestamps than those that are there: O(n) then.
  func firstLocation(at timestamp: Int64) -> Location? {
    let first = partition(pages.count) { pages[$0].greatestTimestamp < timestamp }
    // A page's greatest timestamp may be that of a batch before it which was dropped.
    for page in first..<pages.count {
      for slot in 0..<pages[page].count {
        let location = pages[page].location(slot)
        if location.maxTimestamp >= timestamp { return location }
      }
    }
    return nil
  }

  /// The batch at `place`, which then names the one behind it; nil at the end.
  func next(_ place: inout Place) -> Location? {
    guard place.page < pages.count else { return nil }
    let location = pages[place.page].location(place.slot)
    place.slot += 1
    if place.slot == pages[place.page].count { place = Place(page: place.page + 1, slot: 0) }
    return location
  }
}

/// Length of the prefix of 0 ..< count for which `belongs` holds; it must hold for a prefix.
func partition(_ count: Int, _ belongs: (Int) -> Bool) -> Int {
  var low = 0
  var high = count
  while low < high {
    let middle = (low + high) / 2
    if belongs(middle) { low = middle + 1 } else { high = middle }
  }
  return low
}
