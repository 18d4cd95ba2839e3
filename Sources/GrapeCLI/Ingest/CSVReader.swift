import GrapeCore
import GrapeWire

/// Rows of a CSV file (RFC 4180) with a header row. Each becomes a JSON object of strings, in the order of the columns.
///
/// Fields may stand in double quotes, with `""` for a quote, and may then hold commas and line ends. Lines end with
/// `\n` or `\r\n`; empty lines between rows are passed over.
final class CSVReader: RowReader {
  private let text: InputText
  private var pendingBytes = 0
  private var pendingLines: Int64 = 0
  /// Begin and end of each field in `content`.
  private var fields: [(begin: Int, end: Int)] = []
  /// The fields' bytes, unquoted.
  private let content = ScratchBytes()
  private let output = ScratchBytes()
  /// `{"name":` and `,"name":` as they stand before each value, one behind the other, and where each ends.
  private let prefixes = ScratchBytes()
  private var prefixEnds: [Int] = []
  private let keyColumn: Int?
  private let eventColumn: Int?

  /// Reads the header row, and goes to `start` if it is given. Throws `CommandFailure` if a column is missing or named twice.
  init(_ text: InputText, keyField: String?, eventField: String?, start: InputPosition?) throws {
    self.text = text
    var names: [String] = []
    do {
      if let columns = try Self.readRow(text, &fields, content, &pendingBytes, &pendingLines) {
        for column in 0..<columns {
          let (begin, end) = fields[column]
          guard let name = String(validating: content[begin, end], as: UTF8.self) else {
            throw BadRow(message: "\(text.name):1: the name of column \(column + 1) is not UTF-8")
          }
          names.append(name)
        }
      }
    } catch let error as BadRow {
      throw CommandFailure(.badInput, error.message)
    }
    // What spreadsheets put before the first name.
    if names.first?.hasPrefix("\u{feff}") == true { names[0].removeFirst() }
    if let twice = names.first(where: { name in names.filter { $0 == name }.count > 1 }) {
      throw CommandFailure(.badInput, "\(text.name):1: two columns are named `\(twice)`")
    }
    func column(_ field: String?, _ option: String) throws -> Int? {
      guard let field else { return nil }
      if let index = names.firstIndex(of: field) { return index }
      // A file without any row at all has no events either.
      guard !names.isEmpty else { return nil }
      throw CommandFailure(
        .badInput,
        "\(text.name):1: there is no column `\(field)` for \(option); the columns are \(names.joined(separator: ", "))")
    }
    keyColumn = try column(keyField, "--key-field")
    eventColumn = try column(eventField, "--event-field")
    for (index, name) in names.enumerated() {
      prefixes.append(index == 0 ? UInt8(ascii: "{") : UInt8(ascii: ","))
      JSONValue.string(name).utf8.withUnsafeBytes { prefixes.append($0) }
      prefixes.append(UInt8(ascii: ":"))
      prefixEnds.append(prefixes.count)
    }
    if let start, start.offset > 0 {
      guard try text.seek(to: start) else {
        throw CommandFailure(.badInput, "\(text.name) is shorter than what was read of it before")
      }
      pendingBytes = 0
      pendingLines = 0
    }
  }

  var position: InputPosition {
    settle()
    return text.position
  }

  private func settle() {
    if pendingBytes > 0 { text.take(pendingBytes, lines: pendingLines) }
    pendingBytes = 0
    pendingLines = 0
  }

  func next() throws -> InputRow? {
    settle()
    guard let columns = try Self.readRow(text, &fields, content, &pendingBytes, &pendingLines) else { return nil }
    let line = text.position.line
    guard columns == prefixEnds.count else {
      throw BadRow(
        message: "\(text.name):\(line): \(columns) fields where the header has \(prefixEnds.count) columns")
    }
    try write(columns, line: line)
    func field(_ column: Int?) -> UnsafeRawBufferPointer? {
      column.map { content[fields[$0].begin, fields[$0].end] }
    }
    return InputRow(value: output.bytes, key: field(keyColumn), event: field(eventColumn), line: line)
  }

  /// Writes the fields as a JSON object to `output`.
  private func write(_ columns: Int, line: Int64) throws {
    let (output, content, prefixes) = (output, content, prefixes)
    output.removeAll()
    let bad = fields.withUnsafeBufferPointer { fields in
      prefixEnds.withUnsafeBufferPointer { ends -> Int? in
        var prefix = 0
        for column in 0..<columns {
          output.append(prefixes[prefix, ends[column]])
          prefix = ends[column]
          guard JSONString.append(content[fields[column].begin, fields[column].end], to: output) else { return column }
        }
        return nil
      }
    }
    if let bad { throw BadRow(message: "\(text.name):\(line): field \(bad + 1) is not UTF-8") }
    output.append(UInt8(ascii: "}"))
  }

  /// Reads one row into `fields` and `content`; nil at the end. `bytes` and `lines` say how much text it took.
  private static func readRow(
    _ text: InputText, _ fields: inout [(begin: Int, end: Int)], _ content: ScratchBytes, _ bytes: inout Int,
    _ lines: inout Int64
  ) throws -> Int? {
    while true {
      var parser = CSVRowParser()
      fields.removeAll(keepingCapacity: true)
      content.removeAll()
      switch parser.parse(text.window, &fields, content, isEnd: false) {
      case .row(let count, let lineCount):
        bytes = count
        lines = lineCount
        return fields.count
      case .blank(let count):
        text.take(count, lines: 1)
      case .incomplete:
        // Parsed again from its beginning once more is there: rows are short beside the buffer.
        if try text.readMore() { continue }
        return try lastRow(text, &fields, content, &bytes, &lines)
      case .wrong(let message, let line, let resumeAt, let linesPassed):
        let place = text.position.line + line
        text.take(resumeAt, lines: linesPassed)
        throw BadRow(message: "\(text.name):\(place): \(message)")
      }
    }
  }

  private static func lastRow(
    _ text: InputText, _ fields: inout [(begin: Int, end: Int)], _ content: ScratchBytes, _ bytes: inout Int,
    _ lines: inout Int64
  ) throws -> Int? {
    guard !text.window.isEmpty else { return nil }
    var parser = CSVRowParser()
    fields.removeAll(keepingCapacity: true)
    content.removeAll()
    switch parser.parse(text.window, &fields, content, isEnd: true) {
    case .row(let count, let lineCount):
      bytes = count
      lines = lineCount
      return fields.count
    case .blank(let count):
      text.take(count, lines: 1)
      return nil
    case .wrong(let message, let line, let resumeAt, let linesPassed):
      let place = text.position.line + line
      text.take(resumeAt, lines: linesPassed)
      throw BadRow(message: "\(text.name):\(place): \(message)")
    case .incomplete: preconditionFailure("the end of the text completes every row")
    }
  }
}

/// The grammar of one CSV row.
struct CSVRowParser {
  enum Outcome: Equatable {
    /// Bytes of the row with its end, and lines that end in it.
    case row(bytes: Int, lines: Int64)
    /// An empty line of so many bytes.
    case blank(bytes: Int)
    /// The text ends before the row does.
    case incomplete
    /// What is wrong, on which line of the row (from 0), and where to go on: bytes and lines to pass over.
    case wrong(String, line: Int64, bytes: Int, lines: Int64)
  }

  /// Reads the row at the beginning of `text`. `isEnd`: nothing follows the text.
  mutating func parse(
    _ text: UnsafeRawBufferPointer, _ fields: inout [(begin: Int, end: Int)], _ content: ScratchBytes, isEnd: Bool
  ) -> Outcome {
    guard let first = text.first else { return .incomplete }
    if first == 0x0a { return .blank(bytes: 1) }
    if first == 0x0d {
      if text.count > 1, text[1] == 0x0a { return .blank(bytes: 2) }
      if text.count == 1 { return isEnd ? .blank(bytes: 1) : .incomplete }
    }
    var position = 0
    var lines: Int64 = 0
    while true {
      let begin = content.count
      if position < text.count, text[position] == UInt8(ascii: "\"") {
        let opened = lines
        position += 1
        while true {
          guard let quote = ByteSearch.first(UInt8(ascii: "\""), in: text, from: position) else {
            guard isEnd else { return .incomplete }
            return .wrong(
              "the quoted field that begins here does not end", line: opened, bytes: text.count,
              lines: lines + count(0x0a, in: text[position...]) + 1)
          }
          let piece = text[position..<quote]
          content.append(UnsafeRawBufferPointer(rebasing: piece))
          lines += count(0x0a, in: piece)
          position = quote + 1
          guard position < text.count else {
            if isEnd { break }
            return .incomplete
          }
          guard text[position] == UInt8(ascii: "\"") else { break }
          content.append(UInt8(ascii: "\""))
          position += 1
        }
        if position < text.count, text[position] == 0x0d {
          guard position + 1 < text.count || isEnd else { return .incomplete }
          if position + 1 == text.count || text[position + 1] == 0x0a { position += 1 }
        }
        guard position == text.count || text[position] == UInt8(ascii: ",") || text[position] == 0x0a else {
          guard let end = ByteSearch.first(0x0a, in: text, from: position) else {
            guard isEnd else { return .incomplete }
            return .wrong(
              "a comma or the line's end must follow the closing quote", line: lines, bytes: text.count,
              lines: lines + 1)
          }
          return .wrong(
            "a comma or the line's end must follow the closing quote", line: lines, bytes: end + 1, lines: lines + 1)
        }
      } else {
        var end = position
        while end < text.count, text[end] != UInt8(ascii: ","), text[end] != 0x0a { end += 1 }
        guard end < text.count || isEnd else { return .incomplete }
        var trimmed = end
        if trimmed > position, text[trimmed - 1] == 0x0d, end == text.count || text[end] == 0x0a { trimmed -= 1 }
        content.append(UnsafeRawBufferPointer(rebasing: text[position..<trimmed]))
        position = end
      }
      fields.append((begin, content.count))
      guard position < text.count else {
        guard isEnd else { return .incomplete }
        return .row(bytes: position, lines: lines + 1)
      }
      let separator = text[position]
      position += 1
      if separator == 0x0a { return .row(bytes: position, lines: lines + 1) }
    }
  }

  private func count(_ byte: UInt8, in bytes: Slice<UnsafeRawBufferPointer>) -> Int64 {
    var count: Int64 = 0
    for candidate in bytes where candidate == byte { count += 1 }
    return count
  }
}

/// Strings as JSON writes them, byte by byte.
enum JSONString {
  /// Appends `source` in quotes; false if it is not UTF-8.
  static func append(_ source: UnsafeRawBufferPointer, to output: ScratchBytes) -> Bool {
    output.append(UInt8(ascii: "\""))
    var isASCII = true
    var run = 0
    for index in 0..<source.count {
      let byte = source[index]
      if byte >= 0x80 { isASCII = false }
      guard byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") else { continue }
      output.append(UnsafeRawBufferPointer(rebasing: source[run..<index]))
      run = index + 1
      output.append(UInt8(ascii: "\\"))
      switch byte {
      case UInt8(ascii: "\""), UInt8(ascii: "\\"): output.append(byte)
      case 0x0a: output.append(UInt8(ascii: "n"))
      case 0x0d: output.append(UInt8(ascii: "r"))
      case 0x09: output.append(UInt8(ascii: "t"))
      default:
        for digit in [UInt8(ascii: "u"), 0x30, 0x30, hex(byte >> 4), hex(byte & 15)] { output.append(digit) }
      }
    }
    output.append(UnsafeRawBufferPointer(rebasing: source[run...]))
    output.append(UInt8(ascii: "\""))
    return isASCII || String(validating: source, as: UTF8.self) != nil
  }

  private static func hex(_ value: UInt8) -> UInt8 { value < 10 ? 0x30 + value : 0x57 + value }
}
