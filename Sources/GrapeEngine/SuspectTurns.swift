/// When a worker takes events that may have killed another one. Pure.
///
/// A worker that dies over several deliveries does not say which event was at fault. So each of these events, the *suspects*, is given to a worker that holds
/// nothing else, and that gets nothing else until it has answered: who dies then died of it. Between two suspects the other lanes have a turn.
struct SuspectTurns {
  /// A suspect is at the worker.
  private(set) var holdsSuspect = false
  /// A suspect waits until the worker holds nothing.
  private var isAwaited = false
  /// A suspect was answered: the others come first.
  private var isOthersTurn = false

  /// A look at all lanes begins. Lanes with suspects are to be looked at first.
  mutating func begin() { isAwaited = false }

  /// Whether an event can go to the worker now.
  ///
  /// - Parameter isIdle: it holds nothing.
  mutating func admits(suspect: Bool, isIdle: Bool) -> Bool {
    if suspect, !holdsSuspect, !isOthersTurn, !isIdle { isAwaited = true }
    return wouldAdmit(suspect: suspect, isIdle: isIdle)
  }

  /// The same, to somebody who sends nothing.
  func wouldAdmit(suspect: Bool, isIdle: Bool) -> Bool {
    if holdsSuspect { return false }
    return suspect ? !isOthersTurn && isIdle : !isAwaited
  }

  /// Events went to it.
  mutating func gave(suspect: Bool) { holdsSuspect = suspect }

  /// A delivery was answered.
  mutating func answered() {
    isOthersTurn = isOthersTurn || holdsSuspect
    holdsSuspect = false
  }

  /// The look at all lanes ends. True: another one is due, as suspects were passed over.
  mutating func end() -> Bool {
    defer { isOthersTurn = false }
    return isOthersTurn
  }
}
