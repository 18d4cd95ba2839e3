public import GrapeCore
internal import GrapeState
internal import GrapeWire

extension ReadableStore {
  /// The value, read from JSON text; nil: there is no entry. `typeMismatch` if it is not JSON of that type.
  ///
  /// Whole numbers, `Bool` and `String` are read without a detour.
  @inlinable
  public func get<Value: Decodable>(_ key: some EventData, as type: Value.Type) throws(StateError) -> Value? {
    if Value.self == Int.self {
      return try key.withEventBytes { (key) throws(StateError) in
        try access.integer(key).map { unsafeBitCast($0, to: Value.self) }
      }
    }
    return try key.withEventBytes { (key) throws(StateError) in try access.decode(key, as: type) }
  }

  /// The value as a JSON document; nil: there is no entry. `typeMismatch` if it is not JSON.
  public func json(_ key: some EventData) throws(StateError) -> JSONValue? {
    try key.withEventBytes { (key) throws(StateError) in try access.json(key) }
  }
}

extension Store {
  /// Stores a value as JSON text: what other SDKs read as JSON, too. `typeMismatch` for what JSON cannot express.
  @inlinable
  public func put<Value: Encodable>(
    _ key: some EventData, encoding value: Value, ttl: Duration? = nil, tags: [String] = []
  ) throws(StateError) {
    if Value.self == Int.self {
      let number = unsafeBitCast(value, to: Int.self)
      return try key.withEventBytes { (key) throws(StateError) in
        try access.putInteger(key, number, ttl: ttl, tags: tags)
      }
    }
    try key.withEventBytes { (key) throws(StateError) in try access.encode(key, value, ttl: ttl, tags: tags) }
  }

  /// Stores a JSON document.
  public func put(
    _ key: some EventData, json: JSONValue, ttl: Duration? = nil, tags: [String] = []
  ) throws(StateError) { try put(key, json.utf8, ttl: ttl, tags: tags) }
}

extension StoreAccess {
  @usableFromInline
  func integer(_ key: UnsafeRawBufferPointer?) throws(StateError) -> Int? {
    guard let value = try lookUp(key) else { return nil }
    defer { withExtendedLifetime(value.owner) {} }
    if let number = JSONInteger.parse(value.bytes) { return Int(truncatingIfNeeded: number) }
    return try decode(key, value.bytes, as: Int.self)
  }

  @usableFromInline
  func putInteger(
    _ key: UnsafeRawBufferPointer?, _ value: Int, ttl: Duration?, tags: [String]
  ) throws(StateError) {
    try JSONInteger.withDigits(of: Int64(value)) { (digits) throws(StateError) in
      try put(key, digits, ttl: ttl, tags: tags)
    }
  }

  @usableFromInline
  func decode<Value: Decodable>(_ key: UnsafeRawBufferPointer?, as type: Value.Type) throws(StateError) -> Value? {
    guard let value = try lookUp(key) else { return nil }
    defer { withExtendedLifetime(value.owner) {} }
    return try decode(key, value.bytes, as: type)
  }

  func decode<Value: Decodable>(
    _ key: UnsafeRawBufferPointer?, _ bytes: UnsafeRawBufferPointer, as type: Value.Type
  ) throws(StateError) -> Value {
    let document = try parse(key, bytes)
    do throws(JSONCodingFailure) {
      return try document.decoded(as: type)
    } catch {
      throw StateError(.typeMismatch, "\(describe(key)) is no \(type): \(error.text)")
    }
  }

  func json(_ key: UnsafeRawBufferPointer?) throws(StateError) -> JSONValue? {
    guard let value = try lookUp(key) else { return nil }
    defer { withExtendedLifetime(value.owner) {} }
    return try parse(key, value.bytes)
  }

  private func parse(
    _ key: UnsafeRawBufferPointer?, _ bytes: UnsafeRawBufferPointer
  ) throws(StateError) -> JSONValue {
    do throws(JSONError) {
      return try JSONValue(parsing: bytes)
    } catch {
      throw StateError(.typeMismatch, "\(describe(key)) is not JSON: \(error.message), at byte \(error.offset)")
    }
  }

  @usableFromInline
  func encode<Value: Encodable>(
    _ key: UnsafeRawBufferPointer?, _ value: Value, ttl: Duration?, tags: [String]
  ) throws(StateError) {
    let document: JSONValue
    do throws(JSONCodingFailure) {
      document = try JSONValue(encoding: value)
    } catch {
      throw StateError(.typeMismatch, "the value for \(describe(key)) cannot be JSON: \(error.text)")
    }
    let bytes = ByteSlice(document.utf8)
    try put(key, bytes.unsafeBytes, ttl: ttl, tags: tags)
    withExtendedLifetime(bytes) {}
  }

  private func describe(_ key: UnsafeRawBufferPointer?) -> String {
    "the value of \(key.map(readable) ?? "null") in the store \"\(name)\""
  }
}
