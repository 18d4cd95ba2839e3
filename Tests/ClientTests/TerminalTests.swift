import GrapeCore
import GrapeWire
import Testing

@testable import GrapeCLI

@Suite struct TerminalTests {
  @Test func `times are written and read back`() throws {
    let seed = UInt64.random(in: 0...UInt64.max)
    var generator = SplitMix(state: seed)
    for _ in 0..<2000 {
      let milliseconds = Int64.random(in: -62_135_596_800_000...253_402_300_799_999, using: &generator)
      let time = CalendarTime(milliseconds: milliseconds)
      #expect(time.milliseconds == milliseconds, "seed \(seed)")
      #expect(CalendarTime(time.text)?.milliseconds == milliseconds, "seed \(seed)")
    }
  }

  @Test(
    arguments: [
      (0, "1970-01-01T00:00:00.000Z"), (-1, "1969-12-31T23:59:59.999Z"), (951_782_400_000, "2000-02-29T00:00:00.000Z"),
      (1_359_633_907_123, "2013-01-31T12:05:07.123Z"), (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
    ] as [(Int64, String)])
  func `times are in UTC`(milliseconds: Int64, text: String) {
    #expect(Format.time(milliseconds) == text)
  }

  @Test(arguments: [
    ("2013-01-31T12:05Z", "2013-01-31T12:05:00.000Z"), ("2013-01-31 12:05:07", "2013-01-31T12:05:07.000Z"),
    ("2013-01-31T12:05:07.5Z", "2013-01-31T12:05:07.500Z"), ("2013-01-31T12:05:07.123456Z", "2013-01-31T12:05:07.123Z"),
    ("2013-01-31T01:05:07+02:00", "2013-01-30T23:05:07.000Z"), ("2013-12-31T23:00:00-0130", "2014-01-01T00:30:00.000Z"),
  ])
  func `times are read with and without parts and zones`(text: String, expected: String) {
    #expect(CalendarTime(text)?.text == expected)
  }

  @Test(arguments: [
    "2013", "2013-1-1", "2013-01-32", "2013-02-29", "2013-01-31T", "2013-01-31T12", "2013-01-31T12:60",
    "2013-01-31T12:05:07.Z",
    "2013-01-31T12:05:07X", "2013-01-31T12:05:07Zz", "2013-01-31T12:05:07+2",
  ])
  func `what is no time is none`(text: String) {
    #expect(CalendarTime(text) == nil)
  }

  @Test func `figures are grouped, rounded and given units`() {
    #expect([0, 999, 1000, 1_234_567].map { Format.count($0) } == ["0", "999", "1,000", "1,234,567"])
    #expect(Format.count(-1234) == "-1,234")
    #expect(
      [0, 1023, 1024, 1536, 10 << 20].map { Format.bytes($0) } == ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "10 MiB"])
    #expect([0.0, 0.05, 9.96, 12.3, 1234.5].map { Format.rate($0) } == ["0.0", "0.1", "10.0", "12", "1,235"])
    #expect(Format.decimal(-0.004, 2) == "0.00")
    #expect(Format.decimal(-1.005, 1) == "-1.0")
    #expect(
      [0.5, 3.25, 250, 15_000, 300_000].map { Format.milliseconds($0) } == [
        "0.50 ms", "3.3 ms", "250 ms", "15 s", "5 min",
      ])
  }

  @Test func `text on a line shows what would break the line`() {
    let shown = { (bytes: [UInt8]) in bytes.withUnsafeBytes { Format.inline($0) } }
    #expect(shown(Array("grüße\n\t\\\u{1b}[31m".utf8)) == #"grüße\n\t\\\u{1b}[31m"#)
    #expect(shown([0xff, 0x00, 0x1a]) == "0xff001a")
    #expect(shown([]) == "")
  }

  @Test(arguments: [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")])
  func `base64 is that of RFC 4648`(text: String, expected: String) {
    #expect(Array(text.utf8).withUnsafeBytes { Payload.base64($0) } == expected)
  }

  @Test func `bytes in JSON are text if they can be`() {
    let member = { (bytes: [UInt8]) in bytes.withUnsafeBytes { Payload.member("value", $0) } }
    #expect(member(Array("x".utf8)) == .init("value", "x"))
    #expect(member([0xff, 0xfe]) == .init("valueBase64", "//4="))
    #expect(Payload.member("key", nil) == .init("key", .null))
  }

  @Test func `a table's columns are aligned`() {
    var table = Table([("NAME", .left), ("N", .right)])
    table.add(["long name", "1"])
    table.add(["x", "1,000"])
    #expect(table.lines == ["NAME           N", "long name      1", "x          1,000"])
  }
}
