import GrapeCore
import GrapeWire
import Testing

@testable import GrapeEngine

@Suite("CloudEvents in structured mode") struct CloudEventEnvelopeTests {
  static let least = #""specversion":"1.0","id":"1","source":"/s","type":"t""#

  private func read(_ text: String) throws -> (headers: [String: String], data: String?) {
    let bytes = ByteSlice(text)
    let envelope = try CloudEventEnvelope(bytes.unsafeBytes)
    let data = envelope.data.bytes.map { String(decoding: $0, as: UTF8.self) }
    withExtendedLifetime(bytes) {}
    return (
      Dictionary(envelope.headers.map { ($0.name, String(decoding: $0.value, as: UTF8.self)) }) { $1 }, data
    )
  }

  private func problem(_ text: String) -> String? {
    do {
      _ = try read(text)
      return nil
    } catch let error as UnusableRecord {
      return error.message
    } catch {
      return "another error: \(error)"
    }
  }

  @Test("Attributes become headers: texts, numbers, flags; null is as if it were not there")
  func attributes() throws {
    let (headers, data) = try read(
      #"{ "specversion" : "1.0", "id":"a\u0062c","source":"/s","type":"t","time":"2026-01-01T00:00:00Z","n":-5,"yes":true,"no":null }"#
    )
    #expect(
      headers == [
        "ce_specversion": "1.0", "ce_id": "abc", "ce_source": "/s", "ce_type": "t", "ce_time": "2026-01-01T00:00:00Z",
        "ce_n": "-5", "ce_yes": "true",
      ])
    #expect(data == nil)
  }

  @Test("JSON data reaches the handler as it was written, to the last digit and space")
  func jsonData() throws {
    for data in [
      #"{"a" : 12345678901234567890, "b":1.50 , "c":"}\"]"}"#, "[1, 2,[ ]]", "1.50", "true", #""text""#, "\"\\\\\"",
    ] {
      let plain = try read("{\(Self.least),\"data\":\(data)}")
      #expect(plain.data == data)
      #expect(plain.headers["content-type"] == "application/json")
      let named = try read("{\"data\": \(data) ,\"datacontenttype\":\"application/vnd.x+json; v=1\",\(Self.least)}")
      #expect(named.data == data)
      #expect(named.headers["content-type"] == "application/vnd.x+json; v=1")
    }
  }

  @Test("Data of another type is the text itself; base64 is bytes")
  func otherData() throws {
    let text = try read(#"{\#(Self.least),"datacontenttype":"text/plain","data":"a\nb \u00e4"}"#)
    #expect(text.data == "a\nb ä")
    #expect(text.headers["content-type"] == "text/plain")
    let bytes = try read(#"{\#(Self.least),"data_base64":"aGVsbG8="}"#)
    #expect(bytes.data == "hello")
    #expect(bytes.headers["content-type"] == nil)
    #expect(try read("{\(Self.least),\"data\":null}").data == nil)
  }

  @Test("What is no CloudEvent is named, and never taken for one")
  func problems() {
    let cases: [(String, String)] = [
      ("", "no JSON object"), ("[]", "no JSON object"), ("{}", "lacks specversion, id, source, type"),
      (#"{"specversion":"1.0","id":"","source":"s","type":"t"}"#, "id is empty"),
      (#"{"specversion":"0.3","id":"1","source":"s","type":"t"}"#, "version \"0.3\""),
      ("{\(Self.least)", "comma is missing"), ("{\(Self.least)} x", "something follows"),
      ("{\(Self.least),}", "no name"), ("{\(Self.least),\"data\":}", "no value"),
      ("{\(Self.least),\"data\":[1}", "comma is missing"), ("{\(Self.least),\"data\":\"x}", "does not end"),
      ("{\(Self.least),\"a b\":1}", "no name of an attribute"), ("{\(Self.least),\"x\":{}}", "attribute x"),
      ("{\(Self.least),\"x\":1.5}", "attribute x"), ("{\(Self.least),\"data_base64\":\"a\"}", "not base64"),
      ("{\(Self.least),\"data\":1,\"data_base64\":\"\"}", "data twice"),
      ("{\(Self.least),\"x\":tru}", "a value is expected"),
    ]
    for (text, part) in cases {
      let message = problem(text)
      #expect(message?.contains(part) == true, "\(text): \(message ?? "taken")")
      #expect(message?.hasPrefix("its value is no CloudEvent: ") == true)
    }
  }

  @Test("Whatever the bytes, the reader ends, and reads nothing outside of them")
  func hostileBytes() throws {
    let seed = UInt64.random(in: 0...UInt64.max)
    var random = SeededGenerator(seed: seed)
    let model = Array(
      "{\(Self.least),\"datacontenttype\":\"text/plain\",\"data\":\"a\\\\\\\"b\",\"x\":[{\"y\":\"]\"}]}".utf8)
    for _ in 0..<20_000 {
      var bytes = model
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        let place = Int.random(in: 0..<bytes.count, using: &random)
        switch Int.random(in: 0..<3, using: &random) {
        case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
        case 1: bytes.remove(at: place)
        default: bytes.removeSubrange(place...)
        }
        if bytes.isEmpty { break }
      }
      // Memory of just that size, so that a read beyond it is found by the tools that look for such.
      let slice = ByteSlice(bytes)
      do {
        let envelope = try CloudEventEnvelope(slice.unsafeBytes)
        let names = Set(envelope.headers.map(\.name))
        #expect(names.isSuperset(of: ["ce_specversion", "ce_id", "ce_source", "ce_type"]), "seed \(seed)")
      } catch {
        #expect(error.message.hasPrefix("its value is no CloudEvent"), "seed \(seed)")
      }
      withExtendedLifetime(slice) {}
    }
  }
}
