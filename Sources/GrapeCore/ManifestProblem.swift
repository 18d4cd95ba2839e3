/// A place in a manifest or profile: `slots.raw.emits[1]`.
public struct FieldPath: Hashable, Sendable, CustomStringConvertible {
  /// One step from a value into a part of it.
  public enum Step: Hashable, Sendable {
    case key(String)
    case index(Int)
  }

  public var steps: [Step]

  public init(_ steps: [Step] = []) { self.steps = steps }

  /// The place of the member `name` of what this path leads to.
  public func key(_ name: String) -> FieldPath { FieldPath(steps + [.key(name)]) }
  /// The place of the element `number`, counted from 0.
  public func index(_ number: Int) -> FieldPath { FieldPath(steps + [.index(number)]) }

  /// The path without its last step; itself if it has none.
  public var parent: FieldPath { FieldPath(Array(steps.dropLast())) }

  public var description: String {
    var result = ""
    for step in steps {
      switch step {
      case .key(let name): result += result.isEmpty ? name : "." + name
      case .index(let number): result += "[\(number)]"
      }
    }
    return result
  }
}

/// Something wrong in a manifest or profile.
public struct FieldProblem: Hashable, Sendable, CustomStringConvertible {
  public var path: FieldPath
  /// What is wrong and what would be right.
  public var message: String

  public init(_ path: FieldPath, _ message: String) {
    self.path = path
    self.message = message
  }

  public var description: String { path.steps.isEmpty ? message : "\(path): \(message)" }
}

/// Finds what somebody most likely meant to write.
public enum Suggestion {
  /// The candidate nearest to `word`, if one is near enough to be meant: at most a third of the letters differ.
  /// O(candidates × length²).
  public static func nearest(to word: String, among candidates: some Sequence<String>) -> String? {
    guard word.utf8.count <= 128 else { return nil }
    var best: (distance: Int, text: String)?
    for candidate in candidates where candidate != word {
      let distance = distance(Array(word.utf8), Array(candidate.utf8))
      let longest = max(word.utf8.count, candidate.utf8.count)
      guard distance <= max(1, longest / 3), distance < longest else { continue }
      if let found = best, (found.distance, found.text) <= (distance, candidate) { continue }
      best = (distance, candidate)
    }
    return best?.text
  }

  /// `: did you mean "x"?`, or else `: allowed are a, b, c`.
  package static func hint(for word: String, among candidates: [String]) -> String {
    if let near = nearest(to: word, among: candidates) { return ": did you mean \(near.quotedForMessage)?" }
    guard !candidates.isEmpty else { return "" }
    let shown = candidates.prefix(24).joined(separator: ", ")
    return ": there \(candidates.count == 1 ? "is" : "are") \(shown)\(candidates.count > 24 ? ", …" : "")"
  }

  /// Least number of insertions, deletions, replacements and swaps of neighbours (optimal string alignment distance).
  static func distance(_ left: [UInt8], _ right: [UInt8]) -> Int {
    if left.isEmpty { return right.count }
    if right.isEmpty { return left.count }
    var beforePrevious = [Int](repeating: 0, count: right.count + 1)
    var previous = Array(0...right.count)
    var current = previous
    for i in 1...left.count {
      current[0] = i
      for j in 1...right.count {
        let cost = left[i - 1] == right[j - 1] ? 0 : 1
        current[j] = min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + cost)
        if i > 1, j > 1, left[i - 1] == right[j - 2], left[i - 2] == right[j - 1] {
          current[j] = min(current[j], beforePrevious[j - 2] + 1)
        }
      }
      (beforePrevious, previous, current) = (previous, current, beforePrevious)
    }
    return previous[right.count]
  }
}
