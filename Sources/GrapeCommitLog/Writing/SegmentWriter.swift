import GrapeLog

/// The end of the log on disk: writes groups one behind the other, changing segments when one is full.
/// Owned by whoever writes.
struct SegmentWriter {
  /// The segment that takes the next group.
  private(set) var active: SegmentPreparer.Prepared
  /// Bytes of the active file that are in use.
  private(set) var end: Int64
  private let storage: any SegmentStorage
  private let preparer: SegmentPreparer
  private let segmentBytes: Int64
  /// False if everything written is on the disk.
  private var dirty = false
  private var asked = false
  /// Blocks of the active file before this have been written to, if only with zeros.
  private var settled: Int64

  /// Groups up to this size have zeros written ahead of them.
  private static let smallGroup = 64 << 10
  /// So many at a time.
  private static let zerosAhead = 512 << 10
  private static let zeros = [UInt8](repeating: 0, count: zerosAhead)

  init(
    active: SegmentPreparer.Prepared, end: Int64, storage: any SegmentStorage, preparer: SegmentPreparer,
    segmentBytes: Int
  ) {
    self.active = active
    self.end = end
    settled = end
    self.storage = storage
    self.preparer = preparer
    self.segmentBytes = Int64(segmentBytes)
  }

  /// Logical position of the next group.
  var position: Int64 { active.base + end }

  /// True once per segment, when it is half full: time to prepare the next one.
  mutating func shouldPrepareNext() -> Bool {
    if asked || end * 2 < active.capacity { return false }
    asked = true
    return true
  }

  /// Where the next segment begins, and how large it is.
  var next: (base: Int64, capacity: Int64) { (active.base + active.capacity, segmentBytes) }

  /// Makes sure that a group of `count` bytes fits; true if it goes into a new segment.
  ///
  /// What the full segment holds is durable before the new one takes anything: groups beyond a segment prove that it
  /// was whole. Errors: `noSpace` if there is no room for a new segment, in which case nothing has changed.
  mutating func makeRoom(for count: Int) throws(LogError) -> Bool {
    if end + Int64(count) <= active.capacity { return false }
    let needed = max(segmentBytes, Int64(SegmentHeader.reservedBytes + count))
    let fresh = try preparer.take(base: next.base, capacity: needed)
    do {
      try seal()
    } catch {
      // Not an answer to the question whether there is room: a failed synchronisation ends the writing.
      throw LogError(.failed, error.message)
    }
    active = fresh
    end = Int64(SegmentHeader.reservedBytes)
    settled = end
    asked = false
    return true
  }

  /// Writes a group whose size, padding included, is a multiple of 8.
  mutating func write(_ group: UnsafeRawBufferPointer) throws(LogError) {
    dirty = true
    try active.file.write(group, at: end)
    end += Int64(group.count)
    if end > settled { try settle(after: group.count) }
  }

  /// Blocks that are allocated but were never written cost their first fdatasync a commit of the file system's journal. For small groups,
  /// whose latency is all that synchronisation, zeros are written ahead, many blocks at once: the groups then overwrite. Large
  /// groups have no use for it.
  private mutating func settle(after groupBytes: Int) throws(LogError) {
    settled = end
    guard groupBytes <= Self.smallGroup else { return }
    let count = min(Int64(Self.zerosAhead), active.capacity - end)
    guard count > 0 else { return }
    let file = active.file
    let start = end
    let result: Result<Void, LogError> = Self.zeros.withUnsafeBytes { zeros in
      do throws(LogError) {
        return .success(try file.write(UnsafeRawBufferPointer(rebasing: zeros[..<Int(count)]), at: start))
      } catch {
        return .failure(error)
      }
    }
    try result.get()
    settled = end + count
  }

  mutating func synchronize() throws(LogError) {
    try active.file.synchronize()
    dirty = false
  }

  /// Everything to the disk, the file cut to what is used.
  mutating func seal() throws(LogError) {
    if dirty { try synchronize() }
    // Not synchronised: after a crash the file may have its zeros back, which is no harm.
    try active.file.resize(to: end)
    active.file.close()
  }
}
