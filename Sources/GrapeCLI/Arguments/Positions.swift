import ArgumentParser
import GrapeCore

/// Where to begin reading a topic.
enum ReadPosition: Equatable {
  case beginning
  case end
  /// In every partition.
  case offset(Int64)
  /// Milliseconds since 1970 UTC.
  case time(Int64)
  /// So long ago.
  case ago(Duration)

  /// `beginning`, `end`, an offset, a time (ISO 8601) or a time ago (`-5m`).
  static func parse(_ text: String) throws -> ReadPosition {
    switch text {
    case "beginning", "start": return .beginning
    case "end", "now": return .end
    default: break
    }
    if let offset = Int64(text), offset >= 0 { return .offset(offset) }
    if text.hasPrefix("-"), let ago = try? parseDuration(String(text.dropFirst())), ago > .zero { return .ago(ago) }
    if let time = CalendarTime(text) { return .time(time.milliseconds) }
    throw ValidationError(
      "a position is beginning, end, an offset (1234), a time (2013-01-31T12:05:00Z) or a time ago (-5m)")
  }
}
