import GrapeWire

/// The newest groups, in the memory they were written from: readers that keep up cost no system call and no copy.
struct TailCache {
  private struct Range {
    var storage: ByteStorage
    /// Logical position of the first byte.
    var start: Int64
    var end: Int64
    /// Where `start` lies in the storage.
    var offset: Int
  }

  private var ranges: [Range] = []
  /// Ranges before it were dropped; the array is compacted now and then.
  private var first = 0
  private var bytes = 0
  private let budget: Int

  /// `budget`: bytes of storage to hold. The newest storage stays whatever its size.
  init(budget: Int) { self.budget = budget }

  /// Logical position from which on everything is held; nil if nothing is.
  var start: Int64? { first < ranges.count ? ranges[first].start : nil }

  /// Bytes of storage held.
  var heldBytes: Int { bytes }

  /// Adds bytes behind all others. Returns storage that was dropped to make room; readers may still hold it.
  mutating func append(storage: ByteStorage, offset: Int, position: Int64, count: Int) -> [ByteStorage] {
    let last = ranges.count - 1
    if last >= first, ranges[last].storage === storage, ranges[last].end == position {
      ranges[last].end += Int64(count)
      return []
    }
    ranges.append(Range(storage: storage, start: position, end: position + Int64(count), offset: offset))
    bytes += storage.capacity
    var dropped: [ByteStorage] = []
    while bytes > budget && first < ranges.count - 1 {
      bytes -= ranges[first].storage.capacity
      dropped.append(ranges[first].storage)
      // Lets go of the reference now; the entry itself goes when enough of them are dead.
      ranges[first].storage = ranges[ranges.count - 1].storage
      first += 1
    }
    if first > 32 && first * 2 > ranges.count {
      ranges.removeFirst(first)
      first = 0
    }
    return dropped
  }

  /// The bytes at a logical position; nil if they are not held. O(log ranges).
  func slice(position: Int64, count: Int) -> ByteSlice? {
    guard let start, position >= start else { return nil }
    var low = first
    var high = ranges.count
    while high - low > 1 {
      let middle = (low + high) / 2
      if ranges[middle].start <= position { low = middle } else { high = middle }
    }
    let range = ranges[low]
    guard position + Int64(count) <= range.end else { return nil }
    return ByteSlice(storage: range.storage, offset: range.offset + Int(position - range.start), count: count)
  }
}
