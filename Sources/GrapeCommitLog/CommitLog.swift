import Glibc
public import GrapeLog
import Synchronization

/// The embedded log: one commit log in segment files for all topics and partitions of a data directory.
///
/// Commits that wait at the same moment are written as one group, with one fdatasync; nothing ever waits for company.
/// One process at a time owns a directory. Close the log before letting go of it: its threads keep it alive.
///
/// Threads: `log-writer` writes groups, unless `assist()` does; `log-reader` reads what memory no longer holds;
/// `log-segments` prepares files and writes indexes and checkpoints; `log-cleaner` sees to retention, compaction and the
/// freeing of space. Completions and watches are called on these threads, on that of `assist()`, or on the caller's.
public final class CommitLog: EventLog, @unchecked Sendable {
  // Sound to share: `writer` and `group` are touched only by the holder of the queue's writing role, everything
  // else is constant or behind a lock.
  let writer: GroupWriter
  var group = GroupWriter.Group()
  let shared: Mutex<SharedState>
  let queue: CommitQueue
  let wake = ThreadSignal()
  let indexes: SegmentIndexes
  let reader: DiskReader
  /// Nil if nothing goes on at the same time.
  let turns: ReadTurns?
  let housekeeper: any JobQueue
  let cleaner: any JobQueue
  let preparer: SegmentPreparer
  let storage: any SegmentStorage
  let clock: LogClock
  let options: CommitLogOptions
  let coordinator = GroupCoordinator()
  let counters = Mutex(CommitLogStatistics())
  let ending = Mutex(Ending())
  /// Touched by jobs of the cleaner only.
  let cleaning = Mutex(CleanerState())
  /// Why new records are refused; nil while there is space.
  let lowSpace = Mutex<LowSpace?>(nil)
  /// pthread_self() of the thread that calls `assist()`; 0: none.
  let deputy = Atomic<UInt>(0)

  /// What readers need, behind one lock that is held for searches and for the publication of a group.
  struct SharedState: Sendable {
    var state: PublishedState
    var cache: TailCache
    var table: SegmentTable
    /// Sealed segments whose index files are not written yet.
    var unindexed: [SealedSegment] = []
    /// Sealed segments with an index file whose batches memory still knows, because the cache may have them.
    var remembered: [SealedSegment] = []
    /// Changes with everything that may make records dead or segments cleanable.
    var epoch: UInt64 = 0
    var closed = false
    var cachedReads: UInt64 = 0
    var diskReads: UInt64 = 0
  }

  struct LowSpace: Sendable {
    var error: LogError
    /// Not even work that is there goes on.
    var isCritical: Bool
  }

  struct Ending {
    var completions: [@Sendable () -> Void] = []
    var asked = false
    var shuttingDown = false
    var finished = false
  }

  /// Opens the log in the folder `log` of the data directory `directory`, making both if needed, and recovers it.
  ///
  /// Reads the headers of all segments, and what is behind the newest sound checkpoint; all of the log if there is none.
  /// Errors: `locked` if another process has it; `corrupt` if data of what it reads had been on the disk and is damaged; `unsupportedFormat` if it was written by a newer version; `invalidArgument` for options
  /// out of bounds; `failed` for what the operating system refuses.
  public static func open(
    directory: String, options: CommitLogOptions = CommitLogOptions()
  ) throws(LogError) -> (CommitLog, RecoveryReport) {
    try options.check()
    let storage = try DirectoryStorage(owning: directory + "/log")
    return try open(storage: storage, options: options, clock: SystemCall.clock)
  }

  /// Opens a log on storage of any kind, which it closes in the end.
  package static func open(
    storage: any SegmentStorage, options: CommitLogOptions, clock: LogClock, threads: any LogThreads = SystemThreads()
  ) throws(LogError) -> (CommitLog, RecoveryReport) {
    do {
      var random = SystemRandomNumberGenerator()
      var recovery = Recovery(storage: storage, options: options, clock: clock)
      let opened = try recovery.run { LogIdentity(high: random.next(), low: random.next()) }
      return (CommitLog(opened, storage, options, clock, threads), opened.report)
    } catch {
      storage.close()
      throw error
    }
  }

  private init(
    _ opened: Recovery.Opened, _ storage: any SegmentStorage, _ options: CommitLogOptions, _ clock: LogClock,
    _ threads: any LogThreads
  ) {
    self.storage = storage
    self.options = options
    self.clock = clock
    preparer = opened.preparer
    writer = GroupWriter(
      segments: opened.segments, sequence: opened.sequence, catalog: WriterCatalog(opened.state),
      identity: opened.identity, clock: clock)
    for name in opened.state.ids.keys.sorted() {
      let id = opened.state.ids[name]!
      coordinator.setPartitions(opened.state.topics[Int(id)]!.configuration.partitions, of: name)
    }
    shared = Mutex(
      SharedState(state: opened.state, cache: TailCache(budget: options.tailCacheBytes), table: opened.table))
    queue = CommitQueue(byteLimit: options.queueBytes)
    indexes = SegmentIndexes(storage: storage, budget: options.indexCacheBytes)
    turns = threads.areConcurrent ? ReadTurns(clock: clock) : nil
    reader = DiskReader(
      indexes: indexes, jobs: threads.makeJobQueue(name: "log-reader", limit: options.readQueue), turns: turns,
      openFiles: options.openSegments)
    housekeeper = threads.makeJobQueue(name: "log-segments", limit: 16)
    let periodic = PeriodicMaintenance()
    cleaner = threads.makeJobQueue(
      name: "log-cleaner", limit: 16, every: options.maintenanceMilliseconds * 1_000_000, tick: { periodic.run() })
    periodic.log.withLock { $0 = { [weak self] in self?.maintain() } }
    // The disk may have filled up while nobody looked.
    _ = housekeeper.add { self.checkSpace() }
    threads.runWriter(
      step: { self.writerStep() }, wait: { self.wake.wait() }, isWoken: { self.wake.isSignalled })
  }

  // MARK: Changes

  public func createTopic(
    _ name: String, configuration: TopicConfiguration,
    completion: @escaping @Sendable (Result<Void, LogError>) -> Void
  ) {
    submit(Operation(.createTopic(name, configuration, completion)), checking: configuration, of: name)
  }

  public func deleteTopic(_ name: String, completion: @escaping @Sendable (Result<Void, LogError>) -> Void) {
    submit(Operation(.deleteTopic(name, completion)))
  }

  public func alterTopic(
    _ name: String, configuration: TopicConfiguration,
    completion: @escaping @Sendable (Result<Void, LogError>) -> Void
  ) {
    submit(Operation(.alterTopic(name, configuration, completion)), checking: configuration, of: name)
  }

  private func submit(_ operation: Operation, checking configuration: TopicConfiguration, of name: String) {
    do {
      try configuration.check(name: name)
    } catch {
      return operation.fail(error)
    }
    submit(operation)
  }

  public func deleteRecords(
    of partition: TopicPartition, before offset: Int64,
    completion: @escaping @Sendable (Result<Void, LogError>) -> Void
  ) {
    submit(Operation(.trim([Operation.Trim(partition: partition, start: offset)], completion)))
  }

  public func deleteGroup(_ group: String, completion: @escaping @Sendable (Result<Void, LogError>) -> Void) {
    guard (1...249).contains(group.utf8.count) else {
      return completion(
        .failure(LogError(.invalidArgument, "group name \"\(group)\": must be 1 to 249 bytes")))
    }
    submit(Operation(.deleteGroup(group, completion)))
  }

  public func commit(
    _ transaction: Transaction, completion: @escaping @Sendable (Result<CommitReceipt, LogError>) -> Void
  ) {
    do {
      try transaction.check()
    } catch {
      return completion(.failure(error))
    }
    // What only brings new work is refused while the last space is kept for finishing the work that is there.
    // The very last is kept for giving up records, without which there would never be space again.
    if !transaction.appends.isEmpty, let low = lowSpace.withLock({ $0 }), transaction.offsets.isEmpty || low.isCritical
    {
      return completion(.failure(low.error))
    }
    let operation = Operation(.commit(transaction, completion))
    guard operation.bytes <= options.transactionBytes else {
      return completion(
        .failure(
          LogError(
            .tooLarge,
            "the transaction takes \(operation.bytes) bytes; the log takes at most \(options.transactionBytes) at once")
        ))
    }
    submit(operation)
  }

  func submit(_ operation: Operation) {
    let deferred = deputy.load(ordering: .relaxed) == UInt(pthread_self())
    switch queue.add(operation, deferred: deferred) {
    case .wake: wake.signal()
    case .cared: break
    case .refused(let error): operation.fail(error)
    }
  }

  // MARK: Assistance

  /// Makes the calling thread the one that calls `assist()`. What it commits from now on wakes no other thread, so
  /// it must call `assist()` before it waits for anything.
  public func becomeDeputy() { deputy.store(UInt(pthread_self()), ordering: .relaxed) }

  /// Ends what `becomeDeputy` began. To be called on the same thread.
  public func resignDeputy() {
    deputy.store(0, ordering: .relaxed)
    wake.signal()
  }

  /// Sees to the commits that wait: writes them on this thread if they are few and nobody else is writing, which
  /// saves two changes of thread per commit; otherwise leaves them to the writing thread. Completions may run in it.
  public func assist() {
    switch queue.takeIfSmall(options.assistBytes) {
    case .nothing: break
    case .wake: wake.signal()
    case .write(let operations):
      if write(operations, assisting: true), queue.release() { wake.signal() }
    }
  }

  // MARK: Groups

  public func join(
    group: String, topics: [String], onChange: @escaping @Sendable (GroupChange) -> Void
  ) -> GroupMembership {
    coordinator.join(group: group, topics: topics, onChange: onChange)
  }

  public func leave(_ membership: GroupMembership) { coordinator.leave(membership) }

  /// What the log has done so far.
  public var statistics: CommitLogStatistics {
    var statistics = counters.withLock { $0 }
    shared.withLock { shared in
      statistics.cachedReads = shared.cachedReads
      statistics.diskReads = shared.diskReads
    }
    return statistics
  }
}
