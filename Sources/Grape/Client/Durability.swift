/// How safe an event must be before the node acknowledges it.
public enum AckDurability: UInt8, Sendable, CaseIterable {
  /// What the application's profile says.
  case applicationDefault = 0
  /// Held in the node's memory: lost when the node dies.
  case memory = 1
  /// Written to the operating system: survives the node's death, not the machine's.
  case os = 2
  /// On the disk.
  case disk = 3

  /// `memory`, `os` or `disk`; `default` for the application's.
  public var name: String {
    switch self {
    case .applicationDefault: "default"
    case .memory: "memory"
    case .os: "os"
    case .disk: "disk"
    }
  }

  /// The durability of that name; nil for any other text.
  public init?(name: String) {
    guard let match = Self.allCases.first(where: { $0.name == name }) else { return nil }
    self = match
  }
}
