import GrapeCore
import GrapeWire
import Testing

@Suite struct PartitionerTests {
  /// Values of Kafka's own default partitioner for these keys.
  @Test(arguments: [
    ("21", -973_932_308), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536),
    ("a-little-bit-longer-string", -1_486_304_829), ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
    ("abc", 479_470_107),
  ]) func hashesAsKafkaDoes(key: String, hash: Int32) {
    let key = ByteSlice(key)
    #expect(Int32(bitPattern: Partitioner.murmur2(key.unsafeBytes)) == hash)
    withExtendedLifetime(key) {}
  }

  @Test func everyKeyHasOnePartitionWithinBounds() {
    for number in 0..<1000 {
      let key = ByteSlice("key-\(number)")
      let partition = Partitioner.partition(forKey: key.unsafeBytes, of: 7)
      #expect((0..<7).contains(partition))
      withExtendedLifetime(key) {}
    }
  }
}

@Suite struct JSONTests {
  @Test(arguments: [
    "null", "true", "[]", "{}", "[1,-2,3.5]", #"{"a":{"b":["c"]},"d":null}"#, #""é\n\"\\""#, "9223372036854775807",
    "[1e+100]",
  ]) func whatIsWrittenIsRead(text: String) throws {
    let value = try JSONValue(parsing: text)
    #expect(try JSONValue(parsing: value.text) == value)
    #expect(try JSONValue(parsing: value.prettyText) == value)
  }

  @Test func escapesAreUnderstood() throws {
    #expect(try JSONValue(parsing: #""\ud83c\udf47\u0041\/""#) == "🍇A/")
  }

  @Test(arguments: [
    "", "nul", "[1,]", "{\"a\"}", "{a:1}", "01", "1.", "\"\u{1}\"", #""\x""#, #""\ud800""#, "[1] 2", "\"open", "-",
    "1e999", String(repeating: "[", count: 1000),
  ]) func whatIsNoJSONIsRefused(text: String) {
    #expect(throws: JSONError.self) { try JSONValue(parsing: text) }
  }

  @Test func bytesThatAreNotUTF8AreRefused() {
    let slice = ByteSlice([0x22, 0xff, 0x22])
    #expect(throws: JSONError.self) { try JSONValue(parsing: slice.unsafeBytes) }
  }

  @Test func randomBytesNeverTrap() {
    let alphabet = Array("{}[]\",:\\u0123eE+-. truefalsn\u{7f}".utf8)
    for seed in 1...5000 {
      var state = UInt64(seed) &* 0x9e37_79b9_7f4a_7c15
      let bytes = (0..<seed % 60).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1
        return alphabet[Int(state >> 33) % alphabet.count]
      }
      _ = bytes.withUnsafeBytes { try? JSONValue(parsing: $0) }
    }
  }
}

@Suite struct EventHeaderTests {
  @Test func addressesAndStatusesComeBack() throws {
    let address = ReplyAddress(correlation: CorrelationID(high: 7, low: .max), partition: 3, topic: "_grape.replies.n1")
    #expect(try address.encoded.withUnsafeBytes { try ReplyAddress($0) } == address)
    let status = ReplyStatus(.handlerError, ran: .unknown, isFinal: false, code: -5, message: "böse")
    #expect(try status.encoded.withUnsafeBytes { try ReplyStatus($0) } == status)
    #expect(throws: WireError.self) { try [UInt8](repeating: 0, count: 19).withUnsafeBytes { try ReplyAddress($0) } }
  }
}
