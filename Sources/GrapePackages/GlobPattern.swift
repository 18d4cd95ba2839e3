internal import GrapeCore

/// Why a text is no pattern.
struct GlobError: Error, Hashable, Sendable {
  var message: String
}

/// A pattern for paths, with the rules of ignore files.
///
/// `*` stands for any characters but `/`, `?` for one, `[a-z]` and `[!a-z]` for one of a set, `**` for any number of
/// folders; `\` takes the meaning from the next character. A pattern without `/` (but at its end) fits a name in any
/// folder, one with `/` the path from the package's folder on. A `/` at the end: folders only. A `!` at the beginning
/// turns the verdict round.
struct GlobPattern: Hashable, Sendable {
  /// The pattern begins with `!`.
  let isNegated: Bool
  private let foldersOnly: Bool
  private let parts: [Part]

  private enum Part: Hashable, Sendable {
    /// `**`
    case anyFolders
    case name([Token])
  }

  private enum Token: Hashable, Sendable {
    case literal(Unicode.Scalar)
    case any
    case many
    case set([ClosedRange<UInt32>], negated: Bool)
  }

  init(_ text: String) throws(GlobError) {
    guard text.utf8.count <= 1024 else {
      throw GlobError(message: "has \(text.utf8.count) bytes: at most 1024 are allowed")
    }
    var body = Array(text.unicodeScalars)
    isNegated = body.first == "!"
    if isNegated { body.removeFirst() }
    foldersOnly = body.last == "/"
    if foldersOnly { body.removeLast() }
    let isAnchored = body.contains("/")
    if body.first == "/" { body.removeFirst() }
    guard !body.isEmpty else {
      throw GlobError(message: "\(text.quotedForMessage) is no pattern: write for instance \"*.csv\"")
    }
    var parts: [Part] = isAnchored ? [] : [.anyFolders]
    for component in body.split(separator: "/", omittingEmptySubsequences: false) {
      if component.isEmpty { throw GlobError(message: "\(text.quotedForMessage) has an empty part between slashes") }
      if component.elementsEqual("..".unicodeScalars) || component.elementsEqual(".".unicodeScalars) {
        throw GlobError(
          message:
            "\(text.quotedForMessage) has the part "
            + "\(String(String.UnicodeScalarView(component)).quotedForMessage): paths begin at the package's folder"
        )
      }
      if component.elementsEqual("**".unicodeScalars) {
        if parts.last != .anyFolders { parts.append(.anyFolders) }
      } else {
        parts.append(.name(try Self.tokens(Array(component), of: text)))
      }
    }
    self.parts = parts
  }

  private static func tokens(_ scalars: [Unicode.Scalar], of text: String) throws(GlobError) -> [Token] {
    var tokens: [Token] = []
    var position = 0
    while position < scalars.count {
      let scalar = scalars[position]
      position += 1
      switch scalar {
      case "*": if tokens.last != .many { tokens.append(.many) }
      case "?": tokens.append(.any)
      case "\\":
        guard position < scalars.count else {
          throw GlobError(
            message: "\(text.quotedForMessage) ends with \"\\\", which takes the meaning from the next character")
        }
        tokens.append(.literal(scalars[position]))
        position += 1
      case "[":
        guard let (set, next) = characterSet(scalars, position) else {
          throw GlobError(
            message:
              "\(text.quotedForMessage) has a \"[\" without its \"]\", or an empty or backward range between them")
        }
        tokens.append(set)
        position = next
      default: tokens.append(.literal(scalar))
      }
    }
    return tokens
  }

  private static func characterSet(_ scalars: [Unicode.Scalar], _ start: Int) -> (Token, Int)? {
    var position = start
    var ranges: [ClosedRange<UInt32>] = []
    let negated = position < scalars.count && (scalars[position] == "!" || scalars[position] == "^")
    if negated { position += 1 }
    let first = position
    while position < scalars.count {
      let low = scalars[position]
      if low == "]", position > first { return (.set(ranges, negated: negated), position + 1) }
      position += 1
      if position + 1 < scalars.count, scalars[position] == "-", scalars[position + 1] != "]" {
        guard low <= scalars[position + 1] else { return nil }
        ranges.append(low.value...scalars[position + 1].value)
        position += 2
      } else {
        ranges.append(low.value...low.value)
      }
    }
    return nil
  }

  /// Whether the pattern fits a path. O(length of pattern × length of path).
  func matches(_ path: String, isFolder: Bool) -> Bool {
    if foldersOnly, !isFolder { return false }
    let names = path.unicodeScalars.split(separator: "/").map { Array($0) }
    // reachable[j]: the parts so far fit the first j names.
    var reachable = [Bool](repeating: false, count: names.count + 1)
    reachable[0] = true
    for (index, part) in parts.enumerated() {
      var next = [Bool](repeating: false, count: names.count + 1)
      switch part {
      case .anyFolders:
        guard let first = reachable.firstIndex(of: true) else { return false }
        // At its end `**` wants at least one name below.
        let least = index == parts.count - 1 ? first + 1 : first
        if least <= names.count { for position in least...names.count { next[position] = true } }
      case .name(let tokens):
        for position in names.indices where reachable[position] && Self.fits(tokens, names[position]) {
          next[position + 1] = true
        }
      }
      reachable = next
    }
    return reachable[names.count]
  }

  private static func fits(_ tokens: [Token], _ name: [Unicode.Scalar]) -> Bool {
    var token = 0
    var position = 0
    // Where the last `*` stands and what it has taken: on a mismatch it takes one more.
    var retry: (token: Int, position: Int)?
    while position < name.count {
      if token < tokens.count {
        if tokens[token] == .many {
          retry = (token, position)
          token += 1
          continue
        }
        if fits(tokens[token], name[position]) {
          token += 1
          position += 1
          continue
        }
      }
      guard let (star, taken) = retry else { return false }
      retry = (star, taken + 1)
      token = star + 1
      position = taken + 1
    }
    while token < tokens.count, tokens[token] == .many { token += 1 }
    return token == tokens.count
  }

  private static func fits(_ token: Token, _ scalar: Unicode.Scalar) -> Bool {
    switch token {
    case .literal(let wanted): wanted == scalar
    case .any, .many: true
    case .set(let ranges, let negated): ranges.contains { $0.contains(scalar.value) } != negated
    }
  }
}
