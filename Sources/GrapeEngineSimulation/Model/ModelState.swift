import GrapeState
import GrapeWire

/// What one partition of an application has come to.
struct ModelPartition {
  /// Entries by full key.
  var state: [[UInt8]: [UInt8]] = [:]
  /// All events below are dealt with.
  var processed = 0
  /// What the offset's commit notes beside it.
  var notes = AttemptNotes()
  /// All writes from outside below are dealt with.
  var writesDone = 0
  var changelogEnd = 0
  /// The input topic, and that of writes from outside: everything that was ever appended.
  var events: [LoggedRecord] = []
  var writes: [LoggedRecord] = []
}

/// All of it, as of some moment in the order of commits.
struct ModelState {
  var partitions: [[ModelPartition]]
  var replies: [LoggedRecord] = []
  /// By application.
  var deadLetters: [[LoggedRecord]]

  init(apps: Int, partitions: Int) {
    self.partitions = .init(repeating: .init(repeating: ModelPartition(), count: partitions), count: apps)
    deadLetters = .init(repeating: [], count: apps)
  }
}

/// The notes of docs/data-format.md that go with an offset: who is suspected, and how often the head has failed.
struct AttemptNotes: Hashable {
  var suspectEnd = 0
  var head = -1
  var failures = 0

  init() {}

  init?(_ bytes: [UInt8]) {
    if bytes.isEmpty { return }
    guard bytes.count == 21, bytes[0] == 1 else { return nil }
    func number(_ range: Range<Int>) -> Int { bytes[range].reduce(0) { $0 << 8 | Int($1) } }
    suspectEnd = number(1..<9)
    head = Int(Int64(bitPattern: UInt64(bytes[9..<17].reduce(0) { UInt64($0) << 8 | UInt64($1) })))
    failures = number(17..<21)
  }
}

/// Entries, read and made without the code under test.
enum ModelEntry {
  static func value(_ entry: [UInt8]?) -> [UInt8]? {
    guard let entry else { return nil }
    return Array(entry[headerSize(entry)...])
  }

  static func expiry(_ entry: [UInt8]) -> Int64? {
    entry[0] & 1 == 0 ? nil : entry[1..<9].reduce(0) { $0 << 8 | Int64($1) }
  }

  static func isTagged(_ entry: [UInt8]) -> Bool { entry[0] & 2 != 0 }

  static func make(_ value: [UInt8], expiry: Int64? = nil, tag: String? = nil) -> [UInt8] {
    var bytes: [UInt8] = [(expiry == nil ? 0 : 1) | (tag == nil ? 0 : 2)]
    if let expiry { for shift in stride(from: 56, through: 0, by: -8) { bytes.append(UInt8(expiry >> shift & 0xff)) } }
    if let tag { bytes += [1, UInt8(tag.utf8.count)] + Array(tag.utf8) }
    return bytes + value
  }

  static func headerSize(_ entry: [UInt8]) -> Int {
    var size = 1
    if entry[0] & 1 != 0 { size += 8 }
    if entry[0] & 2 != 0 {
      let count = Int(entry[size])
      size += 1
      for _ in 0..<count { size += 1 + Int(entry[size]) }
    }
    return size
  }

  static func fullKey(store: String, _ key: String) -> [UInt8] {
    [UInt8(store.utf8.count)] + Array(store.utf8) + Array(key.utf8)
  }

  static func fullKey(_ key: Int) -> [UInt8] {
    let name = StateName.name(key)
    return fullKey(store: name.store, name.key)
  }
}
