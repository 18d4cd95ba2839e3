/// Where the batches of one partition are: offset and time to position.
///
/// Sixteen bytes per batch. Batches stand in pages of up to 4,096 that hold what is common to them; a page ends early
/// when a difference does not fit 32 bits. Pages grow with use, so that a partition with little in it costs little.
struct PartitionIndex {
  /// One batch.
  struct Location: Equatable {
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

  private struct Page {
    let baseOffset: Int64
    let basePosition: Int64
    let baseTimestamp: Int64
    /// Greatest of this page and all before it: makes the search by time a binary one.
    var greatestTimestamp: Int64
    var slots: [Slot] = []

    func slot(for location: Location) -> Slot? {
      let (timestamp, overflow) = location.maxTimestamp.subtractingReportingOverflow(baseTimestamp)
      guard slots.count < PartitionIndex.pageSlots, !overflow,
        let offset = UInt32(exactly: location.baseOffset - baseOffset),
        let position = UInt32(exactly: location.position - basePosition),
        let timestamp = Int32(exactly: timestamp)
      else { return nil }
      return Slot(offset: offset, position: position, length: UInt32(location.length), timestamp: timestamp)
    }

    func location(_ place: Int) -> Location {
      let slot = slots[place]
      return Location(
        baseOffset: baseOffset + Int64(slot.offset), position: basePosition + Int64(slot.position),
        length: Int(slot.length), maxTimestamp: baseTimestamp + Int64(slot.timestamp))
    }
  }

  /// Names a batch in the index.
  struct Place {
    fileprivate var page: Int
    fileprivate var slot: Int
  }

  private static let pageSlots = 4_096
  private var pages: [Page] = []

  /// Number of batches. O(pages).
  var count: Int { pages.reduce(0) { $0 + $1.slots.count } }

  /// Adds a batch behind all others.
  mutating func append(_ location: Location) {
    let last = pages.count - 1
    if last >= 0, let slot = pages[last].slot(for: location) {
      pages[last].slots.append(slot)
      pages[last].greatestTimestamp = max(pages[last].greatestTimestamp, location.maxTimestamp)
      return
    }
    var page = Page(
      baseOffset: location.baseOffset, basePosition: location.position, baseTimestamp: location.maxTimestamp,
      greatestTimestamp: max(pages.last?.greatestTimestamp ?? .min, location.maxTimestamp))
    page.slots.append(page.slot(for: location)!)
    pages.append(page)
  }

  /// The last batch whose base offset is not beyond `offset`; nil if all are. O(log n).
  func place(of offset: Int64) -> Place? {
    let page = partition(pages.count) { pages[$0].baseOffset <= offset } - 1
    guard page >= 0 else { return nil }
    let slots = pages[page].slots
    let relative = offset - pages[page].baseOffset
    let slot = partition(slots.count) { Int64(slots[$0].offset) <= relative } - 1
    return Place(page: page, slot: slot)
  }

  /// The first batch with a maximum timestamp at or after `timestamp`; nil if there is none. O(log n + 4,096).
  func firstLocation(at timestamp: Int64) -> Location? {
    let page = partition(pages.count) { pages[$0].greatestTimestamp < timestamp }
    guard page < pages.count else { return nil }
    for slot in pages[page].slots.indices {
      let location = pages[page].location(slot)
      if location.maxTimestamp >= timestamp { return location }
    }
    return nil
  }

  /// The batch at `place`, which then names the one behind it; nil at the end.
  func next(_ place: inout Place) -> Location? {
    guard place.page < pages.count else { return nil }
    let location = pages[place.page].location(place.slot)
    place.slot += 1
    if place.slot == pages[place.page].slots.count { place = Place(page: place.page + 1, slot: 0) }
    return location
  }
}

/// Length of the prefix of 0 ..< count for which `belongs` holds; it must hold for a prefix.
private func partition(_ count: Int, _ belongs: (Int) -> Bool) -> Int {
  var low = 0
  var high = count
  while low < high {
    let middle = (low + high) / 2
    if belongs(middle) { low = middle + 1 } else { high = middle }
  }
  return low
}
