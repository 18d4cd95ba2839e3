import GrapeLog
import GrapeWire
import Synchronization

/// Reads batches that memory no longer holds, on a thread of its own: neither the writer nor an event loop ever waits
/// for it.
final class DiskReader: @unchecked Sendable {
  /// What somebody wants to read.
  struct Request: Sendable {
    var partition: TopicPartition
    var topic: TopicID
    var offset: Int64
    var maxBytes: Int
    var bounds: PartitionBounds
    var source: Source
  }

  /// Where the batches are.
  enum Source: Sendable {
    /// Known from memory: each batch with its segment.
    case located([PartitionIndex.Location], [Segment], floor: Int64)
    /// To be looked up in the indexes of these segments.
    case cold(ArraySlice<Segment>, floor: Int64)
  }

  /// What came of a request.
  enum Answer {
    case result(Result<ReadResult, LogError>)
    /// The segments before this position hold nothing from the offset on: what memory knows comes next.
    case nothing(searched: Int64)
    /// A segment was replaced by a cleaned one meanwhile: look again.
    case replaced
  }

  /// Bytes between two batches that are rather read along than skipped: a call costs more.
  private static let gapBytes: Int64 = 32 << 10
  /// Most bytes per call, unless a single batch is larger.
  private static let rangeBytes: Int64 = 4 << 20

  private let indexes: SegmentIndexes
  private let jobs: any JobQueue
  private let turns: ReadTurns?
  // Only the jobs touch what follows, which is what makes the class safe to share.
  private var files: [Segment.Key: OpenFile] = [:]
  private var uses: [Segment.Key] = []
  private let openLimit: Int

  private struct OpenFile {
    let segment: Segment
    let file: any SegmentFile
    var readsAhead = true
  }

  /// `turns`: who else uses the disk; nil: nobody.
  init(indexes: SegmentIndexes, jobs: any JobQueue, turns: ReadTurns?, openFiles: Int) {
    self.indexes = indexes
    self.jobs = jobs
    self.turns = turns
    self.openLimit = openFiles
  }

  /// Queues a request; false if there are too many.
  func read(_ request: Request, _ answer: @escaping @Sendable (Answer) -> Void) -> Bool {
    jobs.add { answer(self.perform(request)) }
  }

  /// Queues work that needs indexes; false if there is too much.
  func add(_ job: @escaping @Sendable () -> Void) -> Bool { jobs.add(job) }

  /// Finishes what is queued, closes the files, then calls `completion`.
  func stop(completion: @escaping @Sendable () -> Void) {
    jobs.stop {
      for open in self.files.values { open.file.close() }
      self.files = [:]
      completion()
    }
  }

  /// Lets go of files whose names mean others by now, so that their space becomes free. Only to be called in a job.
  func closeReplaced() {
    for (key, open) in files where open.segment.replaced.load(ordering: .relaxed) {
      open.file.close()
      files[key] = nil
      uses.removeAll { $0 == key }
    }
  }

  private func perform(_ request: Request) -> Answer {
    do throws(SegmentIndexes.Fault) {
      var batches: [LogBatch] = []
      switch request.source {
      case .located(let locations, let segments, _): try read(locations, segments, request, into: &batches)
      case .cold(let segments, _): try lookUp(segments, request, into: &batches)
      }
      return batches.isEmpty
        ? .nothing(searched: request.source.floor)
        : .result(.success(ReadResult(batches: batches, bounds: request.bounds)))
    } catch {
      switch error {
      case .replaced: return .replaced
      case .failed(let error): return .result(.failure(error))
      }
    }
  }

  /// Follows the indexes from the request's offset to the first segment that has something, and reads from that one.
  private func lookUp(
    _ segments: ArraySlice<Segment>, _ request: Request, into batches: inout [LogBatch]
  ) throws(SegmentIndexes.Fault) {
    let search = ColdSearch(indexes, segments, topic: request.topic, partition: request.partition.partition)
    guard let found = try search.segment(endingBehind: request.offset) else { return }
    for place in found..<segments.endIndex {
      let run = try search.run(place)
      var first = max(GrapeCommitLog.partition(run.count) { run[$0].baseOffset <= request.offset } - 1, 0)
      while first < run.count, batches.isEmpty {
        var last = first + 1
        var bytes = run[first].length
        while last < run.count, bytes + run[last].length <= request.maxBytes {
          bytes += run[last].length
          last += 1
        }
        let one = [Segment](repeating: segments[place], count: last - first)
        // All of it may lie before the offset, where compaction left a hole: then what comes next is meant.
        try read(Array(run[first..<last]), one, request, into: &batches)
        first = last
      }
      if !batches.isEmpty { return }
    }
  }

  private func read(
    _ locations: [PartitionIndex.Location], _ segments: [Segment], _ request: Request,
    into batches: inout [LogBatch]
  ) throws(SegmentIndexes.Fault) {
    batches.reserveCapacity(batches.count + locations.count)
    var first = 0
    while first < locations.count {
      let last = endOfRange(locations, segments, from: first)
      try readRange(locations[first..<last], segments[first], request, into: &batches)
      first = last
    }
  }

  /// Neighbours in one file are read in one call.
  private func endOfRange(
    _ locations: [PartitionIndex.Location], _ segments: [Segment], from first: Int
  ) -> Int {
    let start = locations[first].position
    var end = start + Int64(locations[first].length)
    var next = first + 1
    while next < locations.count, segments[next] === segments[first] {
      let batch = locations[next]
      let extended = batch.position + Int64(batch.length)
      if batch.position - end > Self.gapBytes || extended - start > Self.rangeBytes { break }
      end = extended
      next += 1
    }
    return next
  }

  private func readRange(
    _ locations: ArraySlice<PartitionIndex.Location>, _ segment: Segment, _ request: Request,
    into batches: inout [LogBatch]
  ) throws(SegmentIndexes.Fault) {
    let start = locations.first!.position
    let last = locations.last!
    let count = Int(last.position - start) + last.length
    let file = try file(segment)
    let block = ByteStorage(capacity: count)
    let target = UnsafeMutableRawBufferPointer(start: block.base, count: count)
    do throws(LogError) {
      guard try read(file, segment.key, into: target, at: start - segment.base) == count else {
        throw LogError(
          .corrupt,
          "\(file.path): ends before byte \(start - segment.base + Int64(count)), which \(request.partition) needs; "
            + "run grape log verify")
      }
      for location in locations {
        let slice = ByteSlice(storage: block, offset: Int(location.position - start), count: location.length)
        let batch = try check(slice, location, request.partition, file, location.position - segment.base)
        if batch.lastOffset >= request.offset { batches.append(batch) }
      }
    } catch {
      throw .failed(error)
    }
  }

  /// Reads as the writer leaves room for it. Returns fewer bytes only at the file's end.
  private func read(
    _ file: any SegmentFile, _ key: Segment.Key, into target: UnsafeMutableRawBufferPointer, at offset: Int64
  ) throws(LogError) -> Int {
    var done = 0
    while done < target.count {
      let rest = UnsafeMutableRawBufferPointer(rebasing: target[done...])
      let place = offset + Int64(done)
      guard let turns, !turns.isFree else {
        setReadAhead(true, file, key)
        return done + (try file.read(into: rest, at: place))
      }
      setReadAhead(false, file, key)
      // What is in memory, perhaps by an earlier piece, takes nothing from anybody.
      let cached = try file.readCached(into: rest, at: place)
      done += cached
      if cached == rest.count { break }
      let count = min(rest.count - cached, ReadPacing.pieceBytes)
      let piece = UnsafeMutableRawBufferPointer(rebasing: rest[cached..<cached + count])
      let result = turns.takeTurn { () -> Result<Int, LogError> in
        Result { () throws(LogError) in
          try file.readPiece(into: piece, of: ReadPacing.pieceBytes, at: place + Int64(cached))
        }
      }
      let got = try result.get()
      done += got
      if got < count { break }
    }
    return done
  }

  private func setReadAhead(_ isOn: Bool, _ file: any SegmentFile, _ key: Segment.Key) {
    guard files[key]?.readsAhead == !isOn else { return }
    file.setReadAhead(isOn)
    files[key]?.readsAhead = isOn
  }

  /// Bytes may decay after they were written: what goes out is what came in, or an error.
  private func check(
    _ slice: ByteSlice, _ location: PartitionIndex.Location, _ partition: TopicPartition, _ file: any SegmentFile,
    _ place: Int64
  ) throws(LogError) -> LogBatch {
    let bytes = slice.unsafeBytes
    if let header = try? RecordBatchHeader(bytes), header.size == slice.count,
      header.baseOffset == location.baseOffset, header.crc == RecordBatch.checksum(of: bytes)
    {
      return LogBatch(
        bytes: slice, baseOffset: header.baseOffset, lastOffset: header.lastOffset, maxTimestamp: header.maxTimestamp)
    }
    throw LogError(
      .corrupt,
      "\(file.path): the record batch at byte \(place), \(partition) from offset \(location.baseOffset), is damaged; "
        + "run grape log verify to see what else is; restore the file from a backup, or give up what is lost with "
        + "grape log repair")
  }

  private func file(_ segment: Segment) throws(SegmentIndexes.Fault) -> any SegmentFile {
    if let file = files[segment.key]?.file {
      if uses.last != segment.key {
        uses.removeAll { $0 == segment.key }
        uses.append(segment.key)
      }
      return file
    }
    if files.count >= openLimit { files.removeValue(forKey: uses.removeFirst())?.file.close() }
    let file = try indexes.open(segment)
    files[segment.key] = OpenFile(segment: segment, file: file)
    uses.append(segment.key)
    return file
  }
}

extension DiskReader.Source {
  /// Up to which position index files were to be asked when the request was made.
  var floor: Int64 {
    switch self {
    case .located(_, _, let floor), .cold(_, let floor): floor
    }
  }
}
