/// How record batches are packed by those who make them.
///
/// Kafka's format knows codecs by number and has no place for a dictionary's id, so a level is all that can be chosen.
public enum BatchCompression: Hashable, Sendable, CustomStringConvertible {
  case none
  /// Zstandard at a level of `levels`.
  case zstd(level: Int)

  /// 1 is fast, 19 small.
  public static let levels = 1...19

  /// Reads `none`, `zstd` (level 1) or `zstd:LEVEL`; nil for all else.
  public init?(_ text: String) {
    switch text {
    case "none": self = .none
    case "zstd": self = .zstd(level: 1)
    default:
      guard text.hasPrefix("zstd:"), let level = Int(text.dropFirst(5)), Self.levels.contains(level),
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
