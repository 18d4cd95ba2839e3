/// Whether a partition is this engine's to work on, and what becomes of it when that changes. Pure.
///
/// A consumer group gives partitions and takes them. A lane that goes comes to rest first: nothing new is begun, what is under
/// way is answered; a lane whose commit failed does the same, and begins again from what the log has.
struct LaneTenure {
  enum Phase {
    /// Nothing of it is known.
    case away
    /// Where it stands is being found out, and its state opened.
    case opening
    case here
    /// It is coming to rest.
    case closing
  }

  private(set) var phase = Phase.away
  /// The group has given it to this engine.
  private(set) var isGranted = false
  /// Counts the openings: what was asked for in an earlier term is of no concern.
  private(set) var term = 0
  /// Commits handed to the log and not answered.
  private(set) var unconfirmed = 0
  /// Committed changes on their way into the store.
  private(set) var applying = 0
  /// Openings since it was last at work, for waits between them.
  private(set) var attempts = 0

  var isHere: Bool { phase == .here }
  /// It neither comes nor goes, nor waits for that.
  var isAtRest: Bool { isGranted ? phase == .here : phase == .away }

  // MARK: Coming

  /// The group gives it. True: it is to be opened now.
  mutating func granted() -> Bool {
    isGranted = true
    return phase == .away && open()
  }

  private mutating func open() -> Bool {
    phase = .opening
    term += 1
    attempts += 1
    return true
  }

  /// It is known where it stands. False: it was taken meanwhile, and is to come to rest.
  mutating func opened() -> Bool {
    guard phase == .opening else { return false }
    guard isGranted else {
      phase = .closing
      return false
    }
    phase = .here
    return true
  }

  /// Something of it was dealt with: the next failure is a first one.
  mutating func proved() { attempts = 0 }

  // MARK: Going

  /// The group takes it. An opening under way ends first.
  mutating func withdrawn() {
    isGranted = false
    if phase == .here { phase = .closing }
  }

  /// A commit failed that everything after it builds on.
  mutating func failed() {
    if phase == .here { phase = .closing }
  }

  /// It could not be found out where it stands: it is tried again like one that failed.
  mutating func openFailed() {
    if phase == .opening { phase = .closing }
  }

  /// Nothing is under way but, perhaps, at a worker.
  var isSettled: Bool { phase == .closing && unconfirmed == 0 && applying == 0 }

  /// It has come to rest. True: it is still granted, and is to be opened again.
  mutating func rested() -> Bool {
    phase = .away
    return isGranted
  }

  /// It is opened again after a wait. True: it is to be opened now.
  mutating func reopened() -> Bool { isGranted && phase == .away && open() }

  // MARK: What is under way

  mutating func handedOver() { unconfirmed += 1 }
  mutating func answered() { unconfirmed -= 1 }
  mutating func beganToApply() { applying += 1 }
  mutating func applied() { applying -= 1 }
}

/// How far the log was told, or may be told, that a lane has come. Pure.
struct CommitTrail {
  /// The offset handed to the log last: what the next builds on.
  private(set) var told: Int64
  /// Progress whose effects are in the log for certain.
  private(set) var confirmed: Int64
  /// Progress by results whose commits do not say all of it, and are not answered, in their order.
  private var pending: [Int64] = []

  init(_ offset: Int64) {
    told = offset
    confirmed = offset
  }

  /// An offset is handed to the log.
  mutating func tells(_ offset: Int64) { told = offset }

  /// Effects are handed to the log, with which the lane has come to `offset`. True: `confirmedFirst` is to follow when they are in it.
  ///
  /// - Parameter told: what goes with them of the lane's progress. If that is all of it the log itself keeps the order.
  mutating func handedOver(upTo offset: Int64, telling told: Int64?) -> Bool {
    if told == offset, isConfirmed {
      confirmed = offset
      return false
    }
    pending.append(offset)
    return true
  }

  /// The lane has moved on without effects.
  mutating func moved(to offset: Int64) {
    if pending.isEmpty { confirmed = offset } else { pending[pending.count - 1] = offset }
  }

  /// The first of the effects handed over are in the log.
  mutating func confirmedFirst() {
    if !pending.isEmpty { confirmed = pending.removeFirst() }
  }

  /// All effects are in the log.
  var isConfirmed: Bool { pending.isEmpty }
}
