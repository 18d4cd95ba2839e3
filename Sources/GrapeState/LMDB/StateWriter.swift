internal import CLMDB
internal import Glibc
internal import GrapeWire

/// One transaction that changes a partition's state: entries, their indexes, and the position, all or nothing.
package struct StateWriter: ~Copyable {
  private let environment: LMDBEnvironment
  private var transaction: OpaquePointer?
  /// No entry has an expiry or a tag, so far: what is replaced need not be looked at.
  private var isPlain: Bool

  /// Begins. One at a time, in all processes.
  package init(_ environment: LMDBEnvironment) throws(StateError) {
    self.environment = environment
    var begun: OpaquePointer?
    try LMDB.check(mdb_txn_begin(environment.handle, nil, 0, &begun), "changing the state in \(environment.path)")
    transaction = begun
    var count = 0
    for database in [environment.databases.expiry, environment.databases.tags] {
      var statistics = MDB_stat()
      let code = mdb_stat(begun, database, &statistics)
      if code != 0 {
        mdb_txn_abort(begun)
        throw LMDB.failure(code, "changing the state in \(environment.path)")
      }
      count += statistics.ms_entries
    }
    isPlain = count == 0
  }

  deinit { if let transaction { mdb_txn_abort(transaction) } }

  private func check(_ code: Int32) throws(StateError) {
    try LMDB.check(code, "changing the state in \(environment.path)")
  }

  /// What is stored for a full key.
  package func entry(_ key: UnsafeRawBufferPointer) throws(StateError) -> UnsafeRawBufferPointer? {
    var key = LMDB.value(key)
    var value = MDB_val()
    let code = mdb_get(transaction, environment.databases.entries, &key, &value)
    if code == MDB_NOTFOUND { return nil }
    try check(code)
    return try StateReader.entry(in: LMDB.bytes(value))
  }

  /// Stores an entry, or removes it (nil), with its places in the indexes. `entry` must be sound.
  package mutating func set(_ key: UnsafeRawBufferPointer, _ entry: UnsafeRawBufferPointer?) throws(StateError) {
    if !isPlain, let old = try self.entry(key), old[0] != 0 { try unlink(key, try StateEntry(old)) }
    guard let entry else { return try remove(key) }
    var stored = MDB_val(mv_size: StateReader.checksumSize + entry.count, mv_data: nil)
    var wanted = LMDB.value(key)
    try check(mdb_put(transaction, environment.databases.entries, &wanted, &stored, UInt32(MDB_RESERVE)))
    let place = stored.mv_data!
    place.storeBytes(of: StateReader.checksum(key, entry).bigEndian, as: UInt32.self)
    (place + StateReader.checksumSize).copyMemory(from: entry.baseAddress!, byteCount: entry.count)
    if entry[0] != 0 { try link(key, try StateEntry(entry)) }
  }

  private func remove(_ key: UnsafeRawBufferPointer) throws(StateError) {
    var wanted = LMDB.value(key)
    let code = mdb_del(transaction, environment.databases.entries, &wanted, nil)
    if code != MDB_NOTFOUND { try check(code) }
  }

  // MARK: Indexes

  private mutating func link(_ key: UnsafeRawBufferPointer, _ entry: StateEntry) throws(StateError) {
    isPlain = false
    try forEachPlace(key, entry) { (database, indexKey, indexValue) throws(StateError) in
      var place = LMDB.value(indexKey)
      var value = LMDB.value(indexValue)
      let code = mdb_put(transaction, database, &place, &value, UInt32(MDB_NODUPDATA))
      if code != MDB_KEYEXIST { try check(code) }
    }
  }

  private func unlink(_ key: UnsafeRawBufferPointer, _ entry: StateEntry) throws(StateError) {
    try forEachPlace(key, entry) { (database, indexKey, indexValue) throws(StateError) in
      var place = LMDB.value(indexKey)
      var value = LMDB.value(indexValue)
      let code = mdb_del(transaction, database, &place, &value)
      if code != MDB_NOTFOUND { try check(code) }
    }
  }

  /// Where the indexes name an entry.
  private func forEachPlace(
    _ key: UnsafeRawBufferPointer, _ entry: StateEntry,
    _ body: (UInt32, UnsafeRawBufferPointer, UnsafeRawBufferPointer) throws(StateError) -> Void
  ) throws(StateError) {
    if let expiry = entry.expiry {
      var writer = ByteWriter(capacity: 16)
      writer.i64(expiry)
      try body(environment.databases.expiry, writer.unsafeBytes, key)
    }
    guard entry.hasTags else { return }
    let split = try StateKey.split(key)
    let store = UnsafeRawBufferPointer(rebasing: key[..<split])
    let name = UnsafeRawBufferPointer(rebasing: key[split...])
    try entry.forEachTag { (tag) throws(StateError) in
      var writer = ByteWriter(capacity: store.count + tag.count)
      writer.bytes(store)
      writer.bytes(tag)
      try body(environment.databases.tags, writer.unsafeBytes, name)
    }
  }

  // MARK: Ending

  /// Makes the changes true, together with the position they lead to.
  package consuming func commit(_ position: StatePosition) throws(StateError) {
    let encoded = position.encoded
    var name = LMDB.value(
      UnsafeRawBufferPointer(start: Self.positionKey.utf8Start, count: Self.positionKey.utf8CodeUnitCount))
    var value = LMDB.value(encoded.unsafeBytes)
    try check(mdb_put(transaction, environment.databases.meta, &name, &value, 0))
    withExtendedLifetime(encoded) {}
    let ending = transaction
    // Whatever comes of it, LMDB has freed the transaction.
    transaction = nil
    try check(mdb_txn_commit(ending))
  }

  private static let positionKey: StaticString = "position"
}
