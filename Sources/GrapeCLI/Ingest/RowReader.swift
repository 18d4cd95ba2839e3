/// A row of an input, in place: valid until the reader's next call.
struct InputRow {
  /// The event's data.
  var value: UnsafeRawBufferPointer
  /// Content of the key field; nil without one.
  var key: UnsafeRawBufferPointer?
  /// Content of the event field; nil without one.
  var event: UnsafeRawBufferPointer?
  /// Line on which the row begins, from 1.
  var line: Int64
}

/// How an input's text becomes rows.
enum InputFormat: String, CaseIterable {
  case lines, ndjson, csv

  /// By the name's ending; lines if it tells nothing.
  static func of(path: String) -> InputFormat {
    let name = path.lowercased()
    if name.hasSuffix(".csv") { return .csv }
    return name.hasSuffix(".ndjson") || name.hasSuffix(".jsonl") || name.hasSuffix(".json") ? .ndjson : .lines
  }
}

/// A row that is not what the format says, and where. Reading can go on behind it.
struct BadRow: Error {
  /// `file:line: what is wrong`
  var message: String
}

/// Reads the rows of one input in order.
protocol RowReader: AnyObject {
  /// The next row; nil at the end. Throws `BadRow` for one that is wrong: it is behind the reader then.
  func next() throws -> InputRow?
  /// Where the next row begins.
  var position: InputPosition { get }
}

/// Plain lines, with or without `\r`. Empty lines are no events.
final class LineReader: RowReader {
  private let text: InputText
  private var pending = 0

  init(_ text: InputText) { self.text = text }

  var position: InputPosition {
    settle()
    return text.position
  }

  private func settle() {
    if pending > 0 { text.take(pending, lines: 1) }
    pending = 0
  }

  func next() throws -> InputRow? {
    while let line = try nextLine() {
      if !line.isEmpty { return InputRow(value: line, key: nil, event: nil, line: text.position.line) }
    }
    return nil
  }

  /// The next line without its end, empty ones too.
  func nextLine() throws -> UnsafeRawBufferPointer? {
    settle()
    var searched = 0
    while true {
      let window = text.window
      if let end = ByteSearch.first(0x0a, in: window, from: searched) {
        pending = end + 1
        return Self.trimmed(window, end)
      }
      searched = window.count
      guard try text.readMore() else {
        let rest = text.window
        guard !rest.isEmpty else { return nil }
        pending = rest.count
        return Self.trimmed(rest, rest.count)
      }
    }
  }

  private static func trimmed(_ window: UnsafeRawBufferPointer, _ end: Int) -> UnsafeRawBufferPointer {
    let count = end > 0 && window[end - 1] == 0x0d ? end - 1 : end
    return UnsafeRawBufferPointer(rebasing: window[0..<count])
  }

  /// Line of the row that `next` gave last.
  var line: Int64 { text.position.line }
}
