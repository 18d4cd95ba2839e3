internal import CLMDB
package import GrapeWire

/// Reads one partition's state, straight from the map: a view of one moment between `begin` and `end`. Used by one thread at a time.
package final class StateReader {
  private let environment: LMDBEnvironment
  private var transaction: OpaquePointer?
  private var cursor: OpaquePointer?
  /// A view is open.
  package private(set) var isOpen = false

  /// Bytes of the checksum in front of each entry.
  static let checksumSize = 4

  package init(_ environment: LMDBEnvironment) { self.environment = environment }

  deinit {
    if let cursor { mdb_cursor_close(cursor) }
    if let transaction { mdb_txn_abort(transaction) }
  }

  /// Opens a view of the present state. What it returns stays valid until `end`.
  package func begin() throws(StateError) {
    if isOpen { return }
    do throws(StateError) {
      try renew()
    } catch {
      guard error.code == .mapResized else { throw error }
      try environment.adoptMapSize()
      try renew()
    }
    isOpen = true
  }

  private func renew() throws(StateError) {
    if let transaction {
      try LMDB.check(mdb_txn_renew(transaction), "reading the state in \(environment.path)")
    } else {
      try LMDB.check(
        mdb_txn_begin(environment.handle, nil, UInt32(MDB_RDONLY), &transaction),
        "reading the state in \(environment.path)")
    }
  }

  /// Closes the view: its pages may be used again.
  package func end() {
    guard isOpen else { return }
    isOpen = false
    mdb_txn_reset(transaction)
  }

  /// LMDB's number of the last transaction that the view shows.
  package var transactionNumber: UInt64 { UInt64(mdb_txn_id(transaction)) }

  /// How far the view has come; nil: nothing was ever written.
  package func position() throws(StateError) -> StatePosition? {
    guard let bytes = try get("position", in: environment.databases.meta) else { return nil }
    return try StatePosition(bytes)
  }

  /// The position's `processed` alone.
  package func processed() throws(StateError) -> Int64 { try position()?.processed ?? 0 }

  private func get(_ key: StaticString, in database: UInt32) throws(StateError) -> UnsafeRawBufferPointer? {
    try get(UnsafeRawBufferPointer(start: key.utf8Start, count: key.utf8CodeUnitCount), in: database)
  }

  @inline(__always)
  private func get(
    _ key: UnsafeRawBufferPointer, in database: UInt32
  ) throws(StateError) -> UnsafeRawBufferPointer? {
    assert(isOpen)
    var key = LMDB.value(key)
    var value = MDB_val()
    let code = mdb_get(transaction, database, &key, &value)
    if code == MDB_NOTFOUND { return nil }
    try LMDB.check(code, "reading the state in \(environment.path)")
    return LMDB.bytes(value)
  }

  /// The entry of a full key. O(log n), no copy. Its checksum is not looked at.
  @inline(__always)
  package func entry(_ key: UnsafeRawBufferPointer) throws(StateError) -> UnsafeRawBufferPointer? {
    guard let stored = try get(key, in: environment.databases.entries) else { return nil }
    return try Self.entry(in: stored)
  }

  @inline(__always)
  package static func entry(in stored: UnsafeRawBufferPointer) throws(StateError) -> UnsafeRawBufferPointer {
    guard stored.count > checksumSize else { throw StateError(.corrupt, "an entry has \(stored.count) bytes") }
    return UnsafeRawBufferPointer(rebasing: stored[checksumSize...])
  }

  /// Whether the stored bytes are what was written for `key`.
  package static func isSound(_ stored: UnsafeRawBufferPointer, of key: UnsafeRawBufferPointer) -> Bool {
    guard stored.count > checksumSize else { return false }
    let expected = UInt32(bigEndian: stored.loadUnaligned(as: UInt32.self))
    return checksum(key, UnsafeRawBufferPointer(rebasing: stored[checksumSize...])) == expected
  }

  static func checksum(_ key: UnsafeRawBufferPointer, _ entry: UnsafeRawBufferPointer) -> UInt32 {
    CRC32C.checksum(entry, continuing: CRC32C.checksum(key))
  }

  /// Number of entries. O(1).
  package func count() throws(StateError) -> Int { try count(environment.databases.entries) }

  private func count(_ database: UInt32) throws(StateError) -> Int {
    var statistics = MDB_stat()
    try LMDB.check(mdb_stat(transaction, database, &statistics), "the state in \(environment.path)")
    return statistics.ms_entries
  }

  /// Calls `body` with entries in order of their full keys until it returns false.
  ///
  /// - Parameter range: full keys, the upper bound not included.
  package func scan(
    _ range: Range<ByteSlice>, descending: Bool = false,
    _ body: (_ key: UnsafeRawBufferPointer, _ entry: UnsafeRawBufferPointer) throws(StateError) -> Bool
  ) throws(StateError) {
    var cursor = try makeCursor(range, descending: descending)
    while let next = try cursor.next() {
      guard try body(next.key, next.entry) else { return }
    }
  }

  /// Walks the entries of a range, one at a time.
  package func makeCursor(_ range: Range<ByteSlice>, descending: Bool) throws(StateError) -> StateCursor {
    assert(isOpen)
    return try StateCursor(
      transaction, environment.databases.entries, range: range, descending: descending, path: environment.path)
  }

  /// Keys (without the store) of a store's entries with `tag`, ascending, from `first` on, until `body` returns false.
  package func keys(
    store: String, tag: String, from first: UnsafeRawBufferPointer? = nil,
    _ body: (UnsafeRawBufferPointer) throws(StateError) -> Bool
  ) throws(StateError) {
    var writer = ByteWriter(capacity: 100)
    StateKey.writePrefix(store, to: &writer)
    writer.bytes(Array(tag.utf8))
    var opened: OpaquePointer?
    try LMDB.check(mdb_cursor_open(transaction, environment.databases.tags, &opened), "the tags in \(environment.path)")
    defer { mdb_cursor_close(opened) }
    let tagKey = writer.finish()
    var key = LMDB.value(tagKey.unsafeBytes)
    var value = first.map { LMDB.value($0) } ?? MDB_val()
    var code = mdb_cursor_get(opened, &key, &value, first == nil ? MDB_SET : MDB_GET_BOTH_RANGE)
    if code == 0, first == nil { code = mdb_cursor_get(opened, &key, &value, MDB_FIRST_DUP) }
    while code == 0 {
      guard try body(LMDB.bytes(value)) else { return }
      code = mdb_cursor_get(opened, &key, &value, MDB_NEXT_DUP)
    }
    withExtendedLifetime(tagKey) {}
    if code != MDB_NOTFOUND { throw LMDB.failure(code, "the tags in \(environment.path)") }
  }

  /// Calls `body` with expiry and full key, in order of expiry, until it returns false.
  package func expiring(
    _ body: (_ time: Int64, _ key: UnsafeRawBufferPointer) throws(StateError) -> Bool
  ) throws(StateError) {
    var opened: OpaquePointer?
    try LMDB.check(
      mdb_cursor_open(transaction, environment.databases.expiry, &opened), "the expiries in \(environment.path)")
    defer { mdb_cursor_close(opened) }
    var key = MDB_val()
    var value = MDB_val()
    var code = mdb_cursor_get(opened, &key, &value, MDB_FIRST)
    while code == 0 {
      guard key.mv_size == 8 else {
        throw StateError(.corrupt, "an expiry in \(environment.path) has \(key.mv_size) bytes")
      }
      let time = Int64(bigEndian: LMDB.bytes(key).loadUnaligned(as: Int64.self))
      guard try body(time, LMDB.bytes(value)) else { return }
      code = mdb_cursor_get(opened, &key, &value, MDB_NEXT)
    }
    if code != MDB_NOTFOUND { throw LMDB.failure(code, "the expiries in \(environment.path)") }
  }
}

/// Walks entries in order. Valid while the reader's view is open.
package struct StateCursor: ~Copyable {
  private let cursor: OpaquePointer?
  private let range: Range<ByteSlice>
  private let descending: Bool
  private let path: String
  private var isFirst = true

  fileprivate init(
    _ transaction: OpaquePointer?, _ database: UInt32, range: Range<ByteSlice>, descending: Bool, path: String
  ) throws(StateError) {
    var opened: OpaquePointer?
    try LMDB.check(mdb_cursor_open(transaction, database, &opened), "the state in \(path)")
    cursor = opened
    self.range = range
    self.descending = descending
    self.path = path
  }

  deinit { mdb_cursor_close(cursor) }

  /// The next entry of the range; nil: there is none.
  package mutating func next() throws(StateError) -> (key: UnsafeRawBufferPointer, entry: UnsafeRawBufferPointer)? {
    var key = MDB_val()
    var value = MDB_val()
    var code: Int32
    if isFirst {
      isFirst = false
      let bound = descending ? range.upperBound : range.lowerBound
      key = LMDB.value(bound.unsafeBytes)
      code = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE)
      if descending { code = mdb_cursor_get(cursor, &key, &value, code == 0 ? MDB_PREV : MDB_LAST) }
      withExtendedLifetime(bound) {}
    } else {
      code = mdb_cursor_get(cursor, &key, &value, descending ? MDB_PREV : MDB_NEXT)
    }
    if code == MDB_NOTFOUND { return nil }
    try LMDB.check(code, "reading the state in \(path)")
    let found = LMDB.bytes(key)
    let isInside =
      descending
      ? !precedes(found, range.lowerBound.unsafeBytes) : precedes(found, range.upperBound.unsafeBytes)
    guard isInside else { return nil }
    return (found, try StateReader.entry(in: LMDB.bytes(value)))
  }
}
