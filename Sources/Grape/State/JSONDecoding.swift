internal import GrapeCore

extension JSONValue {
  /// What the document describes.
  func decoded<Value: Decodable>(as type: Value.Type) throws(JSONCodingFailure) -> Value {
    do {
      return try JSONDecoding(value: self, codingPath: []).read(type)
    } catch let failure as JSONCodingFailure {
      throw failure
    } catch let error as DecodingError {
      switch error {
      case .typeMismatch(_, let context), .valueNotFound(_, let context), .dataCorrupted(let context):
        throw JSONCodingFailure(path: context.codingPath, message: context.debugDescription)
      case .keyNotFound(let key, let context):
        throw JSONCodingFailure(path: context.codingPath, message: "there is no member \"\(key.stringValue)\"")
      @unknown default: throw JSONCodingFailure(path: [], message: "\(error)")
      }
    } catch {
      throw JSONCodingFailure(path: [], message: "\(error)")
    }
  }

  /// What it is, for messages.
  fileprivate var kind: String {
    switch self {
    case .null: "null"
    case .bool: "true or false"
    case .int, .double: "the number \(text)"
    case .string: "a string"
    case .array: "an array"
    case .object: "an object"
    }
  }
}

private struct JSONDecoding: Decoder {
  let value: JSONValue
  let codingPath: [any CodingKey]
  var userInfo: [CodingUserInfoKey: Any] { [:] }

  func read<Value: Decodable>(_ type: Value.Type) throws -> Value {
    // Looked for one by one: a dictionary of types would have to be consulted by hashing.
    if type == String.self { return try simple(value.string, "a string") }
    if type == Bool.self { return try simple(value.bool, "true or false") }
    if type == Double.self { return try simple(value.double, "a number") }
    if type == Float.self { return try simple(value.double.map { Float($0) }, "a number") }
    if let whole = type as? any FixedWidthInteger.Type { return try number(whole) as! Value }
    return try type.init(from: self)
  }

  private func simple<Value>(_ found: (some Any)?, _ wanted: String) throws -> Value {
    guard let found = found as? Value else { throw mismatch(wanted) }
    return found
  }

  private func number<Whole: FixedWidthInteger>(_ type: Whole.Type) throws -> any FixedWidthInteger {
    guard let found = value.int else { throw mismatch("a whole number") }
    guard let exact = Whole(exactly: found) else { throw mismatch("a number from \(Whole.min) to \(Whole.max)") }
    return exact
  }

  func mismatch(_ wanted: String) -> JSONCodingFailure {
    JSONCodingFailure(path: codingPath, message: "\(value.kind) where \(wanted) is expected")
  }

  func container<Key: CodingKey>(keyedBy type: Key.Type) throws -> KeyedDecodingContainer<Key> {
    guard let members = value.object else { throw mismatch("an object") }
    return KeyedDecodingContainer(JSONMembers<Key>(members, codingPath: codingPath))
  }

  func unkeyedContainer() throws -> any UnkeyedDecodingContainer {
    guard let elements = value.array else { throw mismatch("an array") }
    return JSONItems(elements: elements, codingPath: codingPath)
  }

  func singleValueContainer() -> any SingleValueDecodingContainer { JSONSingle(decoding: self) }
}

private struct JSONSingle: SingleValueDecodingContainer {
  let decoding: JSONDecoding
  var codingPath: [any CodingKey] { decoding.codingPath }

  func decodeNil() -> Bool { decoding.value.isNull }
  func decode<Value: Decodable>(_ type: Value.Type) throws -> Value { try decoding.read(type) }
}

private struct JSONMembers<Key: CodingKey>: KeyedDecodingContainerProtocol {
  private let members: [String: JSONValue]
  private let names: [String]
  let codingPath: [any CodingKey]

  init(_ members: [JSONValue.Member], codingPath: [any CodingKey]) {
    // Of several members of one name the last counts.
    self.members = Dictionary(members.map { ($0.name, $0.value) }, uniquingKeysWith: { _, last in last })
    names = members.map(\.name)
    self.codingPath = codingPath
  }

  var allKeys: [Key] { names.compactMap { Key(stringValue: $0) } }
  func contains(_ key: Key) -> Bool { members[key.stringValue] != nil }

  private func decoding(_ key: any CodingKey) throws -> JSONDecoding {
    guard let value = members[key.stringValue] else {
      throw JSONCodingFailure(path: codingPath, message: "there is no member \"\(key.stringValue)\"")
    }
    return JSONDecoding(value: value, codingPath: codingPath + [key])
  }

  func decodeNil(forKey key: Key) throws -> Bool { try decoding(key).value.isNull }
  func decode<Value: Decodable>(_ type: Value.Type, forKey key: Key) throws -> Value { try decoding(key).read(type) }

  func nestedContainer<Nested: CodingKey>(
    keyedBy type: Nested.Type, forKey key: Key
  ) throws -> KeyedDecodingContainer<Nested> { try decoding(key).container(keyedBy: type) }

  func nestedUnkeyedContainer(forKey key: Key) throws -> any UnkeyedDecodingContainer {
    try decoding(key).unkeyedContainer()
  }

  func superDecoder() throws -> any Decoder { try decoding(NamedKey("super")) }
  func superDecoder(forKey key: Key) throws -> any Decoder { try decoding(key) }
}

private struct JSONItems: UnkeyedDecodingContainer {
  private let elements: [JSONValue]
  let codingPath: [any CodingKey]
  private(set) var currentIndex = 0

  init(elements: [JSONValue], codingPath: [any CodingKey]) {
    self.elements = elements
    self.codingPath = codingPath
  }

  var count: Int? { elements.count }
  var isAtEnd: Bool { currentIndex == elements.count }

  private func current() throws -> JSONDecoding {
    guard !isAtEnd else {
      throw JSONCodingFailure(path: codingPath, message: "the array has \(elements.count) elements, more are expected")
    }
    return JSONDecoding(value: elements[currentIndex], codingPath: codingPath + [NamedKey(String(currentIndex))])
  }

  mutating func decodeNil() throws -> Bool {
    guard try current().value.isNull else { return false }
    currentIndex += 1
    return true
  }

  mutating func decode<Value: Decodable>(_ type: Value.Type) throws -> Value {
    let value = try current().read(type)
    currentIndex += 1
    return value
  }

  mutating func nestedContainer<Nested: CodingKey>(
    keyedBy type: Nested.Type
  ) throws -> KeyedDecodingContainer<Nested> {
    let container = try current().container(keyedBy: type)
    currentIndex += 1
    return container
  }

  mutating func nestedUnkeyedContainer() throws -> any UnkeyedDecodingContainer {
    let container = try current().unkeyedContainer()
    currentIndex += 1
    return container
  }

  mutating func superDecoder() throws -> any Decoder {
    let decoder = try current()
    currentIndex += 1
    return decoder
  }
}
