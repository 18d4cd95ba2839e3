internal import GrapeCore

/// Reads typed fields out of a document and collects everything that is wrong, so that a user sees it all at once.
struct FieldReader {
  /// Where a field stands and how its place is called in this file.
  struct Location {
    var mark: SourceMark
    var shown: FieldPath
  }

  let file: String
  private(set) var problems: [SourceProblem]
  /// Places by the paths that the checks of `Manifest` and `Profile` use.
  private var locations: [FieldPath: Location] = [:]

  init(file: String, problems: [SourceProblem] = []) {
    self.file = file
    self.problems = problems
  }

  mutating func report(_ mark: SourceMark, _ path: FieldPath, _ message: String) {
    if problems.count < YAMLLimits.problems {
      problems.append(SourceProblem(file: file, mark: mark, path: path, message: message))
    }
  }

  /// Notes where the value at `path` stands; `shown` is its path as the file has it, if that differs.
  mutating func locate(_ path: FieldPath, _ mark: SourceMark, shown: FieldPath? = nil) {
    locations[path] = Location(mark: mark, shown: shown ?? path)
  }

  /// Adds what the check of the finished value found, at the nearest place known.
  mutating func report(_ found: [FieldProblem]) {
    for problem in found {
      var path = problem.path
      if let location = locations[path] {
        report(location.mark, location.shown, problem.message)
        continue
      }
      while locations[path] == nil, !path.steps.isEmpty { path = path.parent }
      report(locations[path]?.mark ?? SourceMark(line: 1, column: 1), problem.path, problem.message)
    }
  }

  // MARK: Values

  /// The entries of a mapping; an empty value counts as an empty one. Reports the fields that are not in `allowed`.
  mutating func fields(
    _ node: YAMLNode, _ path: FieldPath, allowed: [String], meant: [String: String] = [:]
  ) -> [String: YAMLNode.Entry] {
    var result: [String: YAMLNode.Entry] = [:]
    for entry in entries(node, path, example: "\(allowed[0]): …") {
      let field = path.key(entry.key)
      guard allowed.contains(entry.key) else {
        let hint =
          meant[entry.key].map { ": use \($0)" } ?? Suggestion.nearest(to: entry.key, among: allowed)
          .map { ": did you mean \($0.quotedForMessage)?" } ?? ": known are \(allowed.joined(separator: ", "))"
        report(entry.keyMark, path, "unknown field \(entry.key.quotedForMessage)\(hint)")
        continue
      }
      locate(field, entry.mark)
      result[entry.key] = entry
    }
    return result
  }

  /// The entries of a mapping whose keys are free.
  mutating func entries(_ node: YAMLNode, _ path: FieldPath, example: String) -> [YAMLNode.Entry] {
    if case .mapping(let entries) = node.content { return entries }
    if !node.isNull {
      report(node.mark, path, "is \(node.kind): write a mapping, for instance \(example.quotedForMessage)")
    }
    return []
  }

  /// A text; nil (and reported) if it is something else.
  mutating func text(_ entry: YAMLNode.Entry?, _ path: FieldPath, example: String) -> String? {
    guard let entry else { return nil }
    if case .scalar(let text, _) = entry.value.content, !entry.value.isNull { return text }
    report(entry.mark, path, "is \(entry.value.kind): write a text, for instance \(example)")
    return nil
  }

  /// A whole number.
  mutating func integer(_ entry: YAMLNode.Entry?, _ path: FieldPath, example: Int) -> Int? {
    guard let entry else { return nil }
    if case .scalar(let text, plain: true) = entry.value.content, let value = YAMLScalar.integer(text) {
      return Int(value)
    }
    report(entry.mark, path, "is \(shown(entry.value)): write a whole number, for instance \(example)")
    return nil
  }

  /// A duration with its unit.
  mutating func duration(_ entry: YAMLNode.Entry?, _ path: FieldPath) -> Duration? {
    guard let entry, let text = text(entry, path, example: "30s") else { return nil }
    do throws(QuantityError) {
      return try DurationText.parse(text)
    } catch {
      report(entry.mark, path, error.message)
      return nil
    }
  }

  /// A number of bytes.
  mutating func byteCount(_ entry: YAMLNode.Entry?, _ path: FieldPath) -> Int? {
    guard let entry, let text = text(entry, path, example: "10MiB") else { return nil }
    do throws(QuantityError) {
      return try ByteCountText.parse(text)
    } catch {
      report(entry.mark, path, error.message)
      return nil
    }
  }

  /// A list of texts with their places. Elements that are no texts are reported and left out.
  mutating func texts(_ entry: YAMLNode.Entry?, _ path: FieldPath, example: String) -> [(
    text: String, mark: SourceMark, path: FieldPath
  )] {
    guard let entry else { return [] }
    return texts(entry.value, entry.mark, path, example: example)
  }

  mutating func texts(
    _ node: YAMLNode, _ mark: SourceMark, _ path: FieldPath, example: String
  ) -> [(text: String, mark: SourceMark, path: FieldPath)] {
    guard case .sequence(let elements) = node.content else {
      if !node.isNull { report(mark, path, "is \(shown(node)): write a list, for instance [\(example)]") }
      return []
    }
    var result: [(text: String, mark: SourceMark, path: FieldPath)] = []
    for (index, element) in elements.enumerated() {
      let place = path.index(index)
      if case .scalar(let text, _) = element.content, !element.isNull {
        locate(path.index(result.count), element.mark, shown: place)
        result.append((text, element.mark, place))
      } else {
        report(element.mark, place, "is \(element.kind): write a text, for instance \(example)")
      }
    }
    return result
  }

  /// Any value, as JSON.
  mutating func json(_ node: YAMLNode, _ path: FieldPath) -> JSONValue {
    switch node.content {
    case .scalar(let text, let plain):
      if let value = YAMLScalar.json(text, plain: plain) { return value }
      report(node.mark, path, "\(text) is a number that JSON cannot hold: write a finite one, or put it in quotes")
      return .null
    case .sequence(let elements):
      var result: [JSONValue] = []
      for (index, element) in elements.enumerated() { result.append(json(element, path.index(index))) }
      return .array(result)
    case .mapping(let entries):
      var members: [JSONValue.Member] = []
      for entry in entries { members.append(JSONValue.Member(entry.key, json(entry.value, path.key(entry.key)))) }
      return .object(members)
    }
  }

  /// A value for a message: itself if it is short, else its kind.
  private func shown(_ node: YAMLNode) -> String {
    if case .scalar(let text, _) = node.content, !node.isNull { return text.quotedForMessage }
    return node.kind
  }
}
