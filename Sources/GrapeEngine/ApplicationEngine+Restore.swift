package import GrapeCore
internal import GrapeLog
internal import GrapeReactor
package import GrapeStore
package import GrapeWire

/// State as a whole: taken out for backups and checks, and brought to what a backup has.
extension ApplicationEngine {
  /// Holds fast the state of these partitions, all of them as they are at one moment; nil for those in which nothing was ever written.
  package func snapshotState(
    _ partitions: Range<Int32>, completion: @escaping @Sendable (Result<[(any StateSnapshot)?], StateError>) -> Void
  ) {
    environment.state.snapshots(partitions.map { changelog(Int($0)) }, completion: completion)
  }

  /// Begins to change the state from outside. `conflict` unless the application has stopped, and while another does it.
  package func beginRestore() throws(StatusError) {
    guard state == .stopped else {
      throw StatusError(
        .conflict,
        "\(name) is \(state.rawValue): its state can be restored while it is stopped (grape app stop \(name))")
    }
    guard !isRestoring else { throw StatusError(.conflict, "the state of \(name) is being restored already") }
    isRestoring = true
  }

  /// Ends it; the application may be started again.
  package func endRestore() { isRestoring = false }

  /// Writes changes of one partition, in ascending order of keys, each once: to the changelog in one commit, then to the store. `completion` on the
  /// reactor's thread when the store has them.
  package func restore(
    _ changes: [(key: ByteSlice, entry: ByteSlice?)], in partition: Int32,
    completion: @escaping (Result<Void, StateError>) -> Void
  ) {
    precondition(isRestoring)
    let index = Int(partition)
    guard !isStateClosed, stateGates[index].isReady else {
      return completion(.failure(StateError(.unavailable, "the state of \(changelog(index)) is not open")))
    }
    var transaction = Transaction(durability: Durability(profile.durability))
    do throws(WireError) {
      transaction.appends = try changelogAppends(changes, lane: index)
    } catch {
      return completion(.failure(StateError(.tooLarge, error.message)))
    }
    stateGates[index].nodeWrote()
    commit(transaction, lane: index) { [self] outcome in
      switch outcome {
      case .success(let receipt):
        applyState(transaction, receipt, lane: index, processed: lanes[index].processed)
        whenApplied(partition..<partition + 1) { completion(.success(())) }
      case .failure(let error):
        completion(.failure(StateError(.unavailable, error.message)))
      }
    }
  }
}
