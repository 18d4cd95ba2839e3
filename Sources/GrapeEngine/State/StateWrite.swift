package import GrapeStore
package import GrapeWire

/// A write of state from outside, as it stands in the topic `APP.writes` (docs/data-format.md, State).
package struct StateWrite: Sendable {
  package enum Operation: UInt8, Sendable { case put = 1, remove = 2, compareAndSet = 3, append = 4 }

  /// What came of a write.
  package struct Outcome: Sendable, Hashable {
    package enum Result: UInt8, Sendable {
      /// Compare-and-set found something else.
      case refused = 0
      case done = 1
      /// The value would be larger than allowed.
      case tooLarge = 2
    }

    package var result: Result
    /// Bytes of the value as it is now, -1: there is no entry.
    package var size: Int64
  }

  package var operation: Operation
  /// Slot that is told of the write once it is done; empty: none.
  package var trigger: String
  package var key: ByteSlice
  /// What to store; for append the data as value. nil: remove.
  package var entry: ByteSlice?
  /// Compare-and-set: the value that must be there; nil: none may be.
  package var expected: ByteSlice?

  package init(
    _ operation: Operation, key: StateKey, entry: ByteSlice?, expected: ByteSlice? = nil, trigger: String = ""
  ) {
    self.operation = operation
    self.key = key.bytes
    self.entry = entry
    self.expected = expected
    self.trigger = trigger
  }

  package func write(to writer: inout ByteWriter) {
    writer.u8(operation.rawValue)
    writer.u8(0)
    writer.string16(trigger)
    writer.bytes32(key.unsafeBytes)
    writer.bytes32(entry?.unsafeBytes)
    writer.bytes32(expected?.unsafeBytes)
  }

  init(_ reader: inout ByteReader) throws(WireError) {
    let code = try reader.u8()
    guard let operation = Operation(rawValue: code) else { throw WireError(.malformed, "write operation \(code)") }
    self.operation = operation
    _ = try reader.u8()
    trigger = try reader.string16()
    guard let key = try reader.bytes32() else { throw WireError(.malformed, "a write has no key") }
    self.key = ByteSlice(copying: key)
    entry = try reader.bytes32().map { ByteSlice(copying: $0) }
    expected = try reader.bytes32().map { ByteSlice(copying: $0) }
    do throws(StateError) {
      _ = try StateKey.split(key)
      if let entry { _ = try StateEntry(entry.unsafeBytes) }
    } catch {
      throw WireError(.malformed, error.message)
    }
  }

  /// The writes of one record.
  static func all(in value: UnsafeRawBufferPointer) throws(WireError) -> [StateWrite] {
    var reader = ByteReader(value)
    var writes: [StateWrite] = []
    while reader.remaining > 0 { writes.append(try StateWrite(&reader)) }
    return writes
  }
}

/// Carries out writes one after the other on the state of one moment, and gathers what they come to.
struct StateWriteRun {
  private let view: (any StateView)?
  /// By full key: the entry as it is now, nil: removed.
  private var changed: [ByteSlice: ByteSlice?] = [:]
  private var order: [ByteSlice] = []

  init(_ view: (any StateView)?) { self.view = view }

  /// What was changed, each key once, as it is at the end.
  var changes: [(key: ByteSlice, entry: ByteSlice?)] { order.map { ($0, changed[$0] ?? nil) } }

  private func current(_ key: ByteSlice) throws(StateError) -> ByteSlice? {
    if let entry = changed[key] { return entry }
    guard let view, let bytes = try view.entry(key.unsafeBytes) else { return nil }
    return ByteSlice(copying: bytes)
  }

  private mutating func set(_ key: ByteSlice, _ entry: ByteSlice?) {
    if changed.updateValue(entry, forKey: key) == nil { order.append(key) }
  }

  mutating func run(_ write: StateWrite) throws(StateError) -> StateWrite.Outcome {
    switch write.operation {
    case .put: set(write.key, write.entry)
    case .remove: set(write.key, nil)
    case .compareAndSet:
      let present = try current(write.key)
      guard try Self.value(present) == write.expected else {
        return .init(result: .refused, size: try Self.size(present))
      }
      set(write.key, write.entry)
    case .append:
      let present = try current(write.key)
      guard let appended = try Self.append(write.entry, to: present) else {
        return .init(result: .tooLarge, size: try Self.size(present))
      }
      set(write.key, appended)
    }
    return .init(result: .done, size: try Self.size(changed[write.key] ?? nil))
  }

  /// The entry with data behind its value; nil: it would be too large. Tags and expiry stay.
  private static func append(_ data: ByteSlice?, to present: ByteSlice?) throws(StateError) -> ByteSlice? {
    guard let data else { return present }
    guard let present else { return data }
    let (added, old) = (try StateEntry(data.unsafeBytes), try StateEntry(present.unsafeBytes))
    guard old.value.count + added.value.count <= StateLimits.value else { return nil }
    var writer = ByteWriter(capacity: present.count + added.value.count)
    writer.bytes(present.unsafeBytes)
    writer.bytes(added.value)
    withExtendedLifetime((data, present)) {}
    return writer.finish()
  }

  private static func value(_ entry: ByteSlice?) throws(StateError) -> ByteSlice? {
    guard let entry else { return nil }
    return ByteSlice(copying: try StateEntry(entry.unsafeBytes).value)
  }

  private static func size(_ entry: ByteSlice?) throws(StateError) -> Int64 {
    guard let entry else { return -1 }
    return Int64(try StateEntry(entry.unsafeBytes).value.count)
  }
}
