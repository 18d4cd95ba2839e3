/// How record batches are packed by those who make them.
///
/// Kafka's format knows codecs by number and has no place for a dictionary's id, so a level is all that can be chosen.
public enum BatchCompression: Hashable, Sendable, CustomStringConvertible {
  case none
  /// Zstandard at a level that `hasLevel` takes.
  case zstd(level: Int)

  /// What may be written, for messages.
  public static let choices = "none, zstd, zstd:1 (fast) to zstd:19 (small), or zstd:-1 to zstd:-7 (fastest)"

  /// True for 1 (fast) to 19 (small), and for -1 to -7, which are faster still and pack less. 0 is none of them: to the
  /// library it means a level of its own choice.
  public static func hasLevel(_ level: Int) -> Bool { level != 0 && (-7...19).contains(level) }

  /// Reads `none`, `zstd` (level 1) or `zstd:LEVEL`; nil for all else.
  public init?(_ text: String) {
    switch text {
    case "none": self = .none
    case "zstd": self = .zstd(level: 1)
    default:
      guard text.hasPrefix("zstd:"), let level = Int(text.dropFirst(5)), Self.hasLevel(level),
        text == "zstd:\(level)"
      else { return nil }
      self = .zstd(level: level)
    }
  }

  /// zstd's level; nil: none.
  public var level: Int? {
    switch self {
    case .none: nil
    case .zstd(let level): level
    }
  }

  public var description: String {
    switch self {
    case .none: "none"
    case .zstd(let level): "zstd:\(level)"
    }
  }
}
