public import GrapeLog
public import GrapeReactor
public import GrapeStore
internal import GrapeWire

/// Runs the state stores of a node on a thread of their own: opens and restores them, applies what was committed, reads.
///
/// What is asked for one partition is done in the order in which it was asked. Completions are called on the keeper's thread.
public final class StateKeeper: @unchecked Sendable {
  // Sendable: `provider` and `partitions` are touched by the thread alone.
  let thread: Reactor
  private let provider: any StateStoreProvider
  private let log: any EventLog
  /// Bytes of a changelog batch, unpacked.
  private let batchLimit: Int
  private var partitions: [TopicPartition: PartitionState] = [:]
  /// Where checkpoints are copied; nil: none are made.
  private let copies: Reactor?
  private let checkpointBytes: Int
  private let checkpointed: @Sendable (TopicPartition, StateError?) -> Void
  /// One is being made: one at a time.
  private var isCopying = false

  /// - Parameters:
  ///   - thread: the reactor that is to be used for nothing else.
  ///   - copies: another, for checkpoints; nil: none are made.
  ///   - checkpointBytes: of the changelog are applied between two checkpoints of a partition, or as many as its state has, if they are more.
  ///   - checkpointed: told of each that was made, or why it was not.
  public init(
    provider: any StateStoreProvider, log: any EventLog, thread: Reactor, batchLimit: Int, copies: Reactor? = nil,
    checkpointBytes: Int = 64 * 1024 * 1024,
    checkpointed: @escaping @Sendable (TopicPartition, StateError?) -> Void = { _, _ in }
  ) {
    self.copies = copies
    self.checkpointBytes = checkpointBytes
    self.checkpointed = checkpointed
    self.provider = provider
    self.log = log
    self.thread = thread
    self.batchLimit = batchLimit
  }

  /// Where workers find the maps of an application; nil: they ask.
  public func directory(of app: String) -> String? { provider.directory(of: app) }

  /// A process holds an old view of a partition for too long, while its store grows.
  typealias LongView = @Sendable (_ process: Int32, _ nanoseconds: Int64) -> Void

  /// How far a restore has come: records of the changelog applied, and the end that it goes to.
  public typealias Progress = @Sendable (_ applied: Int64, _ end: Int64) -> Void

  /// Opens the state of a partition and brings it to the end of its changelog. Tells the earliest expiry in it.
  ///
  /// - Parameters:
  ///   - processed: the offset of the input that the application has committed: the changelog has all that led there.
  ///   - onLongView: told, on the keeper's thread, once of each.
  ///   - note: told what an administrator should know, such as that a damaged store is made anew.
  func open(
    _ app: String, changelog: TopicPartition, processed: Int64, note: @escaping @Sendable (String) -> Void,
    progress: @escaping Progress, onLongView: LongView? = nil,
    completion: @escaping @Sendable (Result<Int64?, StateError>) -> Void
  ) {
    let accepted = thread.post { [self] in
      let state: PartitionState
      if let open = partitions[changelog] {
        state = open
      } else {
        state = PartitionState(
          app, changelog: changelog, provider: provider, log: log, batchLimit: batchLimit,
          clock: thread.clock)
        partitions[changelog] = state
      }
      state.onLongView = onLongView
      state.open(processed: processed, on: thread, note: note, progress: progress) { [self] result in
        completion(result)
        considerCheckpoint(changelog)
      }
    }
    if !accepted { completion(.failure(Self.stopped)) }
  }

  /// Applies batches that were committed to the changelog, and notes how far the input has been dealt with. Tells the earliest
  /// expiry in the state.
  ///
  /// - Parameter limit: on how long others may look at what the state was.
  func apply(
    _ batches: [LogBatch], to changelog: TopicPartition, processed: Int64, limit: LongViews.Limit = .init(),
    completion: @escaping @Sendable (Result<Int64?, StateError>) -> Void
  ) {
    let accepted = thread.post { [self] in
      guard let state = partitions[changelog] else { return completion(.failure(Self.stopped)) }
      do throws(StateError) {
        completion(.success(try state.apply(batches, processed: processed)))
        considerCheckpoint(changelog)
        for (process, held) in state.longViews(limit) { state.onLongView?(process, held) }
      } catch {
        completion(.failure(error))
      }
    }
    if !accepted { completion(.failure(Self.stopped)) }
  }

  /// Has a checkpoint made, if one is due and none is being made. This thread only takes the snapshot.
  private func considerCheckpoint(_ changelog: TopicPartition) {
    guard !isCopying, let copies, let state = partitions[changelog], state.isCheckpointDue(checkpointBytes) else {
      return
    }
    do throws(StateError) {
      guard let work = try state.beginCheckpoint() else { return }
      isCopying = copies.post { [self] in
        let result = work()
        thread.post { [self] in
          isCopying = false
          if case .failure(let error) = result { checkpointed(changelog, error) } else { checkpointed(changelog, nil) }
          for changelog in partitions.keys { considerCheckpoint(changelog) }
        }
      }
    } catch {
      checkpointed(changelog, error)
    }
  }

  /// Runs `body` on the state of one moment, and the position it has; the view is nil before anything was written.
  func read<Value: Sendable>(
    _ changelog: TopicPartition,
    _ body: @escaping @Sendable ((any StateView)?, StatePosition) throws(StateError) -> Value,
    completion: @escaping @Sendable (Result<Value, StateError>) -> Void
  ) {
    let accepted = thread.post { [self] in
      guard let state = partitions[changelog] else { return completion(.failure(Self.stopped)) }
      do throws(StateError) { completion(.success(try state.read(body))) } catch { completion(.failure(error)) }
    }
    if !accepted { completion(.failure(Self.stopped)) }
  }

  /// Holds fast the states of all these partitions as they are at one moment: the changes of every transaction are in all of them or in none, and
  /// if they are, so are those of all transactions before it. nil for partitions of which nothing was ever written.
  func snapshots(
    _ changelogs: [TopicPartition],
    completion: @escaping @Sendable (Result<[(any StateSnapshot)?], StateError>) -> Void
  ) {
    // Changes are applied on this thread in the order in which they were committed, and none of them now.
    let accepted = thread.post { [self] in
      do throws(StateError) {
        var found: [(any StateSnapshot)?] = []
        for changelog in changelogs {
          guard let state = partitions[changelog] else { throw Self.stopped }
          found.append(try state.snapshot())
        }
        completion(.success(found))
      } catch {
        completion(.failure(error))
      }
    }
    if !accepted { completion(.failure(Self.stopped)) }
  }

  /// A worker died: what it had open is forgotten.
  func clearDeadReaders(_ changelogs: [TopicPartition], note: @escaping @Sendable (String) -> Void) {
    thread.post { [self] in
      for changelog in changelogs {
        do throws(StateError) { try partitions[changelog]?.store?.clearDeadReaders() } catch { note(error.message) }
      }
    }
  }

  /// Closes all stores in order. Nothing may be asked after it.
  public func close(completion: @escaping @Sendable ([StateError]) -> Void) {
    let accepted = thread.post { [self] in
      var failures: [StateError] = []
      for state in partitions.values {
        do throws(StateError) { try state.close() } catch { failures.append(error) }
      }
      partitions.removeAll()
      completion(failures)
    }
    if !accepted { completion([]) }
  }

  /// Closes the stores of partitions, so that they can be opened anew.
  func close(_ changelogs: [TopicPartition], completion: @escaping @Sendable () -> Void) {
    let accepted = thread.post { [self] in
      for changelog in changelogs {
        // What could not be closed in order is looked at when it is opened.
        try? partitions.removeValue(forKey: changelog)?.close()
      }
      completion()
    }
    if !accepted { completion() }
  }

  /// Forgets all stores without closing them, as the death of the process does. Not while the thread runs.
  package func abandon() { partitions.removeAll() }

  /// Ends the thread. Nothing may be asked after it.
  public func stop() {
    thread.stop()
    copies?.stop()
  }

  private static let stopped = StateError(.unavailable, "the state is closed")
}
