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
  /// Bytes of entries that one record of writes may come to: `append` can make much of little.
  private let recordLimit: Int
  /// By full key: the entry as it is now, nil: removed.
  private var changed: [ByteSlice: ByteSlice?] = [:]
  private var order: [ByteSlice] = []
  /// What the present record changed: keys as they were in `changed` before; nil: not there.
  private var undo: [(key: ByteSlice, before: ByteSlice??)] = []
  private var bytesBefore = 0
  /// Bytes of all entries that were written, whatever became of them.
  private(set) var byteCount = 0

  static let defaultRecordLimit = 128 * 1024 * 1024

  init(_ view: (any StateView)?, recordLimit: Int = StateWriteRun.defaultRecordLimit) {
    self.view = view
    self.recordLimit = recordLimit
  }

  /// What was changed, each key once, as it is at the end.
  var changes: [(key: ByteSlice, entry: ByteSlice?)] { order.map { ($0, changed[$0] ?? nil) } }

  var hasChanges: Bool { !order.isEmpty }

  private func current(_ key: ByteSlice) throws(StateError) -> ByteSlice? {
    if let entry = changed[key] { return entry }
    guard let view, let bytes = try view.entry(key.unsafeBytes) else { return nil }
    return ByteSlice(copying: bytes)
  }

  private mutating func set(_ key: ByteSlice, _ entry: ByteSlice?) {
    let before = changed.updateValue(entry, forKey: key)
    undo.append((key, before))
    if before == nil { order.append(key) }
    byteCount += entry?.count ?? 0
  }

  /// A record of writes begins: all of them are done, or none.
  mutating func beginRecord() {
    undo.removeAll(keepingCapacity: true)
    bytesBefore = byteCount
  }

  /// Forgets what the present record changed.
  mutating func rollBack() {
    for step in undo.reversed() {
      switch step.before {
      case nil:
        changed.removeValue(forKey: step.key)
        order.removeLast()
      case .some(let entry): changed.updateValue(entry, forKey: step.key)
      }
    }
    undo.removeAll(keepingCapacity: true)
    byteCount = bytesBefore
  }

  /// Carries out all writes of one record; if one cannot be, none is, and why is thrown: `tooLarge` if they come to too much.
  mutating func run(record writes: [StateWrite]) throws(StateError) -> [StateWrite.Outcome] {
    beginRecord()
    do throws(StateError) {
      var outcomes: [StateWrite.Outcome] = []
      outcomes.reserveCapacity(writes.count)
      for write in writes {
        outcomes.append(try run(write))
        // One alone is bounded by the largest value.
        guard byteCount - bytesBefore <= recordLimit || writes.count == 1 else {
          throw StateError(
            .tooLarge,
            "the writes of one request in one partition come to more than \(recordLimit) bytes of values; send fewer at a time"
          )
        }
      }
      return outcomes
    } catch {
      rollBack()
      throw error
    }
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
