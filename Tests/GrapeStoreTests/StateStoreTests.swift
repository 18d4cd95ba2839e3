import Foundation
import GrapeLog
import GrapeStore
import GrapeTestKit
import GrapeWire
import Testing

@Suite("State stores")
struct StateStoreTests {
  @Test("state in memory keeps every promise", arguments: StateStoreConformance.checks)
  func memory(check: StateStoreConformance.Check) throws {
    try check.run { MemoryStateStore() }
  }

  @Test("state in LMDB keeps every promise, with a map that must grow", arguments: StateStoreConformance.checks)
  func lmdb(check: StateStoreConformance.Check) throws {
    try withFolder { folder in
      let provider = try LMDBStateStoreProvider(root: folder, initialMapSize: 1 << 18)
      try check.run { try provider.create("app", partition: 0) }
    }
  }

  @Test("what was closed in order, or left by a kill, is there again; what a loss of power left is not")
  func trust() throws {
    try withFolder { folder in
      func set(_ store: any StateStore, _ value: UInt8) throws {
        let (key, entry) = (try StateKey([1]).bytes, try StateEntry.encoded([value]))
        try store.apply(
          [StateChange(key: key.unsafeBytes, entry: entry.unsafeBytes)],
          position: StatePosition(processed: 1, changelog: 1, lastOffset: 0, fingerprint: 0))
        withExtendedLifetime((key, entry)) {}
      }
      let boot = try LMDBStateStoreProvider(root: folder, boot: "one")
      try set(try boot.create("app", partition: 3), 7)
      // Not closed: as a kill leaves it. The store was let go of, as a process that ends does.
      let killed = try #require(try boot.open("app", partition: 3) { Issue.record("discarded: \($0)") })
      #expect(killed.position.changelog == 1)
      try killed.close()
      let later = try LMDBStateStoreProvider(root: folder, boot: "two")
      _ = try #require(try later.open("app", partition: 3) { Issue.record("discarded: \($0)") })
      var reasons: [String] = []
      let third = try LMDBStateStoreProvider(root: folder, boot: "three")
      #expect(try third.open("app", partition: 3) { reasons.append($0) } == nil)
      #expect(reasons.count == 1 && reasons[0].contains("machine went down"))
      #expect(try third.create("app", partition: 3).position == .start)
    }
  }

  @Test("of a batch of changelog records the last of each key counts, in order of keys")
  func changelog() throws {
    var builder = RecordBatchBuilder()
    for (key, value) in [("b", "1"), ("a", "2"), ("b", nil), ("c", "3"), ("a", "4")] as [(String, String?)] {
      builder.append(
        key: try StateKey(Array(key.utf8)).bytes, value: try value.map { try StateEntry.encoded(Array($0.utf8)) },
        headerSection: HeaderSection.empty, timestamp: 5)
    }
    let batch = try builder.take()
    let log = LogBatch(bytes: batch.bytes, baseOffset: 10, lastOffset: 14, maxTimestamp: 5)
    let read = try ChangelogBatches([log], from: .start, processed: 77, limit: 1 << 20)
    #expect(read.changes.map { $0.key[1] } == Array("abc".utf8))
    #expect(read.changes.map { $0.entry?.last } == [UInt8(ascii: "4"), nil, UInt8(ascii: "3")])
    #expect(read.position.changelog == 15 && read.position.lastOffset == 14 && read.position.processed == 77)
    var position = StatePosition.start
    position.changelog = 13
    let rest = try ChangelogBatches([log], from: position, processed: nil, limit: 1 << 20)
    #expect(rest.changes.map { $0.key[1] } == Array("ac".utf8))
  }
}
