import GrapeState
import GrapeWire
import Testing

@Suite("Formats of state")
struct StateFormatTests {
  @Test("a full key gives back store and key, and orders as they do")
  func fullKeys() throws {
    let key = try StateKey(store: "sessions", Array("a\u{0}b".utf8))
    #expect(key.store == "sessions")
    #expect(key.key.array == Array("a\u{0}b".utf8))
    #expect(try StateKey(full: key.bytes) == key)
    #expect(try StateKey([1]) < StateKey([1, 0]))
    #expect(try StateKey([255]) < StateKey(store: "a", [0]))
    let range = try StateKey.range(store: "a", prefix: [1, 255])
    #expect(range.contains(try StateKey(store: "a", [1, 255, 255]).bytes))
    #expect(!range.contains(try StateKey(store: "a", [2]).bytes))
    #expect(!range.contains(try StateKey(store: "a", [1, 254]).bytes))
  }

  @Test("what is no store, key, value or tag is refused")
  func refused() throws {
    for store in ["A", "1a", "a_b", String(repeating: "a", count: 31), "ä"] {
      #expect(throws: StateError.self) { try StateKey(store: store, [1]) }
    }
    #expect(throws: StateError.self) { try StateKey([]) }
    #expect(throws: StateError.self) { try StateKey([UInt8](repeating: 0, count: 481)) }
    #expect(
      try StateKey(store: String(repeating: "a", count: 30), [UInt8](repeating: 0, count: 480)).bytes.count == 511)
    for bytes: [UInt8] in [[], [0], [1], [1, 0x41, 1], [200, 1, 1], [1, 0xff, 1]] {
      #expect(throws: StateError.self) { try StateKey(full: ByteSlice(bytes)) }
    }
    #expect(throws: StateError.self) { try StateEntry.encoded([], tags: [""]) }
    #expect(throws: StateError.self) { try StateEntry.encoded([], tags: [String(repeating: "t", count: 64)]) }
    #expect(throws: StateError.self) { try StateEntry.encoded([], tags: (0..<17).map { "t\($0)" }) }
    for bytes: [UInt8] in [[], [4], [1, 0], [2], [2, 0], [2, 1, 5, 1], [2, 2, 1, 98, 1, 97], [2, 1, 1, 0xff]] {
      _ = bytes.withUnsafeBytes { bytes in
        #expect(throws: StateError.self) { try StateEntry(bytes) }
      }
    }
  }

  @Test("an entry gives back value, expiry and tags")
  func entries() throws {
    for (expiry, tags) in [(nil, []), (5, []), (nil, ["b", "a", "b"]), (Int64.max, ["ä", "z"])] as [(Int64?, [String])]
    {
      let bytes = try StateEntry.encoded([1, 2, 3], expiry: expiry, tags: tags)
      let entry = try StateEntry(bytes.unsafeBytes)
      #expect(Array(entry.value) == [1, 2, 3])
      #expect(entry.expiry == expiry)
      #expect(entry.tags == Set(tags).sorted())
      withExtendedLifetime(bytes) {}
    }
  }
}
