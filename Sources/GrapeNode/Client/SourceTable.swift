internal import GrapeCore

/// Which connection of a source may send: the one with the greatest epoch. Lives on the reactor's thread.
///
/// A connection that is overtaken is not read any more, and the one that overtakes it is let in only when everything read from it
/// before has been committed or refused. So what its client finds in the log then is all there will ever be of it.
final class SourceTable {
  /// What the table holds of a connection once it was let in.
  protocol Holder: AnyObject {
    /// Ends the connection with this error; nothing that it sent and that was not read yet is read.
    func fence(_ error: StatusError)
    /// Nothing read from it is on its way to the log.
    var isSettled: Bool { get }
    /// Called once, when `isSettled` holds next.
    var onSettled: (() -> Void)? { get set }
  }

  private final class Entry {
    var epoch: Int64
    var turn: UInt64
    /// Let in, and open or not settled yet: one, and those that it overtook.
    var holders: [any Holder] = []
    /// Waits to be let in.
    var waiting: Waiting?

    init(epoch: Int64, turn: UInt64) {
      self.epoch = epoch
      self.turn = turn
    }
  }

  private struct Waiting {
    var epoch: Int64
    var admit: () -> any Holder
    var refuse: (StatusError) -> Void
  }

  /// Sources remembered that have no connection.
  private let limit: Int
  private var entries: [String: Entry] = [:]
  private var turn: UInt64 = 0

  init(limit: Int = 4096) { self.limit = limit }

  /// Lets a connection in, by `admit`, now or later; or calls `refuse` if another overtakes it before. Throws `fenced` if its epoch is not greater than all before.
  func open(
    _ source: SourceEpoch, admit: @escaping () -> any Holder, refuse: @escaping (StatusError) -> Void
  ) throws(StatusError) {
    turn += 1
    let entry: Entry
    if let known = entries[source.id] {
      guard source.epoch > known.epoch else {
        throw StatusError(
          .fenced, "source \(source.id) has come with epoch \(known.epoch) already; \(source.epoch) is not greater")
      }
      entry = known
    } else {
      forgetOldest()
      entry = Entry(epoch: source.epoch, turn: turn)
      entries[source.id] = entry
    }
    entry.epoch = source.epoch
    entry.turn = turn
    let error = StatusError(.fenced, "source \(source.id) has come again, with epoch \(source.epoch)")
    entry.waiting?.refuse(error)
    entry.waiting = Waiting(epoch: source.epoch, admit: admit, refuse: refuse)
    for holder in entry.holders { holder.fence(error) }
    settle(entry)
  }

  /// The connection that waited with this epoch is gone.
  func abandon(_ source: SourceEpoch) {
    guard let entry = entries[source.id], entry.waiting?.epoch == source.epoch else { return }
    entry.waiting = nil
  }

  /// A connection has ended; what was read from it may still be on its way.
  func ended(_ holder: any Holder, of source: SourceEpoch) {
    guard let entry = entries[source.id] else { return }
    if holder.isSettled {
      entry.holders.removeAll { $0 === holder }
    } else {
      holder.onSettled = { [weak self, weak holder] in
        guard let self, let holder else { return }
        entry.holders.removeAll { $0 === holder }
        settle(entry)
      }
    }
  }

  /// Lets the waiting one in once those before it are settled.
  private func settle(_ entry: Entry) {
    guard let waiting = entry.waiting else { return }
    entry.holders.removeAll { $0.isSettled }
    guard entry.holders.isEmpty else {
      for holder in entry.holders { holder.onSettled = { [weak self] in self?.settle(entry) } }
      return
    }
    entry.waiting = nil
    entry.holders.append(waiting.admit())
  }

  private func forgetOldest() {
    guard entries.count >= limit else { return }
    let idle = entries.filter { $0.value.holders.isEmpty && $0.value.waiting == nil }
    if let oldest = idle.min(by: { $0.value.turn < $1.value.turn }) { entries[oldest.key] = nil }
  }
}
