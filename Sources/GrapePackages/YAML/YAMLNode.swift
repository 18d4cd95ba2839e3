/// A value of a YAML document and where it stands.
struct YAMLNode: Sendable {
  var mark: SourceMark
  var content: Content

  enum Content: Sendable {
    /// `plain`: written without quotes, so that `null`, `true` and `5` mean what they say.
    case scalar(String, plain: Bool)
    case sequence([YAMLNode])
    /// Keys are unique.
    case mapping([Entry])
  }

  struct Entry: Sendable {
    var key: String
    var keyMark: SourceMark
    var value: YAMLNode

    /// Where to point for this entry: at the value if it is a text of its own, else at the key.
    var mark: SourceMark {
      if case .scalar(let text, let plain) = value.content, !(plain && text.isEmpty) { return value.mark }
      return keyMark
    }
  }

  /// Whether nothing is there: an empty value, `null` or `~`.
  var isNull: Bool {
    guard case .scalar(let text, plain: true) = content else { return false }
    return ["", "~", "null", "Null", "NULL"].contains(text)
  }

  /// What kind of value it is, for messages.
  var kind: String {
    switch content {
    case .scalar: isNull ? "empty" : "a single value"
    case .sequence: "a list"
    case .mapping: "a mapping"
    }
  }
}

/// Limits on what is read.
enum YAMLLimits {
  /// Bytes of a document.
  static let bytes = 1 << 20
  /// Lists and mappings within each other.
  static let depth = 64
  /// Problems reported of one file.
  static let problems = 100
}
