internal import GrapeLog
internal import GrapeReactor
internal import GrapeStore
internal import GrapeWire

/// The store of one partition, and how it follows its changelog. Lives on the keeper's thread.
final class PartitionState {
  private let app: String
  private let changelog: TopicPartition
  private let provider: any StateStoreProvider
  private let log: any EventLog
  private let batchLimit: Int
  /// nil: nothing was ever written.
  private(set) var store: (any StateStore)?
  private var isReady = false

  /// Bytes of the changelog read at a time while restoring.
  private static let readBytes = 8 * 1024 * 1024
  private static let progressInterval: Int64 = 1_000_000_000

  init(
    _ app: String, changelog: TopicPartition, provider: any StateStoreProvider, log: any EventLog, batchLimit: Int
  ) {
    self.app = app
    self.changelog = changelog
    self.provider = provider
    self.log = log
    self.batchLimit = batchLimit
  }

  // MARK: Opening

  /// What a restore carries along.
  private struct Restore {
    var thread: Reactor
    var processed: Int64
    var end: Int64 = 0
    var toldAt: Int64 = 0
    var note: @Sendable (String) -> Void
    var progress: StateKeeper.Progress
    var completion: @Sendable (Result<Int64?, StateError>) -> Void
  }

  func open(
    processed: Int64, on thread: Reactor, note: @escaping @Sendable (String) -> Void,
    progress: @escaping StateKeeper.Progress, completion: @escaping @Sendable (Result<Int64?, StateError>) -> Void
  ) {
    isReady = false
    do throws(StateError) {
      // Opened before: what went wrong then is best looked at afresh.
      if let open = store {
        store = nil
        try open.close()
      }
      store = try provider.open(app, partition: changelog.partition) { reason in
        note("state that cannot be trusted is made anew from its changelog: \(reason)")
      }
    } catch {
      return completion(.failure(error))
    }
    let restore = Restore(
      thread: thread, processed: processed, toldAt: thread.clock.monotonic, note: note, progress: progress,
      completion: completion)
    log.bounds(
      of: changelog,
      completion: thread.completion { [self] result in
        switch result {
        case .success(let bounds): begin(restore, bounds)
        case .failure(let error): completion(.failure(StateError(error)))
        }
      })
  }

  private func begin(_ restore: Restore, _ bounds: PartitionBounds) {
    var restore = restore
    restore.end = bounds.end
    guard let position = store?.position, position.lastOffset >= 0 else { return proceed(restore) }
    guard position.changelog <= bounds.end, position.lastOffset >= bounds.start else {
      return startOver(
        restore, "it stands at \(position.changelog) of a changelog that has \(bounds.start) to \(bounds.end)")
    }
    // Is it this changelog that it followed?
    log.read(
      changelog, from: position.lastOffset, maxBytes: 1,
      completion: restore.thread.completion { [self] result in
        switch result {
        case .success(let read):
          if read.batches.first.flatMap({ fingerprint(of: position.lastOffset, in: $0) }) == position.fingerprint {
            proceed(restore)
          } else {
            startOver(restore, "it followed another changelog than this one")
          }
        case .failure(let error): restore.completion(.failure(StateError(error)))
        }
      })
  }

  private func fingerprint(of offset: Int64, in batch: LogBatch) -> UInt64? {
    // What cannot be read has no fingerprint: the store is made anew, and then says what is wrong.
    guard let unpacked = try? RecordBatch.unpack(batch.bytes, checkingCRC: false, limit: batchLimit) else { return nil }
    var reader = unpacked.reader()
    var found: UInt64?
    while let record = try? reader.next() {
      guard batch.baseOffset + Int64(record.offsetDelta) == offset, let key = record.key else { continue }
      found = StatePosition.fingerprint(key: key, value: record.value)
    }
    withExtendedLifetime(unpacked) {}
    return found
  }

  private func startOver(_ restore: Restore, _ reason: String) {
    restore.note("state that cannot be trusted is made anew from its changelog: \(reason)")
    do throws(StateError) {
      let open = store
      store = nil
      try open?.close()
      try provider.remove(app, partition: changelog.partition)
    } catch {
      return restore.completion(.failure(error))
    }
    proceed(restore)
  }

  // MARK: Restoring

  private func proceed(_ restore: Restore) {
    let from = store?.position.changelog ?? 0
    guard from < restore.end else { return finish(restore) }
    log.read(
      changelog, from: max(from, 0), maxBytes: Self.readBytes,
      completion: restore.thread.completion { [self] result in
        switch result {
        case .success(let read): took(read, restore)
        case .failure(let error) where error.code == .offsetOutOfRange: skip(restore)
        case .failure(let error): restore.completion(.failure(StateError(error)))
        }
      })
  }

  /// The changelog begins behind the position: a new store, or one that was left far behind, which is of no use.
  private func skip(_ restore: Restore) {
    log.bounds(
      of: changelog,
      completion: restore.thread.completion { [self] result in
        switch result {
        case .failure(let error): restore.completion(.failure(StateError(error)))
        case .success(let bounds):
          if let position = store?.position, position.lastOffset >= 0 {
            return startOver(
              restore, "its changelog begins at \(bounds.start), behind its position \(position.changelog)")
          }
          do throws(StateError) {
            let store = try openOrCreate()
            var position = store.position
            position.changelog = bounds.start
            try store.apply([], position: position)
            proceed(restore)
          } catch {
            restore.completion(.failure(error))
          }
        }
      })
  }

  private func took(_ read: ReadResult, _ restore: Restore) {
    var restore = restore
    guard !read.batches.isEmpty else { return finish(restore) }
    do throws(StateError) {
      try write(read.batches, processed: nil)
    } catch {
      return restore.completion(.failure(error))
    }
    let now = restore.thread.clock.monotonic
    if now - restore.toldAt > Self.progressInterval {
      restore.toldAt = now
      restore.progress(store?.position.changelog ?? 0, restore.end)
    }
    proceed(restore)
  }

  private func finish(_ restore: Restore) {
    do throws(StateError) {
      if let store {
        var position = store.position
        position.processed = restore.processed
        position.changelog = max(position.changelog, restore.end)
        if position != store.position { try store.apply([], position: position) }
      }
    } catch {
      return restore.completion(.failure(error))
    }
    isReady = true
    do throws(StateError) { restore.completion(.success(try nextExpiry())) } catch {
      restore.completion(.failure(error))
    }
  }

  // MARK: Following

  func apply(_ batches: [LogBatch], processed: Int64) throws(StateError) {
    guard isReady else { throw StateError(.unavailable, "the state of \(changelog) is not ready") }
    do throws(StateError) {
      try write(batches, processed: processed)
    } catch {
      // Later changes must not be applied without these: the store is opened anew, and takes both from the changelog.
      isReady = false
      throw error
    }
  }

  private func write(_ batches: [LogBatch], processed: Int64?) throws(StateError) {
    let store = try openOrCreate()
    let next = try ChangelogBatches(batches, from: store.position, processed: processed, limit: batchLimit)
    try store.apply(next.changes, position: next.position)
  }

  /// The earliest expiry of all entries; nil: none expires.
  func nextExpiry() throws(StateError) -> Int64? {
    try store?.withView { (view) throws(StateError) in try view.firstExpiry() } ?? nil
  }

  private func openOrCreate() throws(StateError) -> any StateStore {
    if let store { return store }
    let created = try provider.create(app, partition: changelog.partition)
    store = created
    return created
  }

  func read<Value>(
    _ body: ((any StateView)?, StatePosition) throws(StateError) -> Value
  ) throws(StateError) -> Value {
    guard isReady else { throw StateError(.unavailable, "the state of \(changelog) is being restored") }
    guard let store else { return try body(nil, .start) }
    return try store.withView { (view) throws(StateError) in try body(view, store.position) }
  }

  /// The state of this moment, held fast; nil: nothing was ever written.
  func snapshot() throws(StateError) -> (any StateSnapshot)? {
    guard isReady else { throw StateError(.unavailable, "the state of \(changelog) is being restored") }
    return try store?.snapshot()
  }

  func close() throws(StateError) {
    isReady = false
    let open = store
    store = nil
    try open?.close()
  }
}

extension StateError {
  init(_ error: LogError) { self.init(error.code == .corrupt ? .corrupt : .unavailable, error.message) }
}
