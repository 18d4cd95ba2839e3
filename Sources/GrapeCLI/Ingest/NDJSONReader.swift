import GrapeCore
import GrapeWire

/// JSON values, one a line. Each line is checked; it becomes the event's data as it stands.
final class NDJSONReader: RowReader {
  private let lines: LineReader
  private let name: String
  private let keyField: String?
  private let eventField: String?
  private let keyName: ByteSlice?
  private let eventName: ByteSlice?
  // Kept so that the pointers handed out stay valid until the next row.
  private var key: ByteSlice?
  private var event: ByteSlice?

  init(_ text: InputText, keyField: String?, eventField: String?) {
    lines = LineReader(text)
    name = text.name
    self.keyField = keyField
    self.eventField = eventField
    keyName = keyField.map { ByteSlice($0) }
    eventName = eventField.map { ByteSlice($0) }
  }

  var position: InputPosition { lines.position }

  func next() throws -> InputRow? {
    guard var row = try lines.next() else { return nil }
    if let fields = JSONScanner.scan(row.value, key: keyName?.unsafeBytes, event: eventName?.unsafeBytes) {
      row.key = fields.key
      row.event = fields.event
      return row
    }
    return try parse(row)
  }

  /// What the quick look does not know: all that is rare, and all that is wrong.
  private func parse(_ row: InputRow) throws -> InputRow {
    let value: JSONValue
    do throws(JSONError) {
      value = try JSONValue(parsing: row.value)
    } catch {
      throw BadRow(message: "\(name):\(row.line): not JSON, byte \(error.offset + 1): \(error.message)")
    }
    key = try keyField.flatMap { try field($0, of: value, line: row.line, required: false) }
    event = try eventField.flatMap { try field($0, of: value, line: row.line, required: true) }
    return InputRow(value: row.value, key: key?.unsafeBytes, event: event?.unsafeBytes, line: row.line)
  }

  /// A string's text, or a number or boolean as JSON writes it; nil for a key that is null.
  private func field(_ field: String, of value: JSONValue, line: Int64, required: Bool) throws -> ByteSlice? {
    guard case .object = value else {
      throw BadRow(message: "\(name):\(line): a JSON object is expected, to take the field `\(field)` from")
    }
    switch value[field] {
    case .string(let text): return ByteSlice(text)
    case .int, .double, .bool: return ByteSlice(value[field]?.text ?? "")
    case .null where !required: return nil
    case nil: throw BadRow(message: "\(name):\(line): the object has no field `\(field)`")
    default: throw BadRow(message: "\(name):\(line): the field `\(field)` is no text or number")
    }
  }
}
