/// The events that wait in one partition, by slot and by when they came. Pure.
///
/// Appends are noted batch by batch, in order; progress takes from the front. What lies close together in time shares an entry,
/// the closer the fewer wait, so that a backlog of any length needs bounded memory: `entryLimit` entries. Counts stay exact;
/// the time of the oldest event is early by at most the time that one entry spans, about a hundredth of what the whole backlog spans.
struct LaneBacklog {
  private struct Entry {
    /// Offset behind its last event.
    var end: Int64
    /// Least timestamp of its batches, milliseconds.
    var oldest: Int64
    /// Events of it that wait, by slot.
    var counts: [Int]
    /// Found when the engine started; the events have not been looked at yet.
    var isUncounted = false
  }

  static let entryLimit = 256

  /// All offsets below are dealt with.
  private(set) var first: Int64
  /// Offset that the next event appended will get.
  private(set) var end: Int64
  private var entries: [Entry] = []
  private var head = 0
  /// Milliseconds that share an entry.
  private var grain: Int64 = 1

  /// - Parameters:
  ///   - first, end: offsets of the events that wait when the engine starts. Of which slots they are is said by `counted`.
  init(first: Int64, end: Int64, slots: Int) {
    self.first = first
    self.end = end
    if first < end {
      entries.append(Entry(end: end, oldest: .max, counts: [Int](repeating: 0, count: slots), isUncounted: true))
    }
  }

  /// Events that wait.
  var count: Int64 { end - first }

  // MARK: What comes

  /// Events were handed to the log: one count per slot, in the order of the manifest.
  mutating func appended(_ counts: [Int], timestamp: Int64) {
    end += Int64(counts.reduce(0, +))
    add(Entry(end: end, oldest: timestamp, counts: counts), at: entries.count)
  }

  /// The log refused events that `appended` told of. What came after them moves up; which of them it was does not matter to the counts.
  mutating func withdrawn(_ counts: [Int]) {
    let total = Int64(counts.reduce(0, +))
    end -= total
    var left = counts
    for index in entries.indices[head...].reversed() where left.contains(where: { $0 > 0 }) {
      for slot in left.indices where slot < entries[index].counts.count {
        let taken = min(left[slot], entries[index].counts[slot])
        entries[index].counts[slot] -= taken
        left[slot] -= taken
      }
    }
    for index in entries.indices[head...] { entries[index].end = min(entries[index].end, end) }
  }

  /// The partition turned out to be longer than what was told of. These events count, but for no slot.
  mutating func seen(end: Int64, slots: Int, timestamp: Int64) {
    guard end > self.end else { return }
    self.end = end
    add(
      Entry(end: end, oldest: timestamp, counts: [Int](repeating: 0, count: slots), isUncounted: false),
      at: entries.count)
  }

  /// A batch of those that waited at the start has been looked at: `counts` are its events from `first` on; it ends at `end`. To be called
  /// in order of offset.
  mutating func counted(_ counts: [Int], upTo end: Int64, timestamp: Int64) {
    guard let place = entries.indices[head...].first(where: { entries[$0].isUncounted }) else { return }
    let isLast = entries[place].end <= end
    if isLast { entries.remove(at: place) }
    if end > first { add(Entry(end: end, oldest: timestamp, counts: counts), at: place) }
  }

  /// Whether events that waited at the start are still to be counted.
  var isCounting: Bool { entries[head...].contains { $0.isUncounted } }

  private mutating func add(_ entry: Entry, at place: Int) {
    if place > head {
      let last = place - 1
      if !entries[last].isUncounted, Self.distance(entries[last].oldest, entry.oldest) < UInt64(grain) {
        return merge(entry, into: last)
      }
    }
    // A long backlog that is almost gone: what comes now is told apart more finely again.
    if entries.count - head < Self.entryLimit / 4, grain > 1 { grain /= 2 }
    entries.insert(entry, at: place)
    while entries.count - head > Self.entryLimit { coarsen() }
  }

  private mutating func merge(_ entry: Entry, into index: Int) {
    entries[index].end = entry.end
    entries[index].oldest = min(entries[index].oldest, entry.oldest)
    for slot in entry.counts.indices { entries[index].counts[slot] += entry.counts[slot] }
  }

  private mutating func coarsen() {
    grain = min(grain, 1 << 61) * 2
    var kept: [Entry] = []
    swap(&kept, &entries)
    let all = kept[head...]
    head = 0
    entries.reserveCapacity(Self.entryLimit + 1)
    for entry in all {
      if let last = entries.last, !last.isUncounted, !entry.isUncounted,
        Self.distance(last.oldest, entry.oldest) < UInt64(grain)
      {
        merge(entry, into: entries.count - 1)
      } else {
        entries.append(entry)
      }
    }
    // Timestamps are the clients' own and need not grow: when no distance brings entries together, neighbours share one.
    guard grain > 1 << 61, entries.count > Self.entryLimit else { return }
    for index in stride(from: entries.count - 1, to: 0, by: -2)
    where !entries[index].isUncounted && !entries[index - 1].isUncounted {
      let entry = entries.remove(at: index)
      merge(entry, into: index - 1)
    }
    grain = 1 << 61
  }

  private static func distance(_ left: Int64, _ right: Int64) -> UInt64 {
    left < right ? right.magnitudeOfDifference(from: left) : left.magnitudeOfDifference(from: right)
  }

  // MARK: What goes

  /// Everything below `offset` is dealt with.
  ///
  /// - Parameters:
  ///   - handled: how many events of each slot ran since the last time, if known.
  ///   - count: counts the events in a range of offsets by looking at them; nil if they are not at hand. Asked only where an entry with events of several slots is left in its middle and
  ///     `handled` does not add up.
  mutating func advance(to offset: Int64, handled: [Int], count: (Range<Int64>) -> [Int]?) {
    guard offset > first else { return }
    let from = first
    var start = first
    var gone = [Int](repeating: 0, count: handled.count)
    while head < entries.count, entries[head].end <= offset {
      for slot in gone.indices where slot < entries[head].counts.count { gone[slot] += entries[head].counts[slot] }
      start = max(start, entries[head].end)
      head += 1
    }
    first = offset
    end = max(end, offset)
    if head == entries.count {
      entries.removeAll(keepingCapacity: true)
      head = 0
      grain = 1
      return
    }
    if head >= Self.entryLimit {
      entries.removeFirst(head)
      head = 0
    }
    guard start < offset, !entries[head].isUncounted else { return }
    take(
      start..<offset, ran: zip(handled, gone).map { $0 - $1 },
      isKnown: Int64(handled.reduce(0, +)) == offset - from, count)
  }

  /// Takes a part of the entry at the head.
  private mutating func take(_ range: Range<Int64>, ran: [Int], isKnown: Bool, _ count: (Range<Int64>) -> [Int]?) {
    let present = entries[head].counts.indices.filter { entries[head].counts[$0] > 0 }
    guard let parts = isKnown ? ran : count(range) else {
      // With several slots the entry is right again when it is passed.
      if present.count == 1 {
        entries[head].counts[present[0]] = max(0, entries[head].counts[present[0]] - range.count)
      }
      return
    }
    for slot in present where slot < parts.count {
      entries[head].counts[slot] = max(0, entries[head].counts[slot] - max(0, parts[slot]))
    }
  }

  // MARK: What is there

  /// Events of each slot that wait, added to `counts`, and the earliest timestamp among them, where it is earlier than in `oldest`.
  func report(counts: inout [Int], oldest: inout [Int64?]) {
    for entry in entries[head...] {
      for slot in entry.counts.indices where slot < counts.count && entry.counts[slot] > 0 {
        counts[slot] += entry.counts[slot]
        oldest[slot] = min(oldest[slot] ?? .max, entry.oldest)
      }
    }
  }

  /// The application has another set of slots: `slots[i]` is the new place of what was slot `i`; nil: gone.
  mutating func rearrange(_ slots: [Int?], count: Int) {
    for index in entries.indices[head...] {
      var counts = [Int](repeating: 0, count: count)
      for (old, new) in slots.enumerated() where old < entries[index].counts.count {
        if let new { counts[new] += entries[index].counts[old] }
      }
      entries[index].counts = counts
    }
  }
}

extension Int64 {
  /// `self - other`, where `other` is not greater: two extremes may be further apart than the type reaches.
  fileprivate func magnitudeOfDifference(from other: Int64) -> UInt64 {
    UInt64(bitPattern: self) &- UInt64(bitPattern: other)
  }
}
