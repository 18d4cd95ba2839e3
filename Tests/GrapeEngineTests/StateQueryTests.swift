import GrapeCore
import GrapeStore
import GrapeWire
import Testing

@testable import GrapeEngine

/// Questions to the node that has a partition come to what asking it there does.
@Suite("Questions about state") struct StateQueryTests {
  private let store = MemoryStateStore()

  init() throws {
    let entries = try (0..<500).map { number in
      (
        try StateKey(Array("key \(number)".utf8)).bytes,
        try StateEntry.encoded([UInt8](repeating: UInt8(number % 256), count: number * 11))
      )
    }.sorted { $0.0 < $1.0 }
    for (key, entry) in entries {
      try key.withUnsafeBytes { key in
        try entry.withUnsafeBytes { try store.apply([StateChange(key: key, entry: $0)], position: .start) }
      }
    }
  }

  private func json(_ text: String) throws -> JSONValue {
    try Array(text.utf8).withUnsafeBytes { try JSONValue(parsing: $0) }
  }

  private func answer(_ question: ByteSlice, now: Int64) throws -> ByteSlice? {
    try question.withUnsafeBytes { try StateQuery.answer($0, on: nil, partition: 0, now: now) }
  }

  /// All of an answer, page by page.
  private func pages(
    _ request: JSONValue, _ page: (StateQuery) throws -> StateListing
  ) throws -> (entries: [JSONValue], values: [UInt8], pages: Int) {
    var (entries, values, count): ([JSONValue], [UInt8], Int) = ([], [], 0)
    var query = try StateQuery(request)
    while true {
      let listing = try page(query)
      let json = listing.json(next: nil)
      entries += json["entries"]?.array ?? []
      values += listing.values.array
      count += 1
      guard let next = json["next"], next != .null else { return (entries, values, count) }
      query = try StateQuery(request)
      try query.resume(next)
    }
  }

  @Test(arguments: [
    #"{}"#, #"{"limit": 7}"#, #"{"prefix": "key 4", "descending": true, "limit": 10}"#,
    #"{"keysOnly": true, "limit": 33}"#,
    #"{"start": "key 2", "end": "key 3"}"#, #"{"key": "key 77"}"#, #"{"key": "none"}"#,
    #"{"allStores": true, "limit": 100}"#,
    #"{"store": "other"}"#,
  ])
  func theSameAsWhereThePartitionIs(text: String) throws {
    let request = try json(text)
    let here = try pages(request) { query in
      try store.withView { (view) throws(StateError) in try query.run(on: view, partition: 3, from: StateListing()) }
    }
    let asked = try pages(request) { query in
      let question = try query.question(for: StateListing(), until: 1_000)
      #expect(question.withUnsafeBytes { StateQuery.isQuestion($0) })
      var answer: ByteSlice?
      var failure: StatusError?
      try store.withView { (view) throws(StateError) in
        do throws(StatusError) {
          answer = try StateQuery.answer(question.unsafeBytes, on: view, partition: 3, now: 999)
        } catch { failure = error }
      }
      withExtendedLifetime(question) {}
      #expect(failure == nil)
      var listing = StateListing()
      try listing.add(answer: try #require(answer), partition: 3)
      return listing
    }
    #expect(here.entries == asked.entries)
    #expect(here.values == asked.values)
    #expect(here.pages == asked.pages)
  }

  @Test func nobodyIsAnsweredWhoDoesNotWaitAnyMore() throws {
    let question = try StateQuery(try json("{}")).question(for: StateListing(), until: 1_000)
    #expect(try answer(question, now: 1_000) == nil)
    #expect(try answer(question, now: 999) != nil)
  }

  @Test(arguments: [
    "", "{", "[]", #"{"untilMs": 2000, "limit": 0}"#, #"{"untilMs": 2000, "key": "a", "tags": "b"}"#,
    #"{"untilMs": 2000, "keyHex": "abc"}"#,
  ])
  func whatIsNoQuestionIsRefused(text: String) throws {
    let question = ByteSlice([StateQuery.mark] + Array(text.utf8))
    switch Result(catching: { try answer(question, now: 1_000) }) {
    case .success(let answer): #expect(answer == nil, "a question without an end is answered to nobody")
    case .failure(let error): #expect((error as? StatusError)?.status == .badRequest)
    }
  }

  @Test func anAnswerThatIsNoneIsAnError() {
    for bytes in [[], [0, 0, 0, 9, 1], [0, 0, 0, 1, 0x7b]] as [[UInt8]] {
      var listing = StateListing()
      #expect(throws: StatusError.self) { try listing.add(answer: ByteSlice(bytes), partition: 0) }
    }
  }
}
