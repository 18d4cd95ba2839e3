internal import GrapeLog
internal import GrapeReactor
internal import GrapeWire
internal import Logging

/// Reads a partition of the log, and goes on as it grows. Lives on the reactor's thread.
final class TopicFollower {
  let place: TopicPartition
  /// Next offset: all records below were handed on.
  private(set) var position: Int64 = 0
  private let log: any EventLog
  private let reactor: Reactor
  private let logger: Logger
  private let take: (PlacedRecord) throws(WireError) -> Void
  private var watch: WatchToken?
  private var isClosed = false
  private var onProgress: ((Progress) -> Void)?
  private var lastFailure: LogError.Code?

  enum Progress {
    /// There was nothing more to be read, for the first time.
    case caughtUp
    /// It could not be read on; it is tried again and again.
    case failed(LogError)
  }

  private static let readBytes = 1024 * 1024
  private static let retryDelay: Int64 = 1_000_000_000

  /// - Parameter take: gets each record, in order; what it throws is noted, and the rest of the batch passed over.
  init(
    _ place: TopicPartition, log: any EventLog, reactor: Reactor, logger: Logger,
    take: @escaping (PlacedRecord) throws(WireError) -> Void
  ) {
    self.place = place
    self.log = log
    self.reactor = reactor
    self.logger = logger
    self.take = take
  }

  /// Begins at `offset`. `onProgress` is told of failures until the end was reached for the first time, and of that.
  func start(at offset: Int64, onProgress: ((Progress) -> Void)? = nil) {
    position = offset
    self.onProgress = onProgress
    read()
  }

  func close() {
    isClosed = true
    if let watch { log.cancelWatch(watch) }
    watch = nil
  }

  private func wait() {
    onProgress?(.caughtUp)
    onProgress = nil
    guard !isClosed else { return }
    let fired = reactor.completion { [weak self] (_: Void) in
      self?.watch = nil
      self?.read()
    }
    watch = log.whenAvailable(place, after: position) { fired(()) }
  }

  private func read() {
    guard !isClosed else { return }
    log.read(
      place, from: position, maxBytes: Self.readBytes,
      completion: reactor.completion { [weak self] in self?.took($0) })
  }

  private func took(_ result: Result<ReadResult, LogError>) {
    guard !isClosed else { return }
    switch result {
    case .success(let read):
      lastFailure = nil
      for batch in read.batches { take(batch) }
      // The end that comes with records may be behind the true one, which the watch tells soon enough, but for who waits to have all that
      // was there.
      guard read.batches.isEmpty || (onProgress == nil && position >= read.bounds.end) else { return self.read() }
      // Up to the end there is no record.
      position = max(position, read.bounds.end)
      wait()
    case .failure(let error) where error.code == .offsetOutOfRange: skip()
    case .failure(let error) where error.code == .closed: break
    case .failure(let error):
      // Said once, however often it is tried.
      if lastFailure != error.code {
        logger.error("a topic cannot be read", metadata: ["topic": "\(place)", "error": "\(error)"])
      }
      lastFailure = error.code
      onProgress?(.failed(error))
      retry()
    }
  }

  /// Retention has dropped what was to be read next, or the topic was made anew.
  private func skip() {
    log.bounds(
      of: place,
      completion: reactor.completion { [weak self] result in
        guard let self else { return }
        guard case .success(let bounds) = result else { return retry() }
        position = position > bounds.end ? bounds.start : max(position, bounds.start)
        read()
      })
  }

  private func retry() {
    reactor.schedule(after: Self.retryDelay) { [weak self] in self?.read() }
  }

  private func take(_ batch: LogBatch) {
    let first = position
    position = batch.lastOffset + 1
    do throws(WireError) {
      try batch.forEachRecord(from: first, take)
    } catch {
      logger.warning("a record cannot be read", metadata: ["topic": "\(place)", "error": "\(error)"])
    }
  }
}

/// A record and where it is in its partition.
struct PlacedRecord {
  var record: Record
  var offset: Int64
  /// Milliseconds since 1970.
  var timestamp: Int64
}

extension LogBatch {
  /// Calls `body` with each record at or behind `first`. What is given it lives until it returns.
  func forEachRecord(from first: Int64, _ body: (PlacedRecord) throws(WireError) -> Void) throws(WireError) {
    let unpacked = try RecordBatch.unpack(bytes, checkingCRC: false, limit: FrameHeader.defaultLimit)
    defer { withExtendedLifetime(unpacked) {} }
    var reader = unpacked.reader()
    while let record = try reader.next() {
      let offset = baseOffset + Int64(record.offsetDelta)
      guard offset >= first else { continue }
      try body(
        PlacedRecord(record: record, offset: offset, timestamp: unpacked.header.baseTimestamp &+ record.timestampDelta))
    }
  }
}
