public import GrapeWire

/// What an event's key or value can be given as: bytes or text.
///
/// `[UInt8]`, `ArraySlice<UInt8>`, `String`, `Substring`, `ByteSlice`, `UnsafeRawBufferPointer` and optionals of
/// these conform; nil is the null of the wire format, which differs from empty. A type of your own can conform to be emitted directly.
public protocol EventData {
  /// Calls `body` with the bytes, which must not escape it; nil is null.
  func withEventBytes<Result, Failure: Error>(
    _ body: (UnsafeRawBufferPointer?) throws(Failure) -> Result
  ) throws(Failure) -> Result
}

extension UnsafeRawBufferPointer: EventData {
  @inlinable
  public func withEventBytes<Result, Failure: Error>(
    _ body: (UnsafeRawBufferPointer?) throws(Failure) -> Result
  ) throws(Failure) -> Result { try body(self) }
}

extension ByteSlice: EventData {
  @inlinable
  public func withEventBytes<Result, Failure: Error>(
    _ body: (UnsafeRawBufferPointer?) throws(Failure) -> Result
  ) throws(Failure) -> Result { try withUnsafeBytes(body) }
}

extension [UInt8]: EventData {
  @inlinable
  public func withEventBytes<Result, Failure: Error>(
    _ body: (UnsafeRawBufferPointer?) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try withUnsafeBufferPointer { (bytes) throws(Failure) in try body(UnsafeRawBufferPointer(bytes)) }
  }
}

extension ArraySlice<UInt8>: EventData {
  @inlinable
  public func withEventBytes<Result, Failure: Error>(
    _ body: (UnsafeRawBufferPointer?) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try withUnsafeBufferPointer { (bytes) throws(Failure) in try body(UnsafeRawBufferPointer(bytes)) }
  }
}

extension String: EventData {
  public func withEventBytes<Result, Failure: Error>(
    _ body: (UnsafeRawBufferPointer?) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    var text = self
    // The standard library's accessor cannot throw a typed error, so the outcome travels as a value.
    let outcome: Swift.Result<Result, Failure> = text.withUTF8 { bytes in
      do throws(Failure) {
        return .success(try body(UnsafeRawBufferPointer(bytes)))
      } catch {
        return .failure(error)
      }
    }
    return try outcome.get()
  }
}

extension Substring: EventData {
  public func withEventBytes<Result, Failure: Error>(
    _ body: (UnsafeRawBufferPointer?) throws(Failure) -> Result
  ) throws(Failure) -> Result { try String(self).withEventBytes(body) }
}

extension Optional: EventData where Wrapped: EventData {
  @inlinable
  public func withEventBytes<Result, Failure: Error>(
    _ body: (UnsafeRawBufferPointer?) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    switch self {
    case .some(let data): try data.withEventBytes(body)
    case .none: try body(nil)
    }
  }
}
