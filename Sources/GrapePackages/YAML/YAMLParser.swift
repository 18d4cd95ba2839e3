internal import GrapeCore
private import Yams

/// A document and what is wrong with its form.
struct YAMLDocument {
  /// Nil if the document is empty or cannot be read at all.
  var root: YAMLNode?
  var problems: [SourceProblem]

  /// Reads one YAML document: UTF-8, no aliases, no tags, keys unique and single values.
  ///
  /// The first error of form ends the reading; `root` is then nil.
  init(parsing bytes: [UInt8], file: String) {
    root = nil
    problems = []
    do throws(YAMLRefusal) {
      root = try Self.compose(bytes)
    } catch {
      problems = [SourceProblem(file: file, mark: error.mark, message: error.message)]
    }
  }

  private static func compose(_ bytes: [UInt8]) throws(YAMLRefusal) -> YAMLNode? {
    guard bytes.count <= YAMLLimits.bytes else {
      throw YAMLRefusal(
        SourceMark(line: 1, column: 1),
        "the file has \(bytes.count) bytes: at most \(ByteCountText.format(YAMLLimits.bytes)) are read")
    }
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw YAMLRefusal(
        SourceMark(of: firstInvalidByte(bytes), in: bytes), "the file is not UTF-8 here: save it in that encoding")
    }
    if let offset = controlCharacter(bytes) {
      throw YAMLRefusal(SourceMark(of: offset, in: bytes), "a control character is not allowed here: remove it")
    }
    // The library resolves aliases while it reads, and hashes keys: aliases of aliases in keys take exponential time.
    // So many aliases are refused before it sees them; few are refused below, with the right place.
    if let offset = surplusAlias(bytes) {
      throw YAMLRefusal(SourceMark(of: offset, in: bytes), "aliases (*name) are not read here: write the values out")
    }
    let parser: Parser
    let tree: Node?
    do {
      // The basic resolver leaves the meaning of plain scalars to `YAMLScalar`.
      parser = try Parser(yaml: text, resolver: .basic, encoding: .utf8)
      tree = try parser.singleRoot()
    } catch let error as YamlError {
      throw YAMLRefusal(error, bytes)
    } catch {
      throw YAMLRefusal(SourceMark(line: 1, column: 1), "the file cannot be read: \(error)")
    }
    guard let tree else { return nil }
    // The parser owns the anchors that nodes refer to weakly.
    defer { withExtendedLifetime(parser) {} }
    return try convert(tree, depth: 0)
  }

  private static func convert(_ node: Node, depth: Int) throws(YAMLRefusal) -> YAMLNode {
    let mark = node.mark.map { SourceMark(line: $0.line, column: $0.column) } ?? SourceMark(line: 1, column: 1)
    if node.anchor != nil {
      throw YAMLRefusal(mark, "anchors (&name) and aliases (*name) are not read here: write the value out")
    }
    if depth > YAMLLimits.depth { throw YAMLRefusal(mark, "nested deeper than \(YAMLLimits.depth) levels") }
    func expect(_ tag: Tag.Name) throws(YAMLRefusal) {
      if node.tag.description != tag.rawValue {
        throw YAMLRefusal(mark, "the tag \(node.tag.description.quotedForMessage) is not read here: leave it out")
      }
    }
    switch node {
    case .scalar(let scalar):
      try expect(.str)
      return YAMLNode(mark: mark, content: .scalar(scalar.string, plain: scalar.style == .plain))
    case .sequence(let sequence):
      try expect(.seq)
      var elements: [YAMLNode] = []
      for element in sequence { elements.append(try convert(element, depth: depth + 1)) }
      return YAMLNode(mark: mark, content: .sequence(elements))
    case .mapping(let mapping):
      try expect(.map)
      var entries: [YAMLNode.Entry] = []
      for (key, value) in mapping {
        let name = try convert(key, depth: depth + 1)
        guard case .scalar(let text, _) = name.content else {
          throw YAMLRefusal(name.mark, "a key must be a single value, not \(name.kind)")
        }
        entries.append(YAMLNode.Entry(key: text, keyMark: name.mark, value: try convert(value, depth: depth + 1)))
      }
      return YAMLNode(mark: mark, content: .mapping(entries))
    case .alias:
      throw YAMLRefusal(mark, "aliases (*name) are not read here: write the value out")
    }
  }

  /// Most aliases that are left to the library to resolve.
  private static let aliasLimit = 16

  /// The offset of the alias beyond the limit, if there are so many. Counts what looks like one, also within block
  /// texts and comments.
  private static func surplusAlias(_ bytes: [UInt8]) -> Int? {
    var count = 0
    for index in bytes.indices where bytes[index] == UInt8(ascii: "*") && index + 1 < bytes.count {
      let next = bytes[index + 1]
      let isName =
        UInt8(ascii: "a")...UInt8(ascii: "z") ~= next | 0x20 || UInt8(ascii: "0")...UInt8(ascii: "9") ~= next
        || next == UInt8(ascii: "_") || next == UInt8(ascii: "-")
      let isStart = index == 0 || " \t\r\n[]{},?:".utf8.contains(bytes[index - 1])
      guard isName, isStart else { continue }
      count += 1
      if count > aliasLimit { return index }
    }
    return nil
  }

  /// The offset of a control character that no YAML text may hold.
  private static func controlCharacter(_ bytes: [UInt8]) -> Int? {
    bytes.indices.first { index in
      let byte = bytes[index]
      return byte < 0x20 ? ![0x09, 0x0a, 0x0d].contains(byte) : byte == 0x7f
    }
  }

  private static func firstInvalidByte(_ bytes: [UInt8]) -> Int {
    var decoder = UTF8()
    var iterator = bytes.makeIterator()
    var position = 0
    while case .scalarValue(let scalar) = decoder.decode(&iterator) { position += UTF8.width(scalar) }
    return position
  }
}

/// Why a document cannot be read.
private struct YAMLRefusal: Error {
  var mark: SourceMark
  var message: String

  init(_ mark: SourceMark, _ message: String) {
    self.mark = mark
    self.message = message
  }

  /// The library's error, as a place and a sentence.
  init(_ error: YamlError, _ bytes: [UInt8]) {
    func place(_ mark: Mark) -> SourceMark { SourceMark(line: mark.line, column: mark.column) }
    switch error {
    case .scanner(let context, let problem, let mark, _), .parser(let context, let problem, let mark, _),
      .composer(let context, let problem, let mark, _):
      self.init(place(mark), Self.sentence(problem, context?.text, place(mark), bytes))
    case .duplicatedKeysInMapping(let duplicates, let context):
      let key = duplicates.first ?? ""
      self.init(
        Self.secondPlace(of: key, from: place(context.mark), bytes),
        "the key \(key.quotedForMessage) is there twice in one mapping: remove one of them")
    case .reader(_, let offset, _, let yaml):
      let before = yaml.prefix(offset ?? 0)
      self.init(SourceMark(of: before.utf8.count, in: bytes), "a character is not allowed here: remove it")
    default:
      self.init(SourceMark(line: 1, column: 1), "the file cannot be read: \(error)")
    }
  }

  /// Where a repeated key stands for the second time, as far as lines tell; else where its mapping begins, which is all that the
  /// library says.
  private static func secondPlace(of key: String, from mapping: SourceMark, _ bytes: [UInt8]) -> SourceMark {
    let start = String(repeating: " ", count: mapping.column - 1) + key
    let lines = bytes.split(separator: 0x0a, omittingEmptySubsequences: false).enumerated().dropFirst(mapping.line - 1)
    let places = lines.filter { _, line in
      line.starts(with: start.utf8) && line.dropFirst(start.utf8.count).first { $0 != 0x20 } == UInt8(ascii: ":")
    }
    return places.count < 2
      ? mapping : SourceMark(line: places[places.startIndex + 1].offset + 1, column: mapping.column)
  }

  private static func sentence(_ problem: String, _ context: String?, _ mark: SourceMark, _ bytes: [UInt8]) -> String {
    if problem.hasPrefix("but found another document") {
      return "a second document begins here: one file holds one document"
    }
    if problem.contains("Maximum nesting level") { return "nested deeper than \(YAMLLimits.depth) levels" }
    let lines = bytes.split(separator: 0x0a, maxSplits: mark.line, omittingEmptySubsequences: false)
    if mark.line <= lines.count {
      let line = Array(String(decoding: lines[mark.line - 1], as: UTF8.self).unicodeScalars)
      if mark.column <= line.count, line[mark.column - 1] == "\t" { return "a tab cannot indent: use spaces" }
    }
    return "not YAML: \(problem)" + (context.map { " \($0)" } ?? "")
  }
}

extension SourceMark {
  /// The place of the byte at `offset`.
  fileprivate init(of offset: Int, in bytes: [UInt8]) {
    let before = bytes[..<offset]
    let lineStart = before.lastIndex(of: 0x0a).map { $0 + 1 } ?? 0
    self.init(
      line: before.count { $0 == 0x0a } + 1,
      column: String(decoding: before[lineStart...], as: UTF8.self).unicodeScalars.count + 1)
  }
}
