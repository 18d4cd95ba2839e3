import Grape
import GrapeCore
import GrapeWire
import Testing

@testable import Grape

private struct Everything: Codable, Equatable {
  enum Shape: Codable, Equatable {
    case point
    case circle(radius: Double)
    case named(String, sides: [Int])
  }
  enum Colour: String, Codable { case red, green }
  class Base: Codable { var base = 1 }
  struct Inner: Codable, Equatable {
    var name: String
    var next: [Inner]?
  }

  var flag = true
  var text = "quote \" back \\ line \n tab \t null \0 é 🍇"
  var small: Int8 = -128
  var large: Int64 = .min
  var positive: UInt64 = UInt64(Int64.max)
  var real = 0.1
  var whole = 5.0
  var single: Float = 0.1
  var missing: Int?
  var present: Int? = 3
  var list: [Int?] = [1, nil, 3]
  var nested: [[String: [Bool]]] = [["a": [true, false]], [:]]
  var numbered: [Int: String] = [7: "seven", -1: "minus"]
  var shapes: [Shape] = [.point, .circle(radius: 1.5), .named("n", sides: [3, 4])]
  var colour = Colour.green
  var inner = Inner(name: "a", next: [Inner(name: "b", next: []), Inner(name: "c", next: nil)])
  var pair: [String: Inner] = ["z": Inner(name: "z"), "a": Inner(name: "a")]
}

private final class Derived: Everything.Base {
  var own = "x"
  private enum Keys: CodingKey { case own }

  override init() { super.init() }
  required init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: Keys.self)
    own = try container.decode(String.self, forKey: .own)
    try super.init(from: container.superDecoder())
  }
  override func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: Keys.self)
    try container.encode(own, forKey: .own)
    try super.encode(to: container.superEncoder())
  }
}

private struct Handmade: Codable, Equatable {
  var numbers: [Int]
  var word: String
  private enum Keys: CodingKey { case all, word, deep }

  init(numbers: [Int], word: String) {
    self.numbers = numbers
    self.word = word
  }

  init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: Keys.self)
    var list = try container.nestedUnkeyedContainer(forKey: .all)
    numbers = []
    while !list.isAtEnd { numbers.append(try list.decodeNil() ? -1 : list.decode(Int.self)) }
    word = try container.nestedContainer(keyedBy: Keys.self, forKey: .deep).decode(String.self, forKey: .word)
  }

  func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: Keys.self)
    var list = container.nestedUnkeyedContainer(forKey: .all)
    for number in numbers { if number < 0 { try list.encodeNil() } else { try list.encode(number) } }
    var deep = container.nestedContainer(keyedBy: Keys.self, forKey: .deep)
    try deep.encode(word, forKey: .word)
  }
}

@Suite struct JSONCodingTests {
  private func roundTrip<Value: Codable>(_ value: Value) throws -> Value {
    try JSONValue(parsing: JSONValue(encoding: value).text).decoded(as: Value.self)
  }

  @Test func `what is encoded is decoded`() throws {
    #expect(try roundTrip(Everything()) == Everything())
    #expect(try roundTrip(Handmade(numbers: [1, -1, 3], word: "w")) == Handmade(numbers: [1, -1, 3], word: "w"))
    let derived = Derived()
    (derived.own, derived.base) = ("own", 9)
    let back = try roundTrip(derived)
    #expect(back.own == "own" && back.base == 9)
    #expect(try roundTrip([Int]()) == [] && roundTrip(Int?.none) == nil && roundTrip("") == "")
  }

  @Test func `the text is plain JSON, and equal values are equal text`() throws {
    struct Point: Codable {
      var y = 1
      var x = 2.5
      var none: Int?
    }
    #expect(try JSONValue(encoding: Point()).text == #"{"y":1,"x":2.5}"#)
    #expect(try JSONValue(encoding: 5).text == "5" && JSONValue(encoding: "a\"").text == #""a\"""#)
    #expect(try JSONValue(encoding: Everything.Shape.circle(radius: 2)).text == #"{"circle":{"radius":2.0}}"#)
    #expect(try JSONValue(encoding: Float(0.1)).text == "0.1")
    var dictionary: [String: Int] = [:]
    for number in 0..<50 { dictionary["k\(number)"] = number }
    var reversed: [String: Int] = [:]
    for number in (0..<50).reversed() { reversed["k\(number)"] = number }
    #expect(try JSONValue(encoding: dictionary).text == JSONValue(encoding: reversed).text)
  }

  private func refusal<Value: Decodable>(_ text: String, _ type: Value.Type) -> String? {
    let error = #expect(throws: JSONCodingFailure.self) { _ = try JSONValue(parsing: text).decoded(as: type) }
    return error?.text
  }

  @Test func `what does not fit is refused, with its place`() throws {
    #expect(refusal("[1,true]", [Int].self)?.hasPrefix("1: true or false where a whole number") == true)
    #expect(refusal("300", Int8.self)?.contains("-128 to 127") == true)
    #expect(refusal("-1", UInt.self) != nil)
    #expect(refusal("1.5", Int.self) != nil)
    #expect(try JSONValue(parsing: "5.0").decoded(as: Int.self) == 5)
    #expect(refusal(#"{"name":5}"#, Everything.Inner.self)?.hasPrefix("name: ") == true)
    #expect(refusal("{}", Everything.Inner.self)?.contains("\"name\"") == true)
    #expect(refusal(#""blue""#, Everything.Colour.self) != nil)
    #expect(refusal("[]", [String: Int].self) != nil)
    #expect(refusal("null", Int.self) != nil)
    #expect(throws: JSONCodingFailure.self) { try JSONValue(encoding: Double.nan) }
    #expect(throws: JSONCodingFailure.self) { try JSONValue(encoding: [UInt64.max]) }
    struct Chain: Encodable {
      var depth: Int
      func encode(to encoder: any Encoder) throws {
        var list = encoder.unkeyedContainer()
        if depth > 0 { try list.encode(Chain(depth: depth - 1)) }
      }
    }
    #expect(throws: JSONCodingFailure.self) { try JSONValue(encoding: Chain(depth: 500)) }
    let deepest = try JSONValue(encoding: Chain(depth: 126))
    #expect(try JSONValue(parsing: deepest.text) == deepest)
  }

  @Test func `whole numbers take the short way, with the same outcome`() throws {
    var random = SystemRandomNumberGenerator()
    var numbers: [Int64] = [0, 1, -1, 9, 10, -10, .max, .min, .max - 1, .min + 1, 999_999_999_999_999_999]
    for _ in 0..<1000 { numbers.append(Int64.random(in: .min ... .max, using: &random) >> Int64.random(in: 0..<63)) }
    for number in numbers {
      JSONInteger.withDigits(of: number) { #expect(String(decoding: $0, as: UTF8.self) == String(number)) }
      #expect(ByteSlice(String(number)).withUnsafeBytes { JSONInteger.parse($0) } == number)
    }
    for text in ["", "-", "01", "-01", "1a", " 1", "1 ", "+1", "1.0", "9223372036854775808", "99999999999999999999"] {
      #expect(ByteSlice(text).withUnsafeBytes { JSONInteger.parse($0) } == nil, "\(text)")
    }
  }
}
