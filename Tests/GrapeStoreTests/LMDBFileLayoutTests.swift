import Foundation
import GrapeStore
import GrapeWire
import Testing

/// Where LMDB itself would not look twice: lists of free pages, meta pages, branches.
@Suite("The layout of LMDB files")
struct LMDBFileLayoutTests {
  private static func key(_ number: UInt64) throws -> StateKey {
    try StateKey(Array("key-\(String(repeating: "x", count: 100))-\(number)".utf8))
  }

  private static func apply(_ changes: [StateKey: ByteSlice?], to store: any StateStore) throws {
    let sorted = changes.sorted { $0.key < $1.key }
    try store.apply(
      sorted.map { StateChange(key: $0.key.bytes.unsafeBytes, entry: $0.value?.unsafeBytes) },
      position: StatePosition(processed: 1, changelog: 1, lastOffset: 1, fingerprint: 1))
    withExtendedLifetime(sorted) {}
  }

  @Test("a file is sound after large values came and went in whatever order", arguments: 1...3)
  func freePages(seed: UInt64) throws {
    try withFolder { folder in
      let provider = try LMDBStateStoreProvider(root: folder)
      var store: any StateStore = try provider.create("app", partition: 0)
      var random = Random(seed)
      for round in 0..<24 {
        var changes: [StateKey: ByteSlice?] = [:]
        for _ in 0..<(1 + random.next() % 6) {
          let key = try Self.key(random.next() % 20)
          let size = [0, 100, 5000, 300_000, 3_000_000][Int(random.next() % 5)] + Int(random.next() % 5000)
          changes[key] =
            random.next() % 2 == 0
            ? .some(nil) : try StateEntry.encoded([UInt8](repeating: UInt8(truncatingIfNeeded: round), count: size))
        }
        try Self.apply(changes, to: store)
        if round % 4 == 3 {
          try store.close()
          try LMDBFileCheck.check(folder + "/app/0/data.mdb")
          store = try #require(
            try provider.open("app", partition: 0) { Issue.record("seed \(seed), round \(round): discarded: \($0)") })
        }
      }
      try store.close()
    }
  }

  /// Offsets of the bytes that say where things are: those of the meta pages, and of all branches.
  private func structure(_ file: [UInt8]) -> [Int] {
    var offsets = Array(0..<152) + Array(4096..<4096 + 152)
    for page in stride(from: 2 * 4096, to: file.count, by: 4096) {
      let flags = Int(file[page + 10]) | Int(file[page + 11]) << 8
      let (lower, upper) = (
        Int(file[page + 12]) | Int(file[page + 13]) << 8, Int(file[page + 14]) | Int(file[page + 15]) << 8
      )
      guard flags == 1, lower <= upper, upper <= 4096 else { continue }
      offsets += Array(page..<page + lower) + Array(page + upper..<page + 4096)
    }
    return offsets
  }

  @Test(
    "a flipped bit of the structure is found, or changes nothing: neither for reading nor for writing", arguments: 1...2
  )
  func structure(seed: UInt64) throws {
    try withFolder { folder in
      let provider = try LMDBStateStoreProvider(root: folder)
      let store = try provider.create("app", partition: 0)
      var entries: [StateKey: ByteSlice?] = [:]
      for number in 0..<300 as Range<UInt64> {
        entries[try Self.key(number)] = try StateEntry.encoded(
          Array("value-\(number)".utf8), expiry: Int64(1000 + number % 7), tags: ["tag\(number % 3)"])
      }
      try Self.apply(entries, to: store)
      let position = store.position
      try store.close()
      let path = folder + "/app/0/data.mdb"
      let original = try [UInt8](Data(contentsOf: URL(filePath: path)))
      let owner = try Data(contentsOf: URL(filePath: folder + "/app/0/owner"))
      let offsets = structure(original)
      #expect(offsets.count > 1000, "the file has branches")
      var random = Random(seed &* 31)
      var found = 0
      for round in 0..<400 {
        var bytes = original
        let offset = round < 304 ? offsets[round] : offsets[Int(random.next() % UInt64(offsets.count))]
        bytes[offset] ^= UInt8(1 << (random.next() % 8))
        try FileManager.default.createDirectory(atPath: folder + "/app/0", withIntermediateDirectories: true)
        try Data(bytes).write(to: URL(filePath: path))
        try owner.write(to: URL(filePath: folder + "/app/0/owner"))
        guard let opened = try provider.open("app", partition: 0, discarded: { _ in found += 1 }) else { continue }
        // The other meta page: the state of a moment before, and said to be that. The changelog has what is missing.
        if opened.position != position {
          #expect(opened.position == .start)
          try opened.close()
          continue
        }
        let comment: Comment = "seed \(seed), a bit of byte \(offset) was flipped"
        try expect(entries, in: opened, comment)
        var changed = entries
        changed[try Self.key(1000)] = try StateEntry.encoded(Array("new".utf8), tags: ["tag1"])
        changed[try Self.key(7)] = .some(nil)
        changed[try Self.key(8)] = try StateEntry.encoded(Array("other".utf8))
        try Self.apply(changed.filter { entries[$0.key] != $0.value }, to: opened)
        try expect(changed, in: opened, comment)
        #expect(try opened.verify() == [], comment)
        try opened.close()
      }
      #expect(found > 200, "only \(found) damages found")
    }
  }

  private func expect(_ entries: [StateKey: ByteSlice?], in store: any StateStore, _ comment: Comment) throws {
    try store.withView { (view) throws(StateError) in
      for (key, entry) in entries {
        let found = try view.entry(key.bytes.unsafeBytes).map { ByteSlice(copying: $0) }
        #expect(found == entry, comment)
      }
      var count = 0
      try view.scan(try StateKey.range(store: ""), descending: true) { _, _ in
        count += 1
        return true
      }
      #expect(count == entries.values.count { $0 != nil }, comment)
    }
  }
}
