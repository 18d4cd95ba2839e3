import GrapeCore
import Testing

@testable import GrapeCLI

/// A row as tests compare it.
private struct Row: Equatable, CustomStringConvertible {
  var value: String
  var key: String?
  var event: String?
  var line: Int64 = 0

  var description: String { "line \(line): \(value), key \(key ?? "none"), event \(event ?? "none")" }
}

private func reader(
  _ format: InputFormat, _ file: TemporaryFile, key: String? = nil, event: String? = nil,
  from start: InputPosition? = nil
) throws -> any RowReader {
  let text = try InputText(path: file.path, rowLimit: 1 << 24) { _ in }
  switch format {
  case .csv: return try CSVReader(text, keyField: key, eventField: event, start: start)
  case .lines:
    if let start { try #require(try text.seek(to: start)) }
    return LineReader(text)
  case .ndjson:
    if let start { try #require(try text.seek(to: start)) }
    return NDJSONReader(text, keyField: key, eventField: event)
  }
}

private func row(_ row: InputRow) -> Row {
  func text(_ bytes: UnsafeRawBufferPointer?) -> String? { bytes.map { String(decoding: $0, as: UTF8.self) } }
  return Row(value: text(row.value)!, key: text(row.key), event: text(row.event), line: row.line)
}

private func rows(_ format: InputFormat, _ content: String, key: String? = nil, event: String? = nil) throws -> [Row] {
  let file = try TemporaryFile(content)
  let reader = try reader(format, file, key: key, event: event)
  var rows: [Row] = []
  while let next = try reader.next() { rows.append(row(next)) }
  return rows
}

@Suite struct RowReaderTests {
  @Test(arguments: [
    ("", []),
    ("\n\n\r\n", []),
    ("one", ["one"]),
    ("one\ntwo\r\n\nthree\r", ["one", "two", "three"]),
    (" spaced \n\"quoted\"\n", [" spaced ", "\"quoted\""]),
  ])
  func `lines lose their end, and empty ones are no rows`(content: String, expected: [String]) throws {
    #expect(try rows(.lines, content).map { $0.value } == expected)
  }

  @Test func `lines are counted with the empty ones`() throws {
    #expect(try rows(.lines, "a\n\n\nb\nc").map { $0.line } == [1, 4, 5])
  }

  @Test(arguments: [
    ("", []),
    ("a,b\n", []),
    ("a,b\n1,2\n", [#"{"a":"1","b":"2"}"#]),
    ("a,b\r\n1,2\r\n3,4", [#"{"a":"1","b":"2"}"#, #"{"a":"3","b":"4"}"#]),
    ("a,b\n,\n", [#"{"a":"","b":""}"#]),
    ("a\n1\n\n\n2\n", [#"{"a":"1"}"#, #"{"a":"2"}"#]),
    ("a\n\"\"\n", [#"{"a":""}"#]),
    ("a,b\n\"1,\"\"x\"\"\",\"two\nlines\"\n", [#"{"a":"1,\"x\"","b":"two\nlines"}"#]),
    ("a,b\n\"1\r\n2\",3\r\n", [#"{"a":"1\r\n2","b":"3"}"#]),
    ("a,b\nx\"y,z\"\n", [#"{"a":"x\"y","b":"z\""}"#]),
    ("\u{feff}a\n1\n", [#"{"a":"1"}"#]),
    ("\"na\"\"me\",b\n1,2\n", [#"{"na\"me":"1","b":"2"}"#]),
    ("a\n\\\t\u{1}ü🍇\n", [#"{"a":"\\\t\u0001ü🍇"}"#]),
    ("a,b\n1,\"2\"", [#"{"a":"1","b":"2"}"#]),
  ])
  func `CSV rows are JSON objects of strings`(content: String, expected: [String]) throws {
    let found = try rows(.csv, content).map { $0.value }
    #expect(found == expected)
    for value in found { _ = try JSONValue(parsing: value) }
  }

  @Test(arguments: [
    ("a,b\n1,2\n3\n", 3, "1 fields where the header has 2 columns"),
    ("a,b\n1,2,3\n", 2, "3 fields"),
    ("a,b\n1,\"2\n", 2, "does not end"),
    ("a,b\n\"1\"x,2\n", 2, "must follow the closing quote"),
    ("a,b\n\"one\ntwo\n\",2\n1\n", 5, "1 fields"),
  ])
  func `a bad CSV row is named by its line`(content: String, line: Int, what: String) throws {
    let error = #expect(throws: BadRow.self) { try rows(.csv, content) }
    #expect(error?.message.contains(":\(line): ") == true, "\(error?.message ?? "")")
    #expect(error?.message.contains(what) == true, "\(error?.message ?? "")")
  }

  @Test func `reading goes on behind a bad row`() throws {
    let file = try TemporaryFile("a,b\n1\n\"x\"y,2\n3,4\n")
    let reader = try reader(.csv, file)
    #expect(throws: BadRow.self) { try reader.next() }
    #expect(throws: BadRow.self) { try reader.next() }
    let last = try reader.next().map { row($0) }
    #expect(last == Row(value: #"{"a":"3","b":"4"}"#, line: 4))
    #expect(try reader.next() == nil)
  }

  @Test func `fields that are not UTF-8 are bad rows`() throws {
    let file = try TemporaryFile(Array("a\n".utf8) + [0xff, 0x0a])
    let reader = try reader(.csv, file)
    let error = #expect(throws: BadRow.self) { try reader.next() }
    #expect(error?.message.contains("field 1 is not UTF-8") == true)
  }

  @Test func `key and event come from their columns`() throws {
    let found = try rows(.csv, "n,kind,id\n1,order,\"a,b\"\n2,refund,\n", key: "id", event: "kind")
    #expect(found.map { $0.key } == ["a,b", ""])
    #expect(found.map { $0.event } == ["order", "refund"])
  }

  @Test func `a column that is missing or there twice is told with the columns there are`() throws {
    let missing = #expect(throws: CommandFailure.self) { try rows(.csv, "a,b\n1,2\n", key: "carrier") }
    #expect(missing?.exit == .badInput)
    #expect(missing?.message.contains("`carrier`") == true)
    #expect(missing?.message.contains("a, b") == true)
    let twice = #expect(throws: CommandFailure.self) { try rows(.csv, "a,a\n1,2\n") }
    #expect(twice?.message.contains("two columns are named `a`") == true)
  }

  @Test func `NDJSON stays as it is, and fields give key and event`() throws {
    let lines = [#"{"id": 7, "kind":"x",  "y": [1, 2]}"#, #"{"id":"seven","kind":"z"}"#, #"{"id":true,"kind":"z"}"#]
    let found = try rows(.ndjson, lines.joined(separator: "\r\n") + "\n", key: "id", event: "kind")
    #expect(found.map { $0.value } == lines)
    #expect(found.map { $0.key } == ["7", "seven", "true"])
    #expect(found.map { $0.event } == ["x", "z", "z"])
    #expect(try rows(.ndjson, #"{"id": null}"#, key: "id").map { $0.key } == [nil])
    #expect(try rows(.ndjson, "1\n\"x\"\n").map { $0.value } == ["1", "\"x\""])
  }

  @Test func `the quick look at JSON never says what the parser does not`() throws {
    let seed = UInt64.random(in: 0...UInt64.max)
    var generator = SplitMix(state: seed)
    let documents = [
      #"{"k":"v","e":12,"x":[1,-2.5,true,false,null,{"k":"inner"}]}"#, #" { "e" : "name" , "k" : 0 } "#,
      #"{"k":"a\"b","e":"x"}"#, #"{"k":"grüße","e":"🍇"}"#, #"{"\u006b":"v","k":"w","e":"x"}"#, #"{"k":1.50,"e":"x"}"#,
      #"{"k":-0,"e":1e5}"#, #"{"k":"1","k":"2","e":"3"}"#, #"[{"k":"v","e":"w"}]"#, #"{"k":01,"e":"x"}"#,
    ]
    let noise = Array("{}[]\":,\\0123456789.-+eEtruefalsn kxu\u{1}ü".utf8)
    var known = 0
    for round in 0..<20_000 {
      var bytes = Array(documents[round % documents.count].utf8)
      if round >= documents.count {
        for _ in 0..<Int.random(in: 1...3, using: &generator) {
          let index = Int.random(in: 0..<bytes.count, using: &generator)
          switch Int.random(in: 0..<3, using: &generator) {
          case 0: bytes[index] = noise.randomElement(using: &generator)!
          case 1: bytes.insert(noise.randomElement(using: &generator)!, at: index)
          default: if bytes.count > 1 { bytes.remove(at: index) }
          }
        }
      }
      let names = (Array("k".utf8), Array("e".utf8))
      let quick = bytes.withUnsafeBytes { text in
        names.0.withUnsafeBytes { key in
          names.1.withUnsafeBytes { event in
            JSONScanner.scan(text, key: key, event: event).map { fields in
              (
                fields.key.map { String(decoding: $0, as: UTF8.self) },
                fields.event.map { String(decoding: $0, as: UTF8.self) }
              )
            }
          }
        }
      }
      guard let quick else { continue }
      known += 1
      let text = String(decoding: bytes, as: UTF8.self)
      let full = try? bytes.withUnsafeBytes { try JSONValue(parsing: $0) }
      func member(_ name: String) -> String? {
        switch full?[name] {
        case .string(let text): text
        case .int(let number): String(number)
        default: nil
        }
      }
      #expect(full != nil, "\(text) seed \(seed)")
      #expect(quick.0 == member("k") && quick.1 == member("e"), "\(text) seed \(seed)")
    }
    // It would be of no use if it knew nothing.
    #expect(known > 300)
  }

  @Test(arguments: [
    ("{\"a\": 1}\n{\"a\": \n", 2, "not JSON"),
    ("{\"a\": 1}\n\n\n{\"b\": 1}\n", 4, "no field `a`"),
    ("[1]\n", 1, "a JSON object is expected"),
    ("{\"a\": {}}\n", 1, "no text or number"),
  ])
  func `a bad NDJSON line is named`(content: String, line: Int, what: String) throws {
    let error = #expect(throws: BadRow.self) { try rows(.ndjson, content, key: "a") }
    #expect(error?.message.contains(":\(line): ") == true, "\(error?.message ?? "")")
    #expect(error?.message.contains(what) == true, "\(error?.message ?? "")")
  }

  @Test(arguments: [
    (InputFormat.lines, "one\n\ntwo\r\nthree\nfour"),
    (.ndjson, "{\"a\":1}\n\n{\"a\":2}\n{\"a\":3}"),
    (.csv, "a,b\n1,2\n\n\"3\nx\",4\r\n5,6\n7,\"8\""),
  ])
  func `reading can go on behind any row`(format: InputFormat, content: String) throws {
    let all = try rows(format, content)
    let file = try TemporaryFile(content)
    for count in 0...all.count {
      let first = try reader(format, file)
      for _ in 0..<count { _ = try first.next() }
      let second = try reader(format, file, from: first.position)
      var rest: [Row] = []
      while let next = try second.next() { rest.append(row(next)) }
      #expect(rest == Array(all[count...]))
    }
  }

  @Test func `any beginning of a CSV row is either incomplete or the row`() {
    let texts = [
      "a,b\n", "a,b\r\n", "\"a\"\"\n\",\"\"\r\nrest", ",\n", "\"x\",y\nz", "a\"b\n", "\"a\"b,c\nd\n", "\r\n", "\n",
    ]
    for text in texts {
      let bytes = Array(text.utf8)
      let whole = parse(bytes[...], isEnd: false)
      #expect(whole != .incomplete)
      for count in 0..<bytes.count {
        let part = parse(bytes[..<count], isEnd: false)
        #expect(part == .incomplete || part == whole, "\(count) bytes of \(text.debugDescription)")
      }
    }
  }

  private func parse(_ bytes: ArraySlice<UInt8>, isEnd: Bool) -> CSVRowParser.Outcome {
    var parser = CSVRowParser()
    var fields: [(begin: Int, end: Int)] = []
    return Array(bytes).withUnsafeBytes { parser.parse($0, &fields, ScratchBytes(), isEnd: isEnd) }
  }

  @Test func `random tables survive being written and read`() throws {
    let seed = UInt64.random(in: 0...UInt64.max)
    var generator = SplitMix(state: seed)
    let alphabet = Array("ab,\"\n\r ü🍇\\{}")
    for _ in 0..<200 {
      let columns = Int.random(in: 1...5, using: &generator)
      let table = (0..<Int.random(in: 0...20, using: &generator)).map { _ in
        (0..<columns).map { _ in
          String((0..<Int.random(in: 0...6, using: &generator)).map { _ in alphabet.randomElement(using: &generator)! })
        }
      }
      let end = Bool.random(using: &generator) ? "\n" : "\r\n"
      var text = (0..<columns).map { "c\($0)" }.joined(separator: ",") + end
      for row in table {
        // A single empty field would be an empty line, which is no row.
        text +=
          row.map { "\"\($0.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\""))\"" }
          .joined(separator: ",") + end
      }
      let found = try rows(.csv, text).map { row in
        try JSONValue(parsing: row.value).object!.map { $0.value.string! }
      }
      #expect(found == table, "seed \(seed)")
    }
  }

  @Test func `a row larger than allowed is named`() throws {
    let file = try TemporaryFile("short\n" + String(repeating: "x", count: 3_000_000) + "\n")
    let text = try InputText(path: file.path, rowLimit: 2_000_000) { _ in }
    let reader = LineReader(text)
    _ = try reader.next()
    let error = #expect(throws: CommandFailure.self) { try reader.next() }
    #expect(error?.exit == .tooLarge)
    #expect(error?.message.contains(":2:") == true)
  }
}

/// A small generator whose sequence its seed gives.
struct SplitMix: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
    return mixed ^ (mixed >> 31)
  }
}
