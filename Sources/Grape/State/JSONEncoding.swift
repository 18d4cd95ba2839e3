internal import GrapeCore

/// A document being put together by an `Encodable` value.
private final class JSONNode {
  enum Content {
    case none
    case value(JSONValue)
    case array([JSONNode])
    case object([(name: String, node: JSONNode)])
  }

  var content = Content.none
  /// Places in the object.
  private var places: [String: Int] = [:]
  /// The members' order means nothing.
  var isDictionary = false

  func member(_ name: String) -> JSONNode {
    var members: [(name: String, node: JSONNode)] = []
    if case .object(let known) = content { members = known }
    if let place = places[name] { return members[place].node }
    content = .none  // Leaves `members` alone to be changed.
    let node = JSONNode()
    places[name] = members.count
    members.append((name, node))
    content = .object(members)
    return node
  }

  func element() -> JSONNode {
    var elements: [JSONNode] = []
    if case .array(let known) = content { elements = known }
    content = .none
    let node = JSONNode()
    elements.append(node)
    content = .array(elements)
    return node
  }

  var value: JSONValue {
    switch content {
    case .none: return .object([])
    case .value(let value): return value
    case .array(let elements): return .array(elements.map(\.value))
    case .object(let members):
      let ordered = isDictionary ? members.sorted { $0.name < $1.name } : members
      return .object(ordered.map { JSONValue.Member($0.name, $0.node.value) })
    }
  }
}

/// Dictionaries are written in order of their keys, so that equal ones are equal bytes.
private protocol AnyDictionary {}
extension Dictionary: AnyDictionary {}

/// What cannot be written as JSON.
struct JSONCodingFailure: Error {
  var path: [any CodingKey]
  var message: String

  var text: String { path.isEmpty ? message : "\(path.map(\.stringValue).joined(separator: ".")): \(message)" }
}

extension JSONValue {
  /// The value as a JSON document.
  init(encoding value: some Encodable) throws(JSONCodingFailure) {
    let node = JSONNode()
    do {
      try JSONEncoding(node: node, codingPath: []).write(value)
    } catch let failure as JSONCodingFailure {
      throw failure
    } catch let error as EncodingError {
      guard case .invalidValue(_, let context) = error else { throw JSONCodingFailure(path: [], message: "\(error)") }
      throw JSONCodingFailure(path: context.codingPath, message: context.debugDescription)
    } catch {
      throw JSONCodingFailure(path: [], message: "\(error)")
    }
    self = node.value
  }
}

private struct JSONEncoding: Encoder {
  let node: JSONNode
  let codingPath: [any CodingKey]
  var userInfo: [CodingUserInfoKey: Any] { [:] }

  func write(_ value: some Encodable) throws {
    guard codingPath.count < JSONValue.depthLimit - 1 else {
      throw JSONCodingFailure(path: [], message: "nested deeper than \(JSONValue.depthLimit - 1)")
    }
    switch value {
    case let value as Bool: node.content = .value(.bool(value))
    case let value as String: node.content = .value(.string(value))
    case let value as Double: try write(number: value)
    case let value as Float: try write(number: Double(value.description) ?? Double(value))
    case let value as any BinaryInteger: try write(whole: value)
    default:
      node.isDictionary = value is any AnyDictionary
      try value.encode(to: self)
    }
  }

  private func write(number value: Double) throws {
    guard value.isFinite else { throw JSONCodingFailure(path: codingPath, message: "JSON has no \(value)") }
    node.content = .value(.double(value))
  }

  private func write(whole value: some BinaryInteger) throws {
    guard let value = Int64(exactly: value) else {
      throw JSONCodingFailure(path: codingPath, message: "\(value) is beyond 64 bits with a sign")
    }
    node.content = .value(.int(value))
  }

  func container<Key: CodingKey>(keyedBy type: Key.Type) -> KeyedEncodingContainer<Key> {
    if case .none = node.content { node.content = .object([]) }
    return KeyedEncodingContainer(KeyedJSON<Key>(node: node, codingPath: codingPath))
  }

  func unkeyedContainer() -> any UnkeyedEncodingContainer {
    if case .none = node.content { node.content = .array([]) }
    return JSONElements(node: node, codingPath: codingPath)
  }

  func singleValueContainer() -> any SingleValueEncodingContainer { SingleJSON(encoding: self) }
}

private struct SingleJSON: SingleValueEncodingContainer {
  let encoding: JSONEncoding
  var codingPath: [any CodingKey] { encoding.codingPath }

  mutating func encodeNil() throws { encoding.node.content = .value(.null) }
  mutating func encode(_ value: some Encodable) throws { try encoding.write(value) }
}

private struct KeyedJSON<Key: CodingKey>: KeyedEncodingContainerProtocol {
  let node: JSONNode
  let codingPath: [any CodingKey]

  private func encoding(_ key: any CodingKey) -> JSONEncoding {
    JSONEncoding(node: node.member(key.stringValue), codingPath: codingPath + [key])
  }

  mutating func encodeNil(forKey key: Key) throws { encoding(key).node.content = .value(.null) }
  mutating func encode(_ value: some Encodable, forKey key: Key) throws { try encoding(key).write(value) }

  mutating func nestedContainer<Nested: CodingKey>(
    keyedBy type: Nested.Type, forKey key: Key
  ) -> KeyedEncodingContainer<Nested> { encoding(key).container(keyedBy: type) }

  mutating func nestedUnkeyedContainer(forKey key: Key) -> any UnkeyedEncodingContainer {
    encoding(key).unkeyedContainer()
  }

  mutating func superEncoder() -> any Encoder { encoding(NamedKey("super")) }
  mutating func superEncoder(forKey key: Key) -> any Encoder { encoding(key) }
}

private struct JSONElements: UnkeyedEncodingContainer {
  let node: JSONNode
  let codingPath: [any CodingKey]
  private(set) var count = 0

  init(node: JSONNode, codingPath: [any CodingKey]) {
    self.node = node
    self.codingPath = codingPath
  }

  private mutating func encoding() -> JSONEncoding {
    defer { count += 1 }
    return JSONEncoding(node: node.element(), codingPath: codingPath + [NamedKey(String(count))])
  }

  mutating func encodeNil() throws { encoding().node.content = .value(.null) }
  mutating func encode(_ value: some Encodable) throws { try encoding().write(value) }

  mutating func nestedContainer<Nested: CodingKey>(keyedBy type: Nested.Type) -> KeyedEncodingContainer<Nested> {
    encoding().container(keyedBy: type)
  }

  mutating func nestedUnkeyedContainer() -> any UnkeyedEncodingContainer { encoding().unkeyedContainer() }
  mutating func superEncoder() -> any Encoder { encoding() }
}

/// A place in a document that no type has a key for.
struct NamedKey: CodingKey {
  let stringValue: String
  var intValue: Int? { Int(stringValue) }

  init(_ name: String) { stringValue = name }
  init?(stringValue: String) { self.init(stringValue) }
  init?(intValue: Int) { self.init(String(intValue)) }
}
