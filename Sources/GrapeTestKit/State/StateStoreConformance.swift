public import GrapeStore
internal import GrapeWire

/// The tests that each `StateStore` must pass, whatever it keeps its entries in.
///
/// ```swift
/// @Test(arguments: StateStoreConformance.checks)
/// func conforms(check: StateStoreConformance.Check) throws { try check.run { try MyStore() } }
/// ```
public enum StateStoreConformance {
  /// One promise, and how it is tried.
  public struct Check: Sendable, CustomStringConvertible {
    /// The promise.
    public let name: String
    let body: @Sendable (any StateStore) throws -> Void

    public var description: String { name }

    /// Tries it on a new, empty store. Throws `ConformanceFailure` if it is not kept.
    public func run(_ make: () throws -> any StateStore) throws {
      let store = try make()
      try body(store)
      try store.close()
    }
  }

  /// What was expected, and what came.
  public struct ConformanceFailure: Error, CustomStringConvertible {
    public var description: String
  }

  /// All of them.
  public static let checks: [Check] = [
    Check(name: "a new store is empty and stands at the start") { store in
      try expect(store.position == .start, "position \(store.position)")
      try expect(try all(store).isEmpty, "it has entries")
    },
    Check(name: "what is applied is there with its position, once and in order") { store in
      let position = StatePosition(processed: 3, changelog: 9, lastOffset: 8, fingerprint: 7)
      try apply([("b", "2"), ("a", "1"), ("c", nil)], to: store, position)
      try expect(store.position == position, "position \(store.position)")
      try expect(try all(store) == ["a=1", "b=2"], "\(try all(store))")
      try apply([("a", "9"), ("b", nil)], to: store, position)
      try expect(try all(store) == ["a=9"], "\(try all(store))")
    },
    Check(name: "a scan keeps to its range, in both directions, and ends when it is told") { store in
      try apply((0..<50).map { (format($0), "\($0)") }, to: store, .start)
      let range = try StateKey(Array("10".utf8)).bytes..<(try StateKey(Array("20".utf8)).bytes)
      for descending in [false, true] {
        var found: [String] = []
        try store.withView { (view) throws(StateError) in
          try view.scan(range, descending: descending) { (_, entry) throws(StateError) in
            found.append(String(decoding: try StateEntry(entry).value, as: UTF8.self))
            return found.count < 7
          }
        }
        let expected = descending ? (13...19).reversed().map { "\($0)" } : (10...16).map { "\($0)" }
        try expect(found == expected, "\(found)")
      }
    },
    Check(name: "stores of one name do not see those of another") { store in
      try apply([("k", "plain")], to: store, .start)
      try apply([("k", "own")], in: "a", to: store, .start)
      try expect(try all(store) == ["k=plain"], "\(try all(store))")
      try expect(try all(store, in: "a") == ["k=own"], "\(try all(store, in: "a"))")
      try expect(try all(store, in: "ab").isEmpty, "store ab is not empty")
    },
    Check(name: "tags and expiries follow their entries") { store in
      try set("x", value: "1", expiry: 50, tags: ["red", "blue"], in: store)
      try set("y", value: "2", expiry: 40, tags: ["red"], in: store)
      try expect(try tagged(store, ["red"]) == ["x", "y"], "\(try tagged(store, ["red"]))")
      try expect(try tagged(store, ["red"], from: "y") == ["y"], "\(try tagged(store, ["red"], from: "y"))")
      try expect(try tagged(store, ["red"], from: "xa") == ["y"], "\(try tagged(store, ["red"], from: "xa"))")
      try expect(try tagged(store, ["blue", "red"]) == ["x"], "\(try tagged(store, ["blue", "red"]))")
      try expect(try firstExpiry(store) == 40, "\(String(describing: try firstExpiry(store)))")
      try set("y", value: "3", expiry: nil, tags: [], in: store)
      try set("x", value: "4", expiry: 60, tags: ["blue"], in: store)
      try expect(try tagged(store, ["red"]).isEmpty, "\(try tagged(store, ["red"]))")
      try expect(try firstExpiry(store) == 60, "\(String(describing: try firstExpiry(store)))")
      try apply([("x", nil)], to: store, .start)
      try expect(try firstExpiry(store) == nil, "an expiry is left")
      try expect(try tagged(store, ["blue"]).isEmpty, "a tag is left")
      try expect(try store.verify().isEmpty, "\(try store.verify())")
    },
    Check(name: "values of all sizes come back") { store in
      for size in [0, 1, 2000, 4096, 100_000, 5_000_000] {
        let value = [UInt8](repeating: UInt8(truncatingIfNeeded: size), count: size)
        let key = try StateKey([1, 2, 3]).bytes
        let entry = try StateEntry.encoded(value)
        try store.apply([StateChange(key: key.unsafeBytes, entry: entry.unsafeBytes)], position: .start)
        let read = try store.withView { (view) throws(StateError) in
          try view.entry(key.unsafeBytes).map { (entry) throws(StateError) in Array(try StateEntry(entry).value) }
        }
        try expect(read == value, "a value of \(size) bytes came back with \(String(describing: read?.count))")
        withExtendedLifetime((key, entry)) {}
      }
    },
    Check(name: "a snapshot stays what it was while the store changes, on another thread, too") { store in
      let position = StatePosition(processed: 3, changelog: 9, lastOffset: 8, fingerprint: 7)
      try apply((0..<50).map { (format($0), "old") }, to: store, position)
      let snapshot: any StateSnapshot
      do throws(StateError) { snapshot = try store.snapshot() } catch {
        try expect(error.code == .unavailable, "\(error)")
        return
      }
      for round in 0..<40 {
        try apply((0..<100).map { (format($0), String(repeating: "new\(round)", count: 200)) }, to: store, .start)
      }
      try expect(snapshot.position == position, "position \(snapshot.position)")
      try expect(snapshot.count == 50, "\(snapshot.count) entries")
      try expect(try snapshot.problems().isEmpty, "\(try snapshot.problems())")
      for first in ["", "07", "07a", "49", "5"] {
        var found: [String] = []
        let from = first.isEmpty ? ByteSlice([]) : try StateKey(Array(first.utf8)).bytes
        try snapshot.scan(from: from) { (key, entry) throws(StateError) in
          let value = String(decoding: try StateEntry(entry).value, as: UTF8.self)
          found.append(String(decoding: key[try StateKey.split(key)...], as: UTF8.self) + "=" + value)
          return found.count < 30
        }
        let expected = (0..<50).map { format($0) }.filter { $0 >= first }.prefix(30).map { $0 + "=old" }
        try expect(found == Array(expected), "from \(first): \(found)")
      }
      snapshot.end()
      snapshot.end()
      try expect(try all(store).count == 100, "the store lost entries")
    },
  ]

  private static func format(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }

  private static func expect(_ condition: Bool, _ message: @autoclosure () throws -> String) throws {
    if !condition { throw ConformanceFailure(description: try message()) }
  }

  private static func apply(
    _ entries: [(String, String?)], in name: String = "", to store: any StateStore, _ position: StatePosition
  ) throws {
    var changes: [(key: StateKey, entry: ByteSlice?)] = []
    for (key, value) in entries {
      let entry = try value.map { try StateEntry.encoded(Array($0.utf8)) }
      changes.append((try StateKey(store: name, Array(key.utf8)), entry))
    }
    changes.sort { $0.key < $1.key }
    try store.apply(
      changes.map { StateChange(key: $0.key.bytes.unsafeBytes, entry: $0.entry?.unsafeBytes) }, position: position)
    withExtendedLifetime(changes) {}
  }

  private static func set(
    _ key: String, value: String, expiry: Int64?, tags: [String], in store: any StateStore
  ) throws {
    let full = try StateKey(Array(key.utf8)).bytes
    let entry = try StateEntry.encoded(Array(value.utf8), expiry: expiry, tags: tags)
    try store.apply([StateChange(key: full.unsafeBytes, entry: entry.unsafeBytes)], position: .start)
    withExtendedLifetime((full, entry)) {}
  }

  private static func all(_ store: any StateStore, in name: String = "") throws -> [String] {
    try store.withView { (view) throws(StateError) in
      var found: [String] = []
      try view.scan(try StateKey.range(store: name), descending: false) { (key, entry) throws(StateError) in
        let value = String(decoding: try StateEntry(entry).value, as: UTF8.self)
        found.append(String(decoding: key[try StateKey.split(key)...], as: UTF8.self) + "=" + value)
        return true
      }
      return found
    }
  }

  private static func tagged(_ store: any StateStore, _ tags: [String], from first: String = "") throws -> [String] {
    let start = ByteSlice(first)
    return try store.withView { (view) throws(StateError) in
      var found: [String] = []
      try view.keys(store: "", tags: tags, from: start.unsafeBytes) { key in
        found.append(String(decoding: key, as: UTF8.self))
        return true
      }
      withExtendedLifetime(start) {}
      return found
    }
  }

  private static func firstExpiry(_ store: any StateStore) throws -> Int64? {
    try store.withView { (view) throws(StateError) in try view.firstExpiry() }
  }
}
