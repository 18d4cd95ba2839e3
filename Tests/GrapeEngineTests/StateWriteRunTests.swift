import GrapeStore
import GrapeWire
import Testing

@testable import GrapeEngine

@Suite("Writes of state from outside")
struct StateWriteRunTests {
  private func write(
    _ operation: StateWrite.Operation, _ key: String, _ value: String? = nil, expected: String? = nil
  ) throws -> StateWrite {
    StateWrite(
      operation, key: try StateKey(Array(key.utf8)), entry: try value.map { try StateEntry.encoded(Array($0.utf8)) },
      expected: expected.map { ByteSlice($0) })
  }

  /// Keys and values, `-` for what is removed, in the order of the changes.
  private func changes(_ run: StateWriteRun) throws -> [String] {
    try run.changes.map { key, entry in
      let value = try entry.map { entry in
        try entry.withUnsafeBytes { String(decoding: try StateEntry($0).value, as: UTF8.self) }
      }
      return "\(try StateKey(full: key).key.string)=\(value ?? "-")"
    }
  }

  @Test("each write sees those before it")
  func order() throws {
    var run = StateWriteRun(nil)
    let outcomes = try run.run(record: [
      write(.put, "a", "1"), write(.append, "a", "23"), write(.compareAndSet, "a", "x", expected: "1"),
      write(.compareAndSet, "a", "4", expected: "123"), write(.put, "b", "5"), write(.remove, "b"),
      write(.compareAndSet, "c", "6"), write(.compareAndSet, "c", "7"),
    ])
    #expect(outcomes.map(\.result) == [.done, .done, .refused, .done, .done, .done, .done, .refused])
    #expect(outcomes.map(\.size) == [1, 3, 3, 1, 1, -1, 1, 1])
    #expect(try changes(run) == ["a=4", "b=-", "c=6"])
  }

  @Test("a record that comes to too much changes nothing; those before and behind it are done")
  func limit() throws {
    var run = StateWriteRun(nil, recordLimit: 1000)
    let large = String(repeating: "x", count: 400)
    _ = try run.run(record: [write(.put, "a", "1"), write(.put, "b", large)])
    let bytes = run.byteCount
    // Little by itself, and much with what is there.
    #expect(throws: StateError.self) {
      try run.run(record: [
        write(.remove, "a"), write(.append, "b", "1"), write(.put, "c", "1"), write(.append, "b", "2"),
        write(.append, "b", "3"),
      ])
    }
    #expect(run.byteCount == bytes)
    #expect(try changes(run) == ["a=1", "b=\(large)"])
    _ = try run.run(record: [write(.put, "a", "2"), write(.remove, "d")])
    #expect(try changes(run) == ["a=2", "b=\(large)", "d=-"])
    #expect(throws: Never.self) { try run.run(record: [write(.put, "e", large + large + large)]) }
  }
}
