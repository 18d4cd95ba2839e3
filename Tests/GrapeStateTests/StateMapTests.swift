import Foundation
import GrapeState
import GrapeWire
import Testing

@Suite("The map of a partition's state")
struct StateMapTests {
  static func withFolder(_ body: (String) throws -> Void) throws {
    let folder = NSTemporaryDirectory() + "grape-state-\(UInt64.random(in: 0 ... .max))"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    try body(folder)
  }

  static func firstExpiry(_ reader: StateReader) throws -> Int64? {
    var first: Int64?
    try reader.expiring { time, _ in
      first = time
      return false
    }
    return first
  }

  static func set(
    _ environment: LMDBEnvironment, _ changes: [(key: [UInt8], value: ByteSlice?)], processed: Int64 = 1
  ) throws {
    var writer = try StateWriter(environment)
    for change in changes {
      let key = try StateKey(change.key).bytes
      try writer.set(key.unsafeBytes, change.value?.unsafeBytes)
      withExtendedLifetime(key) {}
    }
    try writer.commit(StatePosition(processed: processed, changelog: 0, lastOffset: -1, fingerprint: 0))
  }

  @Test("what is written is read, in order, with tags and expiries, until it is removed")
  func roundTrip() throws {
    try Self.withFolder { folder in
      let environment = try LMDBEnvironment(path: folder, mapSize: 1 << 24)
      let reader = StateReader(environment)
      try reader.begin()
      #expect(try reader.position() == nil)
      reader.end()
      try Self.set(
        environment,
        [
          ([1], try StateEntry.encoded([10])), ([3], try StateEntry.encoded([30], expiry: 7, tags: ["x", "y"])),
          ([2], try StateEntry.encoded([20], tags: ["x"])),
        ], processed: 9)
      try reader.begin()
      #expect(try reader.processed() == 9)
      #expect(try reader.count() == 3)
      let whole = try StateKey.range(store: "")
      for descending in [false, true] {
        var seen: [UInt8] = []
        try reader.scan(whole, descending: descending) { (key, entry) throws(StateError) in
          seen += [key[1], try StateEntry(entry).value[0]]
          return true
        }
        #expect(seen == (descending ? [3, 30, 2, 20, 1, 10] : [1, 10, 2, 20, 3, 30]))
      }
      var tagged: [UInt8] = []
      try reader.keys(store: "", tag: "x") {
        tagged.append($0[0]); return true
      }
      #expect(tagged == [2, 3])
      #expect(try Self.firstExpiry(reader) == 7)
      reader.end()
      // Tags and expiry go with the entry they came with.
      try Self.set(environment, [([3], try StateEntry.encoded([31], tags: ["z"])), ([2], nil), ([9], nil)])
      try reader.begin()
      tagged = []
      for tag in ["x", "y", "z"] {
        try reader.keys(store: "", tag: tag) {
          tagged.append($0[0]); return true
        }
      }
      #expect(tagged == [3])
      #expect(try Self.firstExpiry(reader) == nil)
      #expect(try reader.count() == 2)
      reader.end()
    }
  }

  @Test("a view does not change while it is open, and a map that grew is taken over")
  func views() throws {
    try Self.withFolder { folder in
      let environment = try LMDBEnvironment(path: folder, mapSize: 1 << 20)
      try Self.set(environment, [([1], try StateEntry.encoded([1]))])
      let reader = StateReader(environment)
      try reader.begin()
      try Self.set(environment, [([1], try StateEntry.encoded([2]))])
      let key = try StateKey([1]).bytes
      #expect(try reader.entry(key.unsafeBytes).map { Array($0) } == [0, 1])
      reader.end()
      try reader.begin()
      #expect(try reader.entry(key.unsafeBytes).map { Array($0) } == [0, 2])
      reader.end()
      let error = #expect(throws: StateError.self) {
        try Self.set(environment, [([2], try StateEntry.encoded([UInt8](repeating: 7, count: 2 << 20)))])
      }
      #expect(error?.code == .mapFull)
      try environment.setMapSize(1 << 23)
      try Self.set(environment, [([2], try StateEntry.encoded([UInt8](repeating: 7, count: 2 << 20)))])
      try reader.begin()
      #expect(try reader.count() == 2)
      reader.end()
      withExtendedLifetime(key) {}
    }
  }
}
