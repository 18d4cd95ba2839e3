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
  ///
  /// - Parameter appending: the key is behind all that are there; pages are filled to the end then.
  package mutating func set(
    _ key: UnsafeRawBufferPointer, _ entry: UnsafeRawBufferPointer?, appending: Bool = false
  ) throws(StateError) {
    if !appending, !isPlain, let old = try self.entry(key), old[0] != 0 { try unlink(key, try StateEntry(old)) }
    guard let entry else { return try remove(key) }
    var stored = MDB_val(mv_size: StateReader.checksumSize + entry.count, mv_data: nil)
    var wanted = LMDB.value(key)
    let flags = UInt32(appending ? MDB_RESERVE | MDB_APPEND : MDB_RESERVE)
    try check(mdb_put(transaction, environment.databases.entries, &wanted, &stored, flags))
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
    try Self.forEachPlace(key, entry) { (isExpiry, indexKey, indexValue) throws(StateError) in
      var place = LMDB.value(indexKey)
      var value = LMDB.value(indexValue)
      let code = mdb_put(transaction, index(isExpiry), &place, &value, UInt32(MDB_NODUPDATA))
      if code != MDB_KEYEXIST { try check(code) }
    }
  }

  private func unlink(_ key: UnsafeRawBufferPointer, _ entry: StateEntry) throws(StateError) {
    try Self.forEachPlace(key, entry) { (isExpiry, indexKey, indexValue) throws(StateError) in
      var place = LMDB.value(indexKey)
      var value = LMDB.value(indexValue)
      let code = mdb_del(transaction, index(isExpiry), &place, &value)
      if code != MDB_NOTFOUND { try check(code) }
    }
  }

  private func index(_ isExpiry: Bool) -> UInt32 {
    isExpiry ? environment.databases.expiry : environment.databases.tags
  }

  /// Where the indexes name an entry: key and value in the index of expiries, or in that of tags.
  package static func forEachPlace(
    _ key: UnsafeRawBufferPointer, _ entry: StateEntry,
    _ body: (_ isExpiry: Bool, UnsafeRawBufferPointer, UnsafeRawBufferPointer) throws(StateError) -> Void
  ) throws(StateError) {
    if let expiry = entry.expiry {
      var writer = ByteWriter(capacity: 16)
      writer.i64(expiry)
      try body(true, writer.unsafeBytes, key)
    }
    guard entry.hasTags else { return }
    let split = try StateKey.split(key)
    let store = UnsafeRawBufferPointer(rebasing: key[..<split])
    let name = UnsafeRawBufferPointer(rebasing: key[split...])
    try entry.forEachTag { (tag) throws(StateError) in
      var writer = ByteWriter(capacity: store.count + tag.count)
      writer.bytes(store)
      writer.bytes(tag)
      try body(false, writer.unsafeBytes, name)
    }
  }

  /// Notes when a copy was taken, milliseconds since 1970.
  package func setTaken(_ time: Int64) throws(StateError) {
    var writer = ByteWriter(capacity: 8)
    writer.i64(time)
    try put(Self.takenKey, writer.unsafeBytes)
  }

  private func put(_ name: StaticString, _ bytes: UnsafeRawBufferPointer) throws(StateError) {
    var key = LMDB.value(UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount))
    var value = LMDB.value(bytes)
    try check(mdb_put(transaction, environment.databases.meta, &key, &value, 0))
  }

  // MARK: Ending

  /// Makes the changes true, together with the position they lead to.
  package consuming func commit(_ position: StatePosition) throws(StateError) {
    let encoded = position.encoded
    try put(Self.positionKey, encoded.unsafeBytes)
    withExtendedLifetime(encoded) {}
    let ending = transaction
    // Whatever comes of it, LMDB has freed the transaction.
    transaction = nil
    try check(mdb_txn_commit(ending))
  }

  private static let positionKey: StaticString = "position"
  private static let takenKey: StaticString = "taken"
}
