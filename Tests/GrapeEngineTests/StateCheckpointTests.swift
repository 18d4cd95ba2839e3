import Foundation
import GrapeLog
import GrapeReactor
import GrapeStore
import GrapeTestKit
import GrapeWire
import Synchronization
import Testing

@testable import GrapeEngine

@Suite("Checkpoints of state")
struct StateCheckpointTests {
  static let changelog = StateKeeperTests.changelog

  /// A keeper that makes checkpoints, over a folder and a log.
  final class Fixture {
    let base: StateKeeperTests.Fixture
    private let checkpoints: AsyncStream<StateError?>

    init(folder: String, log: InMemoryEventLog, boot: String, bytes: Int = 20_000) throws {
      let (stream, continuation) = AsyncStream.makeStream(of: StateError?.self)
      checkpoints = stream
      let copies = try Reactor()
      try startThread(name: "copies") { copies.run() }
      base = try StateKeeperTests.Fixture(
        folder: folder, log: log, boot: boot, copies: copies, checkpointBytes: bytes
      ) { continuation.yield($1) }
    }

    /// Waits for the next checkpoint; nil: it was made.
    func checkpoint() async -> StateError? {
      for await error in checkpoints { return error }
      return nil
    }
  }

  static func values(_ round: Int, _ keys: Range<Int>) -> [(String, String?)] {
    keys.map { ("key-\($0)", "\(round) " + String(repeating: "v", count: 300)) }
  }

  /// Fills a changelog until a checkpoint is made, then goes on a little; as a loss of power leaves it. Tells what the state is then.
  static func prepare(_ folder: String, _ log: InMemoryEventLog) async throws -> [String] {
    let first = try Fixture(folder: folder, log: log, boot: "one")
    try await first.base.open()
    try await first.base.write(values(0, 0..<100), processed: 1)
    #expect(await first.checkpoint() == nil)
    try await first.base.write(values(1, 50..<60) + [("key-3", nil)], processed: 2)
    let expected = try await first.base.contents().entries
    await first.base.end(inOrder: false)
    return expected
  }

  @Test("after a loss of power the state is made of its checkpoint, and only the tail is read")
  func tail() async throws {
    try await StateKeeperTests.withFixture { folder, log in
      let expected = try await Self.prepare(folder, log)
      // The first half of the changelog is gone: nobody needs it.
      try await log.deleteRecords(of: Self.changelog, before: 50)
      let second = try Fixture(folder: folder, log: log, boot: "two")
      try await second.base.open(processed: 2)
      let found = try await second.base.contents()
      #expect(found.entries == expected)
      #expect(found.position.changelog == 111 && found.position.processed == 2)
      let notes = second.base.notes.all
      #expect(notes.count == 2 && notes[0].contains("machine went down"), "\(notes)")
      #expect(notes.last?.contains("its checkpoint, which stands at 100") == true, "\(notes)")
      await second.base.end()
    }
  }

  @Test("a checkpoint whose last record was compacted away is known again by what is left")
  func compacted() async throws {
    try await StateKeeperTests.withFixture { folder, log in
      try await StateKeeperTests.commit(Self.values(0, 0..<80), to: log)
      try await StateKeeperTests.commit(Self.values(0, 80..<90), to: log)
      let first = try Fixture(folder: folder, log: log, boot: "one")
      try await first.base.open()
      #expect(await first.checkpoint() == nil)
      try await first.base.write(Self.values(1, 80..<90), processed: 2)
      let expected = try await first.base.contents().entries
      await first.base.end(inOrder: false)
      log.compactAway(85, of: Self.changelog)
      // The whole changelog would not give the state any more.
      try await log.deleteRecords(of: Self.changelog, before: 40)
      let second = try Fixture(folder: folder, log: log, boot: "two")
      try await second.base.open(processed: 2)
      #expect(try await second.base.contents().entries == expected)
      #expect(second.base.notes.all.last?.contains("its checkpoint") == true, "\(second.base.notes.all)")
      await second.base.end()
    }
  }

  @Test(
    "a checkpoint that cannot be trusted is not used: the state is made of the whole changelog",
    arguments: ["damaged", "cut", "garbage", "old", "future", "other"])
  func untrusted(how: String) async throws {
    try await StateKeeperTests.withFixture { folder, log in
      let expected = try await Self.prepare(folder, log)
      let path = folder + "/app/0.checkpoint"
      let url = URL(filePath: path)
      var bytes = try Data(contentsOf: url)
      switch how {
      case "damaged":
        for place in stride(from: 9000, to: bytes.count, by: 500) { bytes[place] ^= 0x20 }
        try bytes.write(to: url)
      case "cut": try bytes.prefix(bytes.count / 2).write(to: url)
      case "garbage": try Data(repeating: 7, count: 100_000).write(to: url)
      case "old", "future":
        try FileManager.default.moveItem(atPath: path, toPath: path + ".moved")
        let store = try LMDBStateStoreProvider(root: folder + "/other").create("app", partition: 0)
        try StateCopy.scan(path + ".moved", from: ByteSlice([])) { (key, entry) throws(StateError) in
          try store.apply(
            [StateChange(key: key, entry: entry)], position: try StateCopy.check(path + ".moved").position)
          return true
        }
        let now = Int64(Date().timeIntervalSince1970 * 1000)
        try StateCopy.write(
          try store.snapshot(), to: path, taken: how == "old" ? now - 13 * 3_600_000 : now + 3_600_000)
        try store.close()
      default:
        try FileManager.default.removeItem(atPath: folder + "/app")
        let stranger = InMemoryEventLog()
        try await stranger.createTopic("app.state", configuration: TopicConfiguration(partitions: 1, cleanup: .compact))
        let fixture = try Fixture(folder: folder, log: stranger, boot: "one")
        try await fixture.base.open()
        try await fixture.base.write(Self.values(9, 0..<100), processed: 1)
        #expect(await fixture.checkpoint() == nil)
        await fixture.base.end(inOrder: false)
      }
      let second = try Fixture(folder: folder, log: log, boot: "two", bytes: 1 << 30)
      try await second.base.open(processed: 2)
      let found = try await second.base.contents()
      #expect(found.entries == expected)
      #expect(found.position.changelog == 111)
      let notes = second.base.notes.all
      #expect(notes.contains { $0.contains("checkpoint cannot be used") }, "\(notes)")
      #expect(!FileManager.default.fileExists(atPath: path))
      await second.base.end()
    }
  }

  @Test("what a death in the midst of making a checkpoint left does no harm, and the one before it holds")
  func killed() async throws {
    try await StateKeeperTests.withFixture { folder, log in
      let expected = try await Self.prepare(folder, log)
      try await log.deleteRecords(of: Self.changelog, before: 50)
      let half = try Data(contentsOf: URL(filePath: folder + "/app/0.checkpoint")).prefix(9000)
      try half.write(to: URL(filePath: folder + "/app/0.checkpoint.new"))
      let second = try Fixture(folder: folder, log: log, boot: "two")
      try await second.base.open(processed: 2)
      #expect(try await second.base.contents().entries == expected)
      #expect(!FileManager.default.fileExists(atPath: folder + "/app/0.checkpoint.new"))
      // And again, from the same checkpoint.
      await second.base.end(inOrder: false)
      let third = try Fixture(folder: folder, log: log, boot: "three")
      try await third.base.open(processed: 2)
      #expect(try await third.base.contents().entries == expected)
      await third.base.end()
    }
  }

  @Test("a checkpoint is made when as much was written as it takes, and not while little was")
  func due() async throws {
    try await StateKeeperTests.withFixture { folder, log in
      let fixture = try Fixture(folder: folder, log: log, boot: "one", bytes: 1_000_000)
      try await fixture.base.open()
      for round in 0..<20 { try await fixture.base.write(Self.values(round, 0..<100), processed: 1) }
      #expect(!FileManager.default.fileExists(atPath: folder + "/app/0.checkpoint"))
      for round in 0..<20 { try await fixture.base.write(Self.values(round, 0..<100), processed: 1) }
      #expect(await fixture.checkpoint() == nil)
      let content = try StateCopy.check(folder + "/app/0.checkpoint")
      #expect(content.position.changelog > 2900 && content.entries == 100)
      await fixture.base.end()
    }
  }
}
