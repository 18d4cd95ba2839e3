internal import Glibc
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
  private let clock: ReactorClock
  /// nil: nothing was ever written.
  private(set) var store: (any StateStore)?
  private var isReady = false
  /// For good: a restore that is under way ends without touching the store, which may be somebody else's by now.
  private var isClosed = false
  /// Bytes of the changelog applied since the last checkpoint, as far as that is known.
  private var bytesSinceCheckpoint = 0
  /// When it was taken; nil: there is none.
  private var checkpointTime: Int64?
  private var views = LongViews()
  /// Told of processes that hold an old view for too long.
  var onLongView: StateKeeper.LongView?

  /// Bytes of the changelog read at a time while restoring.
  private static let readBytes = 8 * 1024 * 1024
  private static let progressInterval: Int64 = 1_000_000_000
  /// Tombstones in a changelog are dropped after a day, and nothing older may be brought up to date from it; milliseconds.
  private static let checkpointAge: Int64 = 12 * 3_600_000
  /// A checkpoint is made anew, if anything was changed, before it is too old.
  private static let checkpointInterval: Int64 = 6 * 3_600_000

  init(
    _ app: String, changelog: TopicPartition, provider: any StateStoreProvider, log: any EventLog, batchLimit: Int,
    clock: ReactorClock
  ) {
    self.app = app
    self.changelog = changelog
    self.provider = provider
    self.log = log
    self.batchLimit = batchLimit
    self.clock = clock
  }

  // MARK: Opening

  /// What a restore carries along.
  private struct Restore {
    var thread: Reactor
    var processed: Int64
    var start: Int64 = 0
    var end: Int64 = 0
    /// The store is made of a checkpoint.
    var isCheckpoint = false
    /// There is a checkpoint that may be of use.
    var mayUseCheckpoint = true
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
    bytesSinceCheckpoint = 0
    checkpointTime = provider.checkpointTime(app, partition: changelog.partition)
    var restore = Restore(
      thread: thread, processed: processed, toldAt: thread.clock.monotonic, note: note, progress: progress,
      completion: completion)
    do throws(StateError) { try useCheckpoint(&restore) } catch { return completion(.failure(error)) }
    log.bounds(
      of: changelog,
      completion: thread.completion { [self, restore] result in
        switch result {
        case .success(let bounds):
          var restore = restore
          restore.start = bounds.start
          restore.end = bounds.end
          begin(restore)
        case .failure(let error): completion(.failure(StateError(error)))
        }
      })
  }

  /// Makes the store of a checkpoint, if it is not there.
  private func useCheckpoint(_ restore: inout Restore) throws(StateError) {
    restore.isCheckpoint = false
    guard store == nil, restore.mayUseCheckpoint else { return }
    restore.mayUseCheckpoint = false
    let note = restore.note
    store = try provider.openCheckpoint(
      app, partition: changelog.partition, taken: clock.wall - Self.checkpointAge...clock.wall
    ) { reason in
      note("a checkpoint cannot be used: \(reason)")
    }
    guard let store else {
      checkpointTime = nil
      return
    }
    restore.isCheckpoint = true
    note("state is made of its checkpoint, which stands at \(store.position.changelog) of the changelog")
  }

  private func begin(_ restore: Restore) {
    if isClosed { return restore.completion(.failure(Self.closed)) }
    guard let position = store?.position, position.lastOffset >= 0 else { return proceed(restore) }
    guard position.changelog <= restore.end, position.lastOffset >= restore.start else {
      return startOver(
        restore, "it stands at \(position.changelog) of a changelog that has \(restore.start) to \(restore.end)")
    }
    // Is it this changelog that it followed?
    log.read(
      changelog, from: position.lastOffset, maxBytes: 1,
      completion: restore.thread.completion { [self] result in
        switch result {
        case .success(let read):
          switch read.batches.first.flatMap({ fingerprint(of: position.lastOffset, in: $0) }) {
          case position.fingerprint: goOn(restore)
          case nil: compare(restore, records: Self.comparedRecords)
          default: startOver(restore, Self.otherChangelog)
          }
        case .failure(let error): restore.completion(.failure(StateError(error)))
        }
      })
  }

  /// Goes on from where the store stands, unless what follows there is so old that removals among it may have been dropped.
  private func goOn(_ restore: Restore) {
    guard let position = store?.position, position.changelog < restore.end else { return proceed(restore) }
    log.offset(
      of: changelog, at: clock.wall - Self.checkpointAge,
      completion: restore.thread.completion { [self] result in
        switch result {
        case .success(let young) where position.changelog < young:
          startOver(
            restore,
            "what it lacks of its changelog is older than \(Self.checkpointAge / 3_600_000) hours, and removals may be missing there"
          )
        case .success: proceed(restore)
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

  // Compaction may have taken the record that was applied last, because of a later one. Then the last records that are left below the position are
  // held against their entries. Each has its entry's value unless it, too, only waits to be compacted: the store is then
  // taken for another's, which costs time and nothing else.

  private func compare(_ restore: Restore, records: Int64) {
    guard let position = store?.position else { return proceed(restore) }
    let from = max(restore.start, position.changelog - records)
    compare(restore, records: records, from: from, found: [], bytes: 0)
  }

  private func compare(_ restore: Restore, records: Int64, from offset: Int64, found: [LogBatch], bytes: Int) {
    guard let position = store?.position else { return proceed(restore) }
    guard offset < position.changelog, bytes < Self.comparedBytes else {
      return judge(restore, records: records, found, position)
    }
    log.read(
      changelog, from: offset, maxBytes: Self.comparedBytes,
      completion: restore.thread.completion { [self] result in
        switch result {
        case .success(let read):
          let batches = read.batches.filter { $0.baseOffset < position.changelog }
          let next = batches.count < read.batches.count ? position.changelog : read.nextOffset
          compare(
            restore, records: records, from: next, found: found + batches,
            bytes: bytes + batches.reduce(0) { $0 + $1.bytes.count })
        case .failure(let error) where error.code == .offsetOutOfRange: startOver(restore, Self.otherChangelog)
        case .failure(let error): restore.completion(.failure(StateError(error)))
        }
      })
  }

  private func judge(_ restore: Restore, records: Int64, _ batches: [LogBatch], _ position: StatePosition) {
    let isSame: Bool?
    do throws(StateError) { isSame = try matches(batches, below: position.changelog) } catch {
      return startOver(restore, error.message)
    }
    switch isSame {
    case true: goOn(restore)
    case nil where position.changelog - records > restore.start: compare(restore, records: records * 16)
    default: startOver(restore, Self.otherChangelog)
    }
  }

  /// Whether entries are what the last records of their keys say; nil: there is no record.
  private func matches(_ batches: [LogBatch], below end: Int64) throws(StateError) -> Bool? {
    var start = StatePosition.start
    start.changelog = batches.first?.baseOffset ?? 0
    let last = try ChangelogBatches(
      batches.filter { $0.lastOffset < end }, from: start, processed: nil, limit: batchLimit)
    guard !last.changes.isEmpty else { return nil }
    return try store?.withView { (view) throws(StateError) in
      for change in last.changes {
        let (wanted, present) = (change.entry, try view.entry(change.key))
        guard wanted.map({ ByteSlice(copying: $0) }) == present.map({ ByteSlice(copying: $0) }) else { return false }
      }
      return true
    }
  }

  private static let comparedRecords: Int64 = 64
  private static let comparedBytes = 1024 * 1024
  private static let otherChangelog = "it followed another changelog than this one"

  private func startOver(_ restore: Restore, _ reason: String) {
    if isClosed { return restore.completion(.failure(Self.closed)) }
    var restore = restore
    restore.note(
      restore.isCheckpoint
        ? "the checkpoint cannot be used: \(reason)"
        : "state that cannot be trusted is made anew from its changelog: \(reason)")
    do throws(StateError) {
      let open = store
      store = nil
      try open?.close()
      try provider.remove(app, partition: changelog.partition)
      if restore.isCheckpoint {
        checkpointTime = nil
        try provider.removeCheckpoint(app, partition: changelog.partition)
      }
      try useCheckpoint(&restore)
    } catch {
      return restore.completion(.failure(error))
    }
    begin(restore)
  }

  // MARK: Restoring

  private func proceed(_ restore: Restore) {
    if isClosed { return restore.completion(.failure(Self.closed)) }
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
    if isClosed { return restore.completion(.failure(Self.closed)) }
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
    do throws(StateError) {
      let nextExpiry = try nextExpiry()
      isReady = true
      restore.completion(.success(nextExpiry))
    } catch {
      restore.completion(.failure(error))
    }
  }

  // MARK: Following

  /// Applies batches. The earliest expiry of all entries.
  func apply(_ batches: [LogBatch], processed: Int64) throws(StateError) -> Int64? {
    guard isReady else { throw StateError(.unavailable, "the state of \(changelog) is not ready") }
    do throws(StateError) {
      try write(batches, processed: processed)
      return try nextExpiry()
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
    bytesSinceCheckpoint += batches.reduce(0) { $0 + $1.bytes.count }
  }

  // MARK: Readers

  /// Processes that hold an old view for too long, other than this one, and for how many nanoseconds.
  func longViews(_ limit: LongViews.Limit) -> [(process: Int32, held: Int64)] {
    let now = clock.monotonic
    guard let store, views.isDue(now, limit) else { return [] }
    let own = getpid()
    // A backup or a checkpoint of ours ends by itself.
    let others = store.staleViews.filter { $0.process != own }
    return views.look(others, size: store.byteCount, now: now, limit: limit).map { ($0.view.process, $0.held) }
  }

  // MARK: Checkpoints

  /// Whether a checkpoint is worth its work: as much was written as one takes, or it grows old.
  ///
  /// - Parameter bytes: what is sooner read from the changelog than copied now and then.
  func isCheckpointDue(_ bytes: Int) -> Bool {
    guard isReady, bytesSinceCheckpoint > 0 || checkpointTime == nil, let store else { return false }
    let size = store.byteCount
    if bytesSinceCheckpoint > max(bytes, size) { return true }
    guard size >= bytes else { return false }
    return checkpointTime.map { clock.wall - $0 > Self.checkpointInterval } ?? true
  }

  /// A snapshot for a checkpoint, and what to do with it on another thread.
  func beginCheckpoint() throws(StateError) -> (@Sendable () -> Result<Void, StateError>)? {
    guard let snapshot = try snapshot() else { return nil }
    bytesSinceCheckpoint = 0
    let taken = clock.wall
    // Whatever becomes of it, it is not tried again before as much has been written.
    checkpointTime = taken
    let (app, partition) = (app, changelog.partition)
    let keeping = CheckpointKeeping(provider: provider)
    return {
      defer { snapshot.end() }
      do throws(StateError) {
        try keeping.provider.keepCheckpoint(snapshot, of: app, partition: partition, taken: taken)
        return .success(())
      } catch {
        return .failure(error)
      }
    }
  }

  private struct CheckpointKeeping: @unchecked Sendable {
    // Sendable: the one function that is called on another thread is made for it.
    let provider: any StateStoreProvider
  }

  /// The earliest expiry of all entries; nil: none expires.
  func nextExpiry() throws(StateError) -> Int64? {
    try store?.withView { (view) throws(StateError) in try view.firstExpiry() } ?? nil
  }

  private static let closed = StateError(.unavailable, "the state is closed")

  private func openOrCreate() throws(StateError) -> any StateStore {
    if isClosed { throw Self.closed }
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
    isClosed = true
    let open = store
    store = nil
    try open?.close()
  }
}

extension StateError {
  init(_ error: LogError) { self.init(error.code == .corrupt ? .corrupt : .unavailable, error.message) }
}
