import Glibc

/// How far an ingest (or another work on rows) is, drawn on a terminal's standard error ten times a second at most.
struct IngestProgress {
  /// Of all files; 0 if it is not known.
  var totalBytes: Int64 = 0
  /// Of the files that are done.
  var bytesBefore: Int64 = 0
  /// Events acknowledged since the start of this run.
  var acknowledgedHere: Int64 = 0

  private let isShown: Bool
  /// What is counted.
  private let noun: String
  private let started = ContinuousClock.now
  private var lastDrawn = ContinuousClock.now
  private var lastBytes: Int64 = 0
  private var isOnScreen = false

  init(isShown: Bool, noun: String = "events") {
    self.isShown = isShown
    self.noun = noun
  }

  /// Since the start.
  var seconds: Double {
    let (seconds, attoseconds) = (ContinuousClock.now - started).components
    return Double(seconds) + Double(attoseconds) / 1e18
  }

  /// - Parameter bytes: read of all files; nil: as before.
  mutating func update(bytes: Int64?, events: Int64, acknowledged: Int64) {
    if let bytes { lastBytes = bytes }
    guard isShown, ContinuousClock.now - lastDrawn > .milliseconds(100) else { return }
    lastDrawn = .now
    isOnScreen = true
    Output.writeError("\r" + line(events: events, acknowledged: acknowledged) + "\u{1b}[K")
  }

  private func line(events: Int64, acknowledged: Int64) -> String {
    let seconds = max(seconds, 0.001)
    let rate = Double(acknowledgedHere) / seconds
    var text = "\(Format.count(acknowledged)) \(noun), \(Format.rate(rate))/s, \(Format.bytes(lastBytes))"
    guard totalBytes > 0 else { return text }
    let share = min(1, Double(lastBytes) / Double(totalBytes))
    text += " of \(Format.bytes(totalBytes)), \(Int(share * 100)) %"
    if share > 0.01, share < 1 {
      text += ", \(Format.milliseconds(seconds * 1000 * (1 - share) / share)) left"
    }
    let width = (Output.terminalWidth(2) ?? 80) - text.count - 4
    guard width >= 10 else { return text }
    let filled = Int(Double(width) * share)
    return "[" + String(repeating: "=", count: filled) + String(repeating: " ", count: width - filled) + "] " + text
  }

  /// Runs `body`, which writes lines to standard error, with the bar out of the way.
  mutating func interrupt(_ body: () -> Void) {
    clear()
    body()
  }

  /// Removes the bar.
  mutating func end() { clear() }

  private mutating func clear() {
    if isOnScreen { Output.writeError("\r\u{1b}[K") }
    isOnScreen = false
  }
}
