import Foundation
import GrapeStore
import GrapeWire
import Testing

@Suite("Damaged LMDB files")
struct LMDBFileCheckTests {
  /// Changes of several kinds and sizes, so that the file has branches, overflow pages, indexes and free pages.
  static func fill(_ store: any StateStore, seed: UInt64) throws {
    var random = Random(seed)
    for round in 1...12 {
      var changes: [StateKey: ByteSlice?] = [:]
      for _ in 0..<400 {
        let key = try StateKey(store: ["", "other"][Int(random.next() % 2)], Array("key-\(random.next() % 2000)".utf8))
        if random.next() % 5 == 0 {
          changes[key] = .some(nil)
        } else {
          let size = random.next() % 50 == 0 ? 9000 : Int(random.next() % 200)
          changes[key] = try StateEntry.encoded(
            (0..<size).map { _ in UInt8(truncatingIfNeeded: random.next()) },
            expiry: random.next() % 3 == 0 ? Int64(random.next() % 100) : nil,
            tags: random.next() % 3 == 0 ? ["a", "b\(random.next() % 5)"] : [])
        }
      }
      let sorted = changes.sorted { $0.key < $1.key }
      try store.apply(
        sorted.map { StateChange(key: $0.key.bytes.unsafeBytes, entry: $0.value?.unsafeBytes) },
        position: StatePosition(
          processed: Int64(round), changelog: Int64(round), lastOffset: Int64(round), fingerprint: 1))
      withExtendedLifetime(sorted) {}
    }
  }

  @Test("a sound file is found sound, whatever was written", arguments: 1...5)
  func sound(seed: UInt64) throws {
    try withFolder { folder in
      let provider = try LMDBStateStoreProvider(root: folder)
      let store = try provider.create("app", partition: 0)
      try Self.fill(store, seed: seed)
      try store.close()
      try LMDBFileCheck.check(folder + "/app/0/data.mdb")
      let again = try #require(try provider.open("app", partition: 0) { Issue.record("discarded: \($0)") })
      #expect(try again.verify() == [])
      try again.close()
    }
  }

  @Test("bytes flipped anywhere are found, or change nothing that is read; nothing crashes", arguments: 1...3)
  func damage(seed: UInt64) throws {
    try withFolder { folder in
      let provider = try LMDBStateStoreProvider(root: folder)
      let store = try provider.create("app", partition: 0)
      try Self.fill(store, seed: seed)
      let expected = try contents(store)
      try store.close()
      let path = folder + "/app/0/data.mdb"
      let original = try [UInt8](Data(contentsOf: URL(filePath: path)))
      let owner = try Data(contentsOf: URL(filePath: folder + "/app/0/owner"))
      var random = Random(seed &* 77)
      var found = 0
      for round in 0..<300 {
        var bytes = original
        if round % 10 == 0 {
          bytes.removeLast(Int(random.next() % UInt64(bytes.count)))
        } else {
          for _ in 0..<(1 + random.next() % 4) {
            bytes[Int(random.next() % UInt64(bytes.count))] ^= UInt8(1 << (random.next() % 8))
          }
        }
        try FileManager.default.createDirectory(atPath: folder + "/app/0", withIntermediateDirectories: true)
        try Data(bytes).write(to: URL(filePath: path))
        try owner.write(to: URL(filePath: folder + "/app/0/owner"))
        var discarded = false
        if let opened = try provider.open("app", partition: 0, discarded: { _ in discarded = true }) {
          #expect(try contents(opened) == expected, "seed \(seed), round \(round): damage was not found")
          try opened.close()
        }
        if discarded { found += 1 }
      }
      #expect(found > 100, "only \(found) damages found")
    }
  }

  private func contents(_ store: any StateStore) throws -> [[UInt8]] {
    try store.withView { (view) throws(StateError) in
      var all: [[UInt8]] = []
      for name in ["", "other"] {
        try view.scan(try StateKey.range(store: name), descending: false) { key, entry in
          all.append(Array(key))
          all.append(Array(entry))
          return true
        }
      }
      try view.expiring { time, key in
        all.append(Array("\(time)".utf8) + key)
        return true
      }
      for tag in ["a", "b0", "b1", "b2", "b3", "b4"] {
        try view.keys(store: "", tag: tag, from: nil) { key in
          all.append(Array(tag.utf8) + key)
          return true
        }
      }
      return all
    }
  }
}

struct Random {
  private var state: UInt64
  init(_ seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
    return mixed ^ (mixed >> 31)
  }
}

func withFolder<Value>(_ body: (String) throws -> Value) throws -> Value {
  let folder = NSTemporaryDirectory() + "grape-store-\(UInt64.random(in: 0 ... .max))"
  try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(atPath: folder) }
  return try body(folder)
}
