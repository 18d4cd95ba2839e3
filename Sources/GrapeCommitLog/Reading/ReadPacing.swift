/// Shares the disk between commits and reads: tells when a read may use it. No clock, no thread; times are nanoseconds of
/// one monotonic clock. One read at a time.
///
/// A read-ahead of megabytes in the disk's queue delays every fdatasync that comes behind it, and what a disk
/// transfers in a second both have to share. So while there are commits reads go in *pieces*, which begin between two
/// groups, not while one is being written, and take a share of the time: *credit*, in nanoseconds, comes in as time goes
/// by and is spent by reading. A read that has waited for long goes ahead whatever the writer does.
struct ReadPacing {
  /// What a read may do while there are commits.
  enum Turn: Equatable {
    /// One piece, to be told of with `pieceRead`.
    case piece
    /// Nothing: ask again when a group ends, and at this time at the latest.
    case wait(until: Int64)
  }

  /// Most bytes of a piece.
  static let pieceBytes = 512 << 10
  /// So long after the last group reads are free.
  static let quiet: Int64 = 100_000_000
  /// Whoever sends one commit when the one before is answered leaves the writer nothing to do for a moment: up to that
  /// long it still counts as busy.
  static let breath: Int64 = 1_000_000
  /// Longest wait for a turn.
  static let patience: Int64 = 100_000_000
  /// Part of the time of a busy writer that reads may take, in percent.
  static let sharePercent: Int64 = 5
  /// Most credit that is kept for later: two pieces' worth on a disk that is not fast.
  private static let mostCredit: Int64 = 2_000_000
  /// Most that is owed: what comes in while patience lasts.
  private static let leastCredit = -patience * sharePercent / 100

  private var isWriting = false
  /// A read was told to wait and has not asked again.
  private(set) var isAwaited = false
  /// It was told to go ahead when the group ended: the next group may begin before it has heard of that.
  private var isPromised = false
  private var lastGroup: Int64?
  private var credit = mostCredit
  /// Up to when credit has come in.
  private var credited: Int64 = 0

  /// A group goes to the disk.
  mutating func groupBegan(at now: Int64) {
    earn(until: now)
    isWriting = true
  }

  /// The group is on the disk, or has failed.
  mutating func groupEnded(at now: Int64) {
    earn(until: now)
    isWriting = false
    lastGroup = now
    isPromised = isAwaited && credit > 0
  }

  /// True if nobody else wants the disk.
  func isFree(at now: Int64) -> Bool {
    guard let lastGroup else { return !isWriting }
    return !isWriting && now - lastGroup >= Self.quiet
  }

  /// Asked when `isFree` says no, again and again from `asked` on.
  mutating func turn(at now: Int64, asked: Int64) -> Turn {
    earn(until: now)
    isAwaited = false
    if isPromised {
      isPromised = false
      return .piece
    }
    if !isWriting, credit > 0 || isFree(at: now) { return .piece }
    if now - asked >= Self.patience { return .piece }
    isAwaited = true
    let deadline = asked + Self.patience
    // Without a group under way credit comes in as time goes by.
    return .wait(until: isWriting ? deadline : min(deadline, max(now, idleFrom) - credit + 1))
  }

  /// A piece took from `began` to `now`.
  mutating func pieceRead(from began: Int64, to now: Int64) {
    earn(until: now)
    credit = max(credit - (now - began), Self.leastCredit)
  }

  /// When time that the disk has for reads alone begins, if no group comes.
  private var idleFrom: Int64 { lastGroup.map { $0 + Self.breath } ?? 0 }

  private mutating func earn(until now: Int64) {
    // Two threads may come with their times in the wrong order.
    guard now > credited else { return }
    let idle = isWriting ? 0 : max(now - max(credited, idleFrom), 0)
    let shared = now - credited - idle
    credited = now
    credit = min(credit + idle + shared * Self.sharePercent / 100, Self.mostCredit)
  }
}
