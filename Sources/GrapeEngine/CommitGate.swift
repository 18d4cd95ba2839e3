public import GrapeLog
public import GrapeReactor
internal import GrapeWire

/// Hands transactions to the log and knows how many bytes are on their way, so that those who make more can hold back.
///
/// Lives on the reactor's thread. Every part of a node commits through the one gate: the sum is what bounds memory.
public final class CommitGate {
  public let log: any EventLog
  private let reactor: Reactor
  /// Bytes of batches handed to the log and not yet completed.
  public private(set) var bytesInFlight = 0
  /// Above this, clients are not read from.
  public let clientLimit: Int
  /// Above this, workers get no further deliveries.
  public let workerLimit: Int
  /// Set by the first commit that failed for good: the log takes no more.
  public private(set) var failure: LogError? {
    didSet { if oldValue == nil, let failure { onFailure?(failure) } }
  }
  /// Called once, with the failure that ends all commits.
  public var onFailure: ((LogError) -> Void)?
  private var waiting: [() -> Void] = []

  public init(
    log: any EventLog, reactor: Reactor, clientLimit: Int = 32 * 1024 * 1024, workerLimit: Int = 64 * 1024 * 1024
  ) {
    self.log = log
    self.reactor = reactor
    self.clientLimit = clientLimit
    self.workerLimit = workerLimit
  }

  /// Commits; `completion` runs on the reactor's thread, never before this returns.
  public func commit(_ transaction: Transaction, completion: @escaping (Result<CommitReceipt, LogError>) -> Void) {
    let bytes = transaction.appends.reduce(64) { $0 + $1.batch.count }
    bytesInFlight += bytes
    log.commit(
      transaction,
      completion: reactor.completion { [self] result in
        bytesInFlight -= bytes
        if case .failure(let error) = result, error.code == .failed || error.code == .closed {
          failure = failure ?? error
        }
        completion(result)
        resumeWaiting()
      })
  }

  /// Counts bytes that are held for something that follows a commit.
  func hold(_ bytes: Int) { bytesInFlight += bytes }

  /// Counts them no longer.
  func release(_ bytes: Int) {
    bytesInFlight -= bytes
    resumeWaiting()
  }

  private func resumeWaiting() {
    guard bytesInFlight <= clientLimit / 2, !waiting.isEmpty else { return }
    let resumed = waiting
    waiting.removeAll()
    for action in resumed { action() }
  }

  /// A commit that others build on failed: nothing further may be taken from the log, or progress would pass over what was lost.
  func breakOff(_ error: LogError) { failure = failure ?? error }

  /// Clients should be read from.
  public var admitsClients: Bool { bytesInFlight <= clientLimit }
  /// Workers may get deliveries.
  public var admitsDeliveries: Bool { bytesInFlight <= workerLimit }

  /// Runs `action` once the bytes in flight have fallen to half of the clients' limit.
  public func whenDrained(_ action: @escaping () -> Void) { waiting.append(action) }
}
