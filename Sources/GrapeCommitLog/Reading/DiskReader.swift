import GrapeLog
import GrapeWire

/// Reads batches that memory no longer holds, on a thread of its own: neither the writer nor an event loop ever waits
/// for it.
final class DiskReader: @unchecked Sendable {
  /// Batches to read, in order of offset.
  struct Request: Sendable {
    var partition: TopicPartition
    var batches: [PartitionIndex.Location]
    /// Base of the segment of each batch.
    var segments: [Int64]
    var bounds: PartitionBounds
    var completion: @Sendable (Result<ReadResult, LogError>) -> Void
  }

  /// Bytes between two batches that are rather read along than skipped: a call costs more.
  private static let gapBytes: Int64 = 32 << 10
  /// Most bytes per call, unless a single batch is larger.
  private static let rangeBytes: Int64 = 4 << 20

  private let storage: any SegmentStorage
  private let jobs: any JobQueue
  // Only the jobs touch what follows, which is what makes the class safe to share.
  private var files: [Int64: any SegmentFile] = [:]
  private var uses: [Int64] = []
  private let openLimit: Int

  init(storage: any SegmentStorage, jobs: any JobQueue, openFiles: Int) {
    self.storage = storage
    self.openLimit = openFiles
    self.jobs = jobs
  }

  /// Queues a request; `busy` at once if there are too many.
  func read(_ request: Request) {
    let added = jobs.add {
      request.completion(self.perform(request))
    }
    if !added {
      request.completion(.failure(LogError(.busy, "too many reads are waiting for the disk: try again later")))
    }
  }

  /// Finishes what is queued, closes the files, then calls `completion`.
  func stop(completion: @escaping @Sendable () -> Void) {
    jobs.stop {
      for file in self.files.values { file.close() }
      self.files = [:]
      completion()
    }
  }

  private func perform(_ request: Request) -> Result<ReadResult, LogError> {
    do {
      var batches: [LogBatch] = []
      batches.reserveCapacity(request.batches.count)
      var first = 0
      while first < request.batches.count {
        let last = endOfRange(request, from: first)
        try readRange(request, first..<last, into: &batches)
        first = last
      }
      return .success(ReadResult(batches: batches, bounds: request.bounds))
    } catch {
      return .failure(error)
    }
  }

  /// Neighbours in one file are read in one call.
  private func endOfRange(_ request: Request, from first: Int) -> Int {
    let start = request.batches[first].position
    var end = start + Int64(request.batches[first].length)
    var next = first + 1
    while next < request.batches.count, request.segments[next] == request.segments[first] {
      let batch = request.batches[next]
      let extended = batch.position + Int64(batch.length)
      if batch.position - end > Self.gapBytes || extended - start > Self.rangeBytes { break }
      end = extended
      next += 1
    }
    return next
  }

  private func readRange(
    _ request: Request, _ range: Range<Int>, into batches: inout [LogBatch]
  ) throws(LogError) {
    let segment = request.segments[range.lowerBound]
    let start = request.batches[range.lowerBound].position
    let last = request.batches[range.upperBound - 1]
    let count = Int(last.position - start) + last.length
    let file = try file(segment)
    let block = ByteStorage(capacity: count)
    let target = UnsafeMutableRawBufferPointer(start: block.base, count: count)
    guard try file.read(into: target, at: start - segment) == count else {
      throw LogError(
        .corrupt,
        "\(file.path): ends before byte \(start - segment + Int64(count)), which \(request.partition) needs; run grape log verify"
      )
    }
    for location in request.batches[range] {
      let slice = ByteSlice(storage: block, offset: Int(location.position - start), count: location.length)
      batches.append(try check(slice, location, request.partition, file, location.position - segment))
    }
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
        + "run grape log verify, and restore the file from a backup")
  }

  private func file(_ segment: Int64) throws(LogError) -> any SegmentFile {
    if let file = files[segment] {
      if uses.last != segment {
        uses.removeAll { $0 == segment }
        uses.append(segment)
      }
      return file
    }
    if files.count >= openLimit { files.removeValue(forKey: uses.removeFirst())?.close() }
    let file = try storage.open(SegmentHeader.fileName(base: segment), writable: false)
    files[segment] = file
    uses.append(segment)
    return file
  }
}
