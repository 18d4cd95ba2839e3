internal import CLMDB

/// An LMDB environment with the four databases of one partition's state (docs/data-format.md, State).
///
/// LMDB allows a file to be open once per process. One thread at a time may write; readers never wait.
package final class LMDBEnvironment: @unchecked Sendable {
  /// The databases, by LMDB's numbers.
  package struct Databases: Sendable {
    package let meta: UInt32
    package let entries: UInt32
    package let expiry: UInt32
    package let tags: UInt32
  }

  let handle: OpaquePointer
  package let path: String
  package let isReadOnly: Bool
  package let databases: Databases

  /// Readers that may have the environment open at a time.
  static let readers: UInt32 = 1024

  /// Opens the environment in directory `path`.
  ///
  /// - Parameter mapSize: bytes of address space for the file, multiple of the page size; nil: read-only.
  /// - Throws: `notFound` if there is none and it is not to be written.
  package convenience init(path: String, mapSize: Int?) throws(StateError) {
    try self.init(path: path, mapSize: mapSize, extraFlags: 0)
  }

  /// Opens the single file `path`, which nobody else uses meanwhile: there is no lock file.
  ///
  /// - Parameter mapSize: bytes of address space for the file, multiple of the page size; nil: read-only, and nobody writes it.
  package convenience init(file path: String, mapSize: Int?) throws(StateError) {
    try self.init(path: path, mapSize: mapSize, extraFlags: MDB_NOSUBDIR | MDB_NOLOCK)
  }

  private init(path: String, mapSize: Int?, extraFlags: Int32) throws(StateError) {
    self.path = path
    isReadOnly = mapSize == nil
    var opened: OpaquePointer?
    try LMDB.check(mdb_env_create(&opened), "creating an LMDB environment")
    guard let opened else { throw StateError(.system, "LMDB gave no environment") }
    do throws(StateError) {
      try LMDB.check(mdb_env_set_maxdbs(opened, 4), "LMDB's number of databases")
      if let mapSize {
        try LMDB.check(mdb_env_set_maxreaders(opened, Self.readers), "LMDB's number of readers")
        try LMDB.check(mdb_env_set_mapsize(opened, mapSize), "LMDB's map of \(mapSize) bytes")
      }
      // The changelog is what makes writes last: the file needs no synchronisation of its own.
      let flags = mapSize == nil ? MDB_RDONLY | MDB_NOTLS : MDB_NOSYNC | MDB_NOMETASYNC | MDB_NOTLS | MDB_NORDAHEAD
      try LMDB.check(mdb_env_open(opened, path, UInt32(flags | extraFlags), 0o600), "opening the state in \(path)")
      databases = try Self.openDatabases(opened, create: mapSize != nil, path)
    } catch {
      mdb_env_close(opened)
      throw error
    }
    handle = opened
  }

  deinit { mdb_env_close(handle) }

  private static func openDatabases(
    _ environment: OpaquePointer, create: Bool, _ path: String
  ) throws(StateError) -> Databases {
    var transaction: OpaquePointer?
    try LMDB.check(
      mdb_txn_begin(environment, nil, create ? 0 : UInt32(MDB_RDONLY), &transaction), "reading the state in \(path)")
    func open(_ name: String, _ flags: Int32) throws(StateError) -> UInt32 {
      var database: MDB_dbi = 0
      try LMDB.check(
        mdb_dbi_open(transaction, name, UInt32(flags | (create ? MDB_CREATE : 0)), &database),
        "database \(name) of the state in \(path)")
      return database
    }
    do throws(StateError) {
      let databases = Databases(
        meta: try open("meta", 0), entries: try open("entries", 0), expiry: try open("expiry", MDB_DUPSORT),
        tags: try open("tags", MDB_DUPSORT))
      let ended = mdb_txn_commit(transaction)
      transaction = nil
      try LMDB.check(ended, "opening the databases of the state in \(path)")
      return databases
    } catch {
      if let transaction { mdb_txn_abort(transaction) }
      throw error
    }
  }

  /// Takes over the size of the file's map. No transaction of this process may be open.
  package func adoptMapSize() throws(StateError) {
    try LMDB.check(mdb_env_set_mapsize(handle, 0), "taking over the map's size of \(path)")
  }

  /// Gives the map more room. No transaction of this process may be open.
  package func setMapSize(_ bytes: Int) throws(StateError) {
    try LMDB.check(mdb_env_set_mapsize(handle, bytes), "a map of \(bytes) bytes for \(path)")
  }

  /// Bytes of the map.
  package var mapSize: Int {
    var info = MDB_envinfo()
    return mdb_env_info(handle, &info) == 0 ? Int(info.me_mapsize) : 0
  }

  /// Readers that the file's writer knows of. 0 with a view open: the lock file cannot be written, and nothing keeps the view's pages.
  package var readerCount: Int {
    var info = MDB_envinfo()
    return mdb_env_info(handle, &info) == 0 ? Int(info.me_numreaders) : 0
  }

  /// A process that holds the state as a transaction left it.
  package struct Reader: Hashable, Sendable {
    package var process: Int32
    package var transaction: UInt64
  }

  /// Those that have a view open now.
  package func openReaders() -> [Reader] {
    final class Lines { var readers: [Reader] = [] }
    let lines = Lines()
    mdb_reader_list(
      handle,
      { text, lines in
        // "PID THREAD TRANSACTION", the last "-" without a view; a line of titles before them.
        let words = String(cString: text!).split(whereSeparator: \.isWhitespace)
        if words.count == 3, let process = Int32(words[0]), let transaction = UInt64(words[2]) {
          let found = Unmanaged<Lines>.fromOpaque(lines!).takeUnretainedValue()
          found.readers.append(Reader(process: process, transaction: transaction))
        }
        return 0
      }, Unmanaged.passUnretained(lines).toOpaque())
    return withExtendedLifetime(lines) { lines.readers }
  }

  /// LMDB's number of the last transaction that changed the state.
  package var lastTransaction: UInt64 {
    var info = MDB_envinfo()
    return mdb_env_info(handle, &info) == 0 ? UInt64(info.me_last_txnid) : 0
  }

  /// Frees what readers that died left behind. The number of them.
  @discardableResult
  package func clearDeadReaders() throws(StateError) -> Int {
    var dead: Int32 = 0
    try LMDB.check(mdb_reader_check(handle, &dead), "looking for dead readers of \(path)")
    return Int(dead)
  }

  /// Puts everything written so far on the disk.
  package func sync() throws(StateError) {
    try LMDB.check(mdb_env_sync(handle, 1), "synchronising the state in \(path)")
  }

  /// Bytes of the file that were ever used.
  package var usedBytes: Int {
    var info = MDB_envinfo()
    var statistics = MDB_stat()
    guard mdb_env_info(handle, &info) == 0, mdb_env_stat(handle, &statistics) == 0 else { return 0 }
    return (Int(info.me_last_pgno) + 1) * Int(statistics.ms_psize)
  }
}

enum LMDB {
  /// Throws what a return code other than 0 means.
  @inline(__always)
  static func check(_ code: Int32, _ what: @autoclosure () -> String) throws(StateError) {
    if code != 0 { throw failure(code, what()) }
  }

  @inline(never)
  static func failure(_ code: Int32, _ what: String) -> StateError {
    let reason = "\(what): \(String(cString: mdb_strerror(code)))"
    switch code {
    case MDB_MAP_FULL: return StateError(.mapFull, reason)
    case MDB_MAP_RESIZED: return StateError(.mapResized, reason)
    case MDB_CORRUPTED, MDB_PAGE_NOTFOUND, MDB_INVALID, MDB_PANIC, MDB_BAD_TXN, MDB_INCOMPATIBLE, MDB_CURSOR_FULL:
      return StateError(.corrupt, reason)
    case MDB_VERSION_MISMATCH: return StateError(.unsupported, reason)
    case MDB_NOTFOUND, 2: return StateError(.notFound, reason)
    default: return StateError(.system, reason)
    }
  }

  /// Bytes in LMDB's form. LMDB does not write through it.
  @inline(__always)
  static func value(_ bytes: UnsafeRawBufferPointer) -> MDB_val {
    MDB_val(mv_size: bytes.count, mv_data: UnsafeMutableRawPointer(mutating: bytes.baseAddress))
  }

  @inline(__always)
  static func bytes(_ value: MDB_val) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: value.mv_data, count: value.mv_size)
  }
}
