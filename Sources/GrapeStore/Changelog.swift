public import GrapeLog
public import GrapeState
public import GrapeWire

/// Record batches of a changelog, made ready for a store.
public struct ChangelogBatches: ~Copyable {
  private var unpacked: [UnpackedBatch] = []
  /// In order of key, each key once: the last word on it.
  public private(set) var changes: [StateChange] = []
  /// The position that they lead to.
  public private(set) var position: StatePosition

  /// Reads batches that continue `position`; records before it are left out. `corrupt` for what is no changelog.
  ///
  /// - Parameter processed: of the position to come; nil: as it was.
  public init(
    _ batches: some Sequence<LogBatch>, from position: StatePosition, processed: Int64?, limit: Int
  ) throws(StateError) {
    self.position = position
    if let processed { self.position.processed = max(position.processed, processed) }
    var isSorted = true
    do throws(WireError) {
      for batch in batches {
        let opened = try RecordBatch.unpack(batch.bytes, checkingCRC: false, limit: limit)
        var reader = opened.reader()
        while let record = try reader.next() {
          let offset = batch.baseOffset + Int64(record.offsetDelta)
          guard offset >= position.changelog else { continue }
          guard let key = record.key else { throw WireError(.malformed, "the record at offset \(offset) has no key") }
          if isSorted, let last = changes.last, !precedes(last.key, key) { isSorted = false }
          changes.append(StateChange(key: key, entry: record.value))
          self.position.lastOffset = offset
        }
        unpacked.append(opened)
        self.position.changelog = max(self.position.changelog, batch.lastOffset + 1)
      }
    } catch {
      throw StateError(.corrupt, "the changelog cannot be read: \(error.message)")
    }
    if let last = changes.last {
      self.position.fingerprint = StatePosition.fingerprint(key: last.key, value: last.entry)
    }
    if !isSorted { sort() }
  }

  private mutating func sort() {
    var order = Array(changes.indices)
    changes.withUnsafeBufferPointer { changes in
      order.sort { left, right in
        let (a, b) = (changes[left].key, changes[right].key)
        if precedes(a, b) { return true }
        return !precedes(b, a) && left < right
      }
    }
    var sorted: [StateChange] = []
    sorted.reserveCapacity(order.count)
    for index in order {
      let change = changes[index]
      if let last = sorted.last, !precedes(last.key, change.key) {
        sorted[sorted.count - 1] = change
      } else {
        sorted.append(change)
      }
    }
    changes = sorted
  }

  /// Checks a batch that is to enter a changelog: every record a full key with an entry or none, no headers. Returns its header.
  public static func validate(_ batch: ByteSlice, checkingCRC: Bool, limit: Int) throws(WireError) -> RecordBatchHeader
  {
    try RecordBatch.validate(batch, checkingCRC: checkingCRC, limit: limit) { (record) throws(WireError) in
      do throws(StateError) {
        guard let key = record.key else { throw StateError(.invalidArgument, "a record has no key") }
        _ = try StateKey.split(key)
        if let value = record.value { try StateEntry.check(value: StateEntry(value).value.count) }
      } catch {
        throw WireError(.malformed, error.message)
      }
    }
  }
}
