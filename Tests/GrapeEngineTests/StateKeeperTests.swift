import Foundation
import GrapeLog
import GrapeReactor
import GrapeStore
import GrapeTestKit
import GrapeWire
import Synchronization
import Testing

@testable import GrapeEngine

@Suite("State follows its changelog")
struct StateKeeperTests {
  static let changelog = TopicPartition("app.state", 0)

  /// A keeper over a folder and a log, with its thread.
  final class Fixture {
    let log: InMemoryEventLog
    let keeper: StateKeeper
    let notes = Notes()

    init(
      folder: String, log: InMemoryEventLog, boot: String = "boot", mapSize: Int = 1 << 20, copies: Reactor? = nil,
      checkpointBytes: Int = 1 << 30,
      checkpointed: @escaping @Sendable (TopicPartition, StateError?) -> Void = { _, _ in }
    ) throws {
      self.log = log
      let thread = try Reactor()
      try startThread(name: "state") { thread.run() }
      keeper = StateKeeper(
        provider: try LMDBStateStoreProvider(root: folder, initialMapSize: mapSize, boot: boot), log: log,
        thread: thread, batchLimit: 1 << 26, copies: copies, checkpointBytes: checkpointBytes,
        checkpointed: checkpointed)
    }

    func open(processed: Int64 = 0) async throws {
      try await withCheckedThrowingContinuation { continuation in
        keeper.open(
          "app", changelog: StateKeeperTests.changelog, processed: processed, note: { [notes] in notes.add($0) },
          progress: { _, _ in }, completion: { continuation.resume(with: $0.map { _ in () }) })
      }
    }

    /// Commits changes to the changelog, and has them applied if `applying`.
    func write(
      _ changes: [(String, String?)], processed: Int64, applying: Bool = true, age: Double = 0
    ) async throws {
      let (batch, base) = try await StateKeeperTests.commit(changes, to: log, age: age)
      guard applying else { return }
      try await withCheckedThrowingContinuation { continuation in
        keeper.apply(
          [
            LogBatch(
              bytes: batch.bytes, baseOffset: base, lastOffset: base + Int64(batch.recordCount) - 1, maxTimestamp: 1)
          ], to: StateKeeperTests.changelog, processed: processed
        ) { continuation.resume(with: $0.map { _ in () }) }
      }
    }

    func contents() async throws -> (entries: [String], position: StatePosition) {
      try await withCheckedThrowingContinuation { continuation in
        keeper.read(
          StateKeeperTests.changelog,
          { (view, position) throws(StateError) in
            var found: [String] = []
            try view?.scan(try StateKey.range(store: ""), descending: false) { (key, entry) throws(StateError) in
              found.append(
                String(decoding: key[1...], as: UTF8.self) + "="
                  + String(decoding: try StateEntry(entry).value, as: UTF8.self))
              return true
            }
            return (found, position)
          }, completion: { continuation.resume(with: $0.mapError { $0 as any Error }) })
      }
    }

    /// Ends it; in order or as a kill does, which closes nothing.
    func end(inOrder: Bool = true) async {
      if inOrder {
        _ = await withCheckedContinuation { continuation in keeper.close { continuation.resume(returning: $0) } }
      }
      keeper.stop()
    }
  }

  /// Commits changes to the changelog.
  @discardableResult
  static func commit(
    _ changes: [(String, String?)], to log: InMemoryEventLog, age: Double = 0
  ) async throws -> (batch: FinishedBatch, base: Int64) {
    var builder = RecordBatchBuilder()
    let timestamp = Int64((Date().timeIntervalSince1970 - age) * 1000)
    for (key, value) in changes {
      builder.append(
        key: try StateKey(Array(key.utf8)).bytes, value: try value.map { try StateEntry.encoded(Array($0.utf8)) },
        headerSection: HeaderSection.empty, timestamp: timestamp)
    }
    let batch = try builder.take()
    let receipt = try await log.commit(
      Transaction(appends: [
        .init(changelog, batch: batch.bytes, maxTimestamp: timestamp, recordCount: batch.recordCount)
      ]))
    return (batch, receipt.baseOffsets[0])
  }

  final class Notes: Sendable {
    private let texts = Mutex<[String]>([])
    func add(_ text: String) { texts.withLock { $0.append(text) } }
    var all: [String] { texts.withLock { $0 } }
  }

  static func withFixture(_ body: (String, InMemoryEventLog) async throws -> Void) async throws {
    let folder = NSTemporaryDirectory() + "grape-keeper-\(UInt64.random(in: 0 ... .max))"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let log = InMemoryEventLog()
    try await log.createTopic("app.state", configuration: TopicConfiguration(partitions: 1, cleanup: .compact))
    try await body(folder, log)
  }

  @Test("a store that lacks what is old is made anew, as removals may have been dropped", arguments: [1.0, 13])
  func oldTail(hours: Double) async throws {
    try await Self.withFixture { folder, log in
      let first = try Fixture(folder: folder, log: log)
      try await first.open()
      try await first.write([("a", "1"), ("b", "1")], processed: 1, age: hours * 3600 + 1)
      await first.end()
      try await Self.commit([("c", "1")], to: log, age: hours * 3600)
      try await Self.commit([("d", "1")], to: log)
      let second = try Fixture(folder: folder, log: log)
      try await second.open(processed: 1)
      #expect(try await second.contents().entries == ["a=1", "b=1", "c=1", "d=1"])
      let isAnew = second.notes.all.contains { $0.contains("older than 12 hours") }
      #expect(isAnew == (hours > 12))
      await second.end()
    }
  }

  @Test("what was applied is there after a stop, and what was only committed is taken from the changelog")
  func tail() async throws {
    try await Self.withFixture { folder, log in
      let first = try Fixture(folder: folder, log: log)
      try await first.open()
      #expect(try await first.contents().entries == [])
      try await first.write([("a", "1"), ("b", "1")], processed: 2)
      try await first.write([("b", nil), ("c", "3")], processed: 4, applying: false)
      await first.end()
      let second = try Fixture(folder: folder, log: log)
      try await second.open(processed: 4)
      let found = try await second.contents()
      #expect(found.entries == ["a=1", "c=3"])
      #expect(found.position.processed == 4)
      #expect(found.position.changelog == 4)
      #expect(second.notes.all == [])
      await second.end()
    }
  }

  @Test(
    "a store that is damaged, of another changelog, or lost with the machine is made anew, and says so",
    arguments: ["garbage", "truncated", "other", "power", "removed"])
  func rebuilt(how: String) async throws {
    try await Self.withFixture { folder, log in
      let first = try Fixture(folder: folder, log: log)
      try await first.open()
      for round in 0..<20 {
        try await first.write((0..<50).map { ("key-\($0)", "\(round)") }, processed: Int64(round))
      }
      let expected = try await first.contents().entries
      let data = URL(filePath: folder + "/app/0/data.mdb")
      var boot = "boot"
      await first.end()
      switch how {
      case "garbage":
        var bytes = try Data(contentsOf: data)
        for place in stride(from: 9000, to: bytes.count, by: 100) { bytes[place] ^= 0x5a }
        try bytes.write(to: data)
      case "truncated": try Data(contentsOf: data).prefix(8192 + 4096).write(to: data)
      case "removed": try FileManager.default.removeItem(at: data)
      case "power":
        let owner = URL(filePath: folder + "/app/0/owner")
        let note = String(decoding: try Data(contentsOf: owner), as: UTF8.self)
        try note.replacingOccurrences(of: "closed", with: "open").write(to: owner, atomically: true, encoding: .utf8)
        boot = "another"
      default:
        // The store of another changelog, which has as many records.
        let other = InMemoryEventLog()
        try await other.createTopic("app.state", configuration: TopicConfiguration(partitions: 1, cleanup: .compact))
        try FileManager.default.removeItem(atPath: folder + "/app")
        let stranger = try Fixture(folder: folder, log: other)
        try await stranger.open()
        for round in 0..<20 { try await stranger.write((0..<50).map { ("key-\($0)", "x\(round)") }, processed: 1) }
        await stranger.end()
      }
      let second = try Fixture(folder: folder, log: log, boot: boot)
      try await second.open(processed: 20)
      let found = try await second.contents()
      #expect(found.entries == expected)
      #expect(found.position.changelog == 1000)
      #expect(second.notes.all.count == 1, "\(second.notes.all)")
      await second.end()
    }
  }

  @Test(
    "random changes, stops, kills and losses of power: the state is always what the changelog says", arguments: 1...20)
  func random(seed: UInt64) async throws {
    try await Self.withFixture { folder, log in
      var random = SeededGenerator(seed: seed)
      var model: [String: String] = [:]
      var boot = 0
      var processed: Int64 = 0
      for _ in 0..<8 {
        let fixture = try Fixture(folder: folder, log: log, boot: "\(boot)", mapSize: 1 << 18)
        try await fixture.open(processed: processed)
        let expected = model.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        #expect(try await fixture.contents().entries == expected, "seed \(seed)")
        #expect(try await fixture.contents().position.processed == processed, "seed \(seed)")
        var applying = true
        for _ in 0..<random.next() % 12 {
          let changes = (0..<1 + random.next() % 60).map { _ in
            (
              "k\(random.next() % 200)",
              random.next() % 4 == 0
                ? nil : String(repeating: "v", count: Int(random.next() % 3000)) + "\(random.next())"
            )
          }
          for (key, value) in changes { model[key] = value }
          processed += Int64(random.next() % 5)
          // Once something was committed and not applied, nothing later may be.
          if random.next() % 5 == 0 { applying = false }
          try await fixture.write(changes, processed: processed, applying: applying)
        }
        switch random.next() % 3 {
        case 0: await fixture.end()
        case 1: await fixture.end(inOrder: false)
        default:
          await fixture.end(inOrder: false)
          boot += 1
        }
      }
    }
  }
}
