import Foundation
import GrapeLog
import GrapeState
import GrapeStore
import GrapeWire
import Testing

@Suite("Snapshots, copies and replays of state")
struct StateCopyTests {
  /// A checksum over each key and entry of a walk.
  static func entries(
    _ scan: ((UnsafeRawBufferPointer, UnsafeRawBufferPointer) throws(StateError) -> Bool) throws -> Void
  ) throws -> [UInt32] {
    var found: [UInt32] = []
    try scan { key, entry in
      found.append(CRC32C.checksum(entry, continuing: CRC32C.checksum(key)))
      return true
    }
    return found
  }

  static func entries(_ snapshot: any StateSnapshot) throws -> [UInt32] {
    try entries { try snapshot.scan(from: ByteSlice([]), $0) }
  }

  @Test("a copy has what the store had when the snapshot was taken, however the store went on", arguments: 1...5)
  func copies(seed: UInt64) throws {
    try withFolder { folder in
      let store = try LMDBStateStoreProvider(root: folder, initialMapSize: 1 << 18).create("app", partition: 0)
      try LMDBFileCheckTests.fill(store, seed: seed)
      let snapshot = try store.snapshot()
      let expected = try Self.entries(snapshot)
      #expect(expected.count == snapshot.count)
      // The map grows under the snapshot, too.
      for more in 1...4 { try LMDBFileCheckTests.fill(store, seed: seed &* 100 &+ UInt64(more)) }
      #expect(try snapshot.problems() == [])
      let path = folder + "/copy.mdb"
      let bytes = try StateCopy.write(snapshot, to: path, taken: 77)
      #expect(bytes < store.byteCount)
      #expect(try Self.entries { try StateCopy.scan(path, from: ByteSlice([]), $0) } == expected)
      let content = try StateCopy.check(path)
      #expect(content.position == snapshot.position && content.takenAt == 77 && content.entries == expected.count)
      #expect(throws: StateError.self) { try StateCopy.write(snapshot, to: path, taken: 77) }
      snapshot.end()
      #expect(throws: StateError.self) { try snapshot.problems() }
      #expect(try store.verify() == [])
      try store.close()
    }
  }

  @Test("a walk begins at any key", arguments: 1...3)
  func seeking(seed: UInt64) throws {
    try withFolder { folder in
      let store = try LMDBStateStoreProvider(root: folder).create("app", partition: 0)
      try LMDBFileCheckTests.fill(store, seed: seed)
      let path = folder + "/copy.mdb"
      try StateCopy.write(try store.snapshot(), to: path, taken: 1)
      var keys: [ByteSlice] = []
      try StateCopy.scan(path, from: ByteSlice([])) { key, _ in
        keys.append(ByteSlice(copying: key))
        return true
      }
      #expect(keys.count > 500)
      var random = Random(seed)
      for _ in 0..<50 {
        let index = Int(random.next() % UInt64(keys.count))
        // At a key, behind it, and before it.
        for first in [keys[index], ByteSlice(keys[index].array + [0]), ByteSlice(Array(keys[index].array.dropLast()))] {
          let expected = keys.first { $0 >= first }
          var found: ByteSlice?
          try StateCopy.scan(path, from: first) { key, _ in
            found = ByteSlice(copying: key)
            return false
          }
          #expect(found == expected, "seed \(seed), from \(first.array)")
        }
      }
      try store.close()
    }
  }

  @Test("a copy that is broken off, or cannot be written, leaves nothing")
  func brokenOff() throws {
    try withFolder { folder in
      let store = try LMDBStateStoreProvider(root: folder).create("app", partition: 0)
      let changes = try (0..<9000).map { try StateKey(Array(String(format: "%05d", $0).utf8)).bytes }
      let entry = try StateEntry.encoded([1])
      try store.apply(
        changes.map { StateChange(key: $0.unsafeBytes, entry: entry.unsafeBytes) },
        position: StatePosition(processed: 1, changelog: 1, lastOffset: 0, fingerprint: 1))
      let snapshot = try store.snapshot()
      #expect(throws: StateError.self) {
        try StateCopy.write(snapshot, to: folder + "/copy.mdb", taken: 1) { _ in false }
      }
      #expect(throws: StateError.self) { try StateCopy.write(snapshot, to: folder + "/none/copy.mdb", taken: 1) }
      // The store lets go of it while it is copied, as it does when it is closed.
      #expect(throws: StateError.self) {
        try StateCopy.write(snapshot, to: folder + "/copy.mdb", taken: 1) { _ in
          snapshot.end()
          return true
        }
      }
      try store.close()
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["app"])
      withExtendedLifetime((changes, entry)) {}
    }
  }

  @Test("flipped bytes in a store are found under its feet, or change nothing that is read", arguments: 1...3)
  func damageWhileOpen(seed: UInt64) throws {
    try withFolder { folder in
      let store = try LMDBStateStoreProvider(root: folder).create("app", partition: 0)
      try LMDBFileCheckTests.fill(store, seed: seed)
      let snapshot = try store.snapshot()
      let expected = try Self.entries(snapshot)
      let file = try FileHandle(forUpdating: URL(filePath: folder + "/app/0/data.mdb"))
      let size = Int(try file.seekToEnd())
      var random = Random(seed &* 31)
      var found = 0
      for _ in 0..<25 {
        // Not the first pages: LMDB itself reads those whenever it is asked.
        let place = UInt64(8192 + Int(random.next() % UInt64(size - 8192)))
        try file.seek(toOffset: place)
        let old = try #require(try file.read(upToCount: 1))
        try file.seek(toOffset: place)
        try file.write(contentsOf: Data([old[0] ^ UInt8(1 << (random.next() % 8))]))
        let problems = try snapshot.problems()
        found += problems.isEmpty ? 0 : 1
        do {
          let entries = try Self.entries(snapshot)
          if problems.isEmpty { #expect(entries == expected, "seed \(seed), byte \(place)") }
        } catch {
          #expect(!problems.isEmpty, "seed \(seed), byte \(place): \(error)")
        }
        try file.seek(toOffset: place)
        try file.write(contentsOf: old)
      }
      #expect(found > 0, "seed \(seed)")
      #expect(try snapshot.problems() == [])
      try store.close()
    }
  }

  /// A batch of changelog records, one after the other from `base` on.
  static func batch(_ records: [(String, String?)], base: Int64) throws -> LogBatch {
    var builder = RecordBatchBuilder()
    for (key, value) in records {
      builder.append(
        key: try StateKey(Array(key.utf8)).bytes, value: try value.map { try StateEntry.encoded(Array($0.utf8)) },
        headerSection: HeaderSection.empty, timestamp: 1)
    }
    let batch = try builder.take()
    return LogBatch(
      bytes: batch.bytes, baseOffset: base, lastOffset: base + Int64(records.count) - 1, maxTimestamp: 1)
  }

  /// Differences of a store that has applied `applied` from a replay of `replayed`.
  static func differences(applied: [LogBatch], replayed: [LogBatch]) throws -> [String] {
    try withFolder { folder in
      let store = MemoryStateStore()
      let changes = try ChangelogBatches(applied, from: .start, processed: nil, limit: 1 << 20)
      try store.apply(changes.changes, position: changes.position)
      let replay = try StateReplay(path: folder + "/replay.mdb", upTo: store.position, batchLimit: 1 << 20)
      for batch in replayed { try replay.take([batch]) }
      let found = try replay.differences(of: try store.snapshot(), limit: 100) { _ in true }
      replay.remove()
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder).isEmpty)
      #expect(found.count == found.lines.count)
      return found.lines
    }
  }

  @Test("a store that has what its changelog says does not differ from it; what differs is named")
  func replay() throws {
    let first = try Self.batch([("a", "1"), ("b", "1"), ("c", "1")], base: 0)
    let second = try Self.batch([("b", nil), ("a", "2"), ("d", "4")], base: 3)
    #expect(try Self.differences(applied: [first, second], replayed: [first, second]) == [])
    // What comes behind the position says nothing about the store.
    let later = try Self.batch([("c", nil), ("e", "1")], base: 6)
    #expect(try Self.differences(applied: [first, second], replayed: [first, second, later]) == [])
    let missing = try Self.differences(applied: [second], replayed: [first, second])
    #expect(missing.count == 1 && missing[0].contains("\"c\"") && missing[0].contains("the store does not"))
    let tooMuch = try Self.differences(applied: [first, second], replayed: [second])
    #expect(tooMuch.count == 1 && tooMuch[0].contains("\"c\"") && tooMuch[0].contains("the changelog does not"))
    let other = try Self.batch([("b", nil), ("a", "3"), ("d", "4")], base: 3)
    let changed = try Self.differences(applied: [first, second], replayed: [first, other])
    #expect(changed.count == 1 && changed[0].contains("\"a\""))
    let end = try Self.batch([("b", nil), ("a", "2"), ("d", "5")], base: 3)
    #expect(try Self.differences(applied: [first, second], replayed: [first, end]).count == 2)
  }

  @Test("a record that compaction took because of one behind the position is not missed")
  func compactedReplay() throws {
    let first = try Self.batch([("a", "1"), ("b", "1")], base: 0)
    let without = try Self.batch([("b", "1")], base: 1)
    let later = try Self.batch([("a", "2")], base: 2)
    #expect(try Self.differences(applied: [first], replayed: [without, later]) == [])
    #expect(try Self.differences(applied: [first], replayed: [without]).count == 1)
  }

  @Test("two states are compared in order of keys, whatever their sizes", arguments: 1...10)
  func comparison(seed: UInt64) throws {
    var random = Random(seed)
    func make() throws -> (store: MemoryStateStore, model: [String: String]) {
      let store = MemoryStateStore()
      var model: [String: String] = [:]
      for _ in 0..<random.next() % 300 {
        model["k\(random.next() % 200)"] = String(
          repeating: "v", count: random.next() % 10 == 0 ? 200_000 : Int(random.next() % 3))
      }
      let entries = try model.map {
        (try StateKey(Array($0.key.utf8)).bytes, try StateEntry.encoded(Array($0.value.utf8)))
      }
      .sorted { $0.0 < $1.0 }
      try store.apply(
        entries.map { StateChange(key: $0.0.unsafeBytes, entry: $0.1.unsafeBytes) }, position: .start)
      withExtendedLifetime(entries) {}
      return (store, model)
    }
    let (left, right) = (try make(), try make())
    let (ours, theirs) = (try left.store.snapshot(), try right.store.snapshot())
    var comparison = StateComparison(
      { (first, body) throws(StateError) in try ours.scan(from: first, body) },
      { (first, body) throws(StateError) in try theirs.scan(from: first, body) })
    var found: [String] = []
    while let next = try comparison.next() {
      let key = String(decoding: try StateKey(full: next.key).key.unsafeBytes, as: UTF8.self)
      found.append(key)
      func text(_ entry: ByteSlice?) throws -> String? {
        try entry.map { String(decoding: try StateEntry($0.unsafeBytes).value, as: UTF8.self) }
      }
      #expect(try text(next.left) == left.model[key] && (try text(next.right)) == right.model[key], "seed \(seed)")
    }
    let expected = Set(left.model.keys).union(right.model.keys).filter { left.model[$0] != right.model[$0] }.sorted()
    #expect(found == expected, "seed \(seed)")
    #expect(comparison.compared == left.model.count)
  }
}
