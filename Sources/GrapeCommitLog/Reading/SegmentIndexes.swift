import GrapeLog
import GrapeWire
import Synchronization

/// Opens segment files and loads their indexes, for whoever needs them; keeps indexes used lately within a budget of
/// memory.
final class SegmentIndexes: Sendable {
  /// What was asked for was replaced by a cleaned segment meanwhile: look again.
  enum Fault: Error {
    case replaced
    case failed(LogError)
  }

  private struct Cache: Sendable {
    struct Entry: Sendable {
      var index: IndexFile
      var runs: [UInt64: [PartitionIndex.Location]] = [:]
      var bytes: Int
      var used: UInt64
    }
    var entries: [Segment.Key: Entry] = [:]
    var bytes = 0
    var clock: UInt64 = 0
  }

  private let storage: any SegmentStorage
  private let budget: Int
  private let cache = Mutex(Cache())
  /// Held while files change their names, so that nobody opens one by a name that means another by now.
  private let names = Mutex(())
  /// Held while index files are written.
  private let making = Mutex(())

  init(storage: any SegmentStorage, budget: Int) {
    self.storage = storage
    self.budget = budget
  }

  // MARK: Files

  /// Opens the segment's file for reading.
  func open(_ segment: Segment) throws(Fault) -> any SegmentFile {
    try open(segment, SegmentHeader.fileName(base: segment.base))
  }

  private func open(_ segment: Segment, _ name: String) throws(Fault) -> any SegmentFile {
    try names.withLock { _ throws(Fault) in
      if segment.replaced.load(ordering: .relaxed) { throw .replaced }
      do throws(LogError) {
        return try storage.open(name, writable: false)
      } catch {
        throw .failed(error)
      }
    }
  }

  /// Runs `change`, which gives the names of `segments` to other files; from then on they cannot be opened.
  func replace(_ segments: ArraySlice<Segment>, _ change: () throws(LogError) -> Void) throws(LogError) {
    try names.withLock { _ throws(LogError) in
      try change()
      for segment in segments { segment.replaced.store(true, ordering: .relaxed) }
    }
    cache.withLock { cache in
      for segment in segments {
        if let entry = cache.entries.removeValue(forKey: segment.key) { cache.bytes -= entry.bytes }
      }
    }
  }

  // MARK: Indexes

  /// The index of `segments[place]`, made anew from the segments if its file is missing or damaged.
  func index(_ segments: ArraySlice<Segment>, _ place: Int) throws(Fault) -> IndexFile {
    let segment = segments[place]
    if let known = touch(segment) { return known }
    if let loaded = try load(segment) {
      keep(segment, loaded)
      return loaded
    }
    let rebuilt = try rebuild(segments, place)
    keep(segment, rebuilt)
    return rebuilt
  }

  /// Where a partition's batches are in `segments[place]`.
  func run(
    _ segments: ArraySlice<Segment>, _ place: Int, _ record: IndexFile.Record
  ) throws(Fault) -> [PartitionIndex.Location] {
    let segment = segments[place]
    if let known = cache.withLock({ $0.entries[segment.key]?.runs[record.key] }) { return known }
    let index = try index(segments, place)
    // The record may be of an index that was made anew since.
    let found = index.find(record.topic, record.partition) ?? record
    if let run = try read(segment, index, found) {
      keepRun(segment, found, run)
      return run
    }
    // The directory was sound, this part of the file is not.
    let rebuilt = try rebuild(segments, place)
    keep(segment, rebuilt)
    guard let again = rebuilt.find(record.topic, record.partition), let run = try read(segment, rebuilt, again) else {
      throw .failed(
        LogError(.corrupt, "\(IndexFile.fileName(base: segment.base)): cannot be read back after it was made anew"))
    }
    keepRun(segment, again, run)
    return run
  }

  private func touch(_ segment: Segment) -> IndexFile? {
    cache.withLock { cache in
      cache.clock += 1
      guard cache.entries[segment.key] != nil else { return nil }
      cache.entries[segment.key]!.used = cache.clock
      return cache.entries[segment.key]!.index
    }
  }

  private func keep(_ segment: Segment, _ index: IndexFile) {
    cache.withLock { cache in
      let identifier = segment.key
      if let old = cache.entries.removeValue(forKey: identifier) { cache.bytes -= old.bytes }
      let bytes = index.heldBytes + 256
      cache.clock += 1
      cache.entries[identifier] = Cache.Entry(index: index, bytes: bytes, used: cache.clock)
      cache.bytes += bytes
      evict(&cache, sparing: identifier)
    }
  }

  private func keepRun(_ segment: Segment, _ record: IndexFile.Record, _ run: [PartitionIndex.Location]) {
    let bytes = run.count * MemoryLayout<PartitionIndex.Location>.stride + 64
    // A run that would fill the cache alone is read again when it is needed again.
    guard bytes <= budget / 2 else { return }
    cache.withLock { cache in
      let identifier = segment.key
      guard cache.entries[identifier] != nil, cache.entries[identifier]!.runs[record.key] == nil else { return }
      cache.entries[identifier]!.runs[record.key] = run
      cache.entries[identifier]!.bytes += bytes
      cache.bytes += bytes
      evict(&cache, sparing: identifier)
    }
  }

  private func evict(_ cache: inout Cache, sparing: Segment.Key) {
    while cache.bytes > budget, cache.entries.count > 1 {
      let oldest = cache.entries.filter { $0.key != sparing }.min { $0.value.used < $1.value.used }!
      cache.entries[oldest.key] = nil
      cache.bytes -= oldest.value.bytes
    }
    if cache.bytes > budget, let only = cache.entries[sparing], !only.runs.isEmpty {
      cache.entries[sparing]!.runs = [:]
      cache.entries[sparing]!.bytes = only.index.heldBytes + 256
      cache.bytes = cache.entries[sparing]!.bytes
    }
  }

  /// Nil if the file is missing or not sound.
  private func load(_ segment: Segment) throws(Fault) -> IndexFile? {
    let file: any SegmentFile
    do throws(Fault) {
      file = try open(segment, IndexFile.fileName(base: segment.base))
    } catch .replaced {
      throw .replaced
    } catch {
      return nil
    }
    defer { file.close() }
    do throws(LogError) {
      return try IndexFile(file, of: segment)
    } catch {
      return nil
    }
  }

  private func read(
    _ segment: Segment, _ index: IndexFile, _ record: IndexFile.Record
  ) throws(Fault) -> [PartitionIndex.Location]? {
    do throws(Fault) {
      return try index.run(record) { () throws(Fault) in
        try open(segment, IndexFile.fileName(base: segment.base))
      }
    } catch .replaced {
      throw .replaced
    } catch {
      return nil
    }
  }

  /// Makes the index of `segments[place]` from the segment and the index before it, and writes it.
  private func rebuild(_ segments: ArraySlice<Segment>, _ place: Int) throws(Fault) -> IndexFile {
    // The nearest index before it that is sound; from the log's first segment if there is none.
    var first = place
    var parts: [IndexFile.Part] = []
    while first > segments.startIndex {
      if let sound = try load(segments[first - 1]) {
        parts = sound.parts()
        break
      }
      first -= 1
    }
    var made: IndexFile?
    for next in first...place {
      let segment = segments[next]
      let file = try open(segment)
      defer { file.close() }
      do throws(LogError) {
        parts = try IndexBuilder.parts(of: segment, file, after: parts)
      } catch {
        throw .failed(error)
      }
      let bytes = IndexFile.encode(parts, of: segment)
      // Without room for the file it is made anew whenever it is needed: slow, but no reason to refuse.
      try? write(bytes, of: segment)
      made = IndexFile(bytes, of: segment)
    }
    guard let made else { preconditionFailure("an index that was just made does not decode") }
    return made
  }

  /// Writes the segment's index file, unless the segment was replaced meanwhile.
  func write(_ bytes: ByteSlice, of segment: Segment) throws(LogError) {
    try making.withLock { _ throws(LogError) in
      let name = IndexFile.fileName(base: segment.base)
      try storage.write(bytes, to: name + ".tmp")
      try names.withLock { _ throws(LogError) in
        if segment.replaced.load(ordering: .relaxed) { return try storage.remove(name + ".tmp") }
        try storage.replace(name, with: name + ".tmp")
      }
    }
  }
}

extension SegmentStorage {
  /// Removes a file that may be gone already: several threads clear up.
  func removeIfThere(_ name: String) throws(LogError) {
    guard try list().contains(name) else { return }
    do throws(LogError) {
      try remove(name)
    } catch {
      if try list().contains(name) { throw error }
    }
  }

  /// Creates the file `name`, or makes it anew, with `bytes` in it. Not synchronised.
  func write(_ bytes: ByteSlice, to name: String) throws(LogError) {
    try removeIfThere(name)
    let file = try create(name)
    defer { file.close() }
    try bytes.withUnsafeBytes { bytes throws(LogError) in try file.write(bytes, at: 0) }
  }
}
