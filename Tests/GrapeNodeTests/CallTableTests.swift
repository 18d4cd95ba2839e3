import GrapeCore
import GrapeEngine
import GrapeLog
import GrapeReactor
import GrapeTestKit
import GrapeWire
import Logging
import Testing

@testable import GrapeNode

/// Replies that are told before they are in the log.
@Suite("Replies ahead of the log") struct CallTableTests {
  private let table: CallTable
  private let input = TopicPartition("app.events", 0)

  /// What a caller was told.
  private final class Caller {
    var told: [String] = []
    var isDone = false
  }

  init() throws {
    table = CallTable(
      topic: "replies", log: InMemoryEventLog(), reactor: try Reactor(), logger: Logger(label: "test"))
  }

  private func call(at offset: Int64?) -> (CorrelationID, Caller) {
    let caller = Caller()
    let id = table.open(timeoutMilliseconds: 60_000, wasDelivered: { true }) { reply in
      caller.told.append(reply.value.map { String(decoding: $0, as: UTF8.self) } ?? "")
      caller.isDone = reply.status.isFinal
    }!
    if let offset { table.placed(id, input, offset) }
    return (id, caller)
  }

  private func replies(
    _ some: [(call: CorrelationID, value: String, isFinal: Bool)], to topic: String = "replies"
  ) throws -> Transaction.Append {
    var builder = RecordBatchBuilder(capacity: 256)
    for reply in some {
      var headers = HeaderSection()
      headers.append(HeaderName.replyStatus, ReplyStatus(isFinal: reply.isFinal).encoded)
      builder.append(
        key: ByteSlice(reply.call.encoded), value: ByteSlice(reply.value), headerSection: headers.finish(), timestamp: 1
      )
    }
    let batch = try builder.take()
    return Transaction.Append(
      TopicPartition(topic, 0), batch: batch.bytes, maxTimestamp: batch.maxTimestamp, recordCount: batch.recordCount)
  }

  @Test func callsForTheseEventsHaveAllTheirRepliesAndHaveThemOnce() throws {
    let (first, one) = call(at: 7)
    let (second, two) = call(at: 8)
    let batch = try replies([(first, "a", false), (second, "x", true), (first, "b", true)])
    #expect(table.take(ahead: batch, of: LogRange(input, 7..<9)))
    #expect(one.told == ["a", "b"] && one.isDone)
    #expect(two.told == ["x"] && two.isDone)
    // As when they come by the topic.
    #expect(table.take(ahead: batch, of: LogRange(input, 7..<9)))
    #expect(one.told.count == 2 && two.told.count == 1)
  }

  @Test func aCallThatGoesOnWaitsForTheTopic() throws {
    let (id, caller) = call(at: 7)
    let (other, ended) = call(at: 8)
    #expect(!table.take(ahead: try replies([(id, "a", false), (other, "x", true)]), of: LogRange(input, 7..<9)))
    #expect(caller.told.isEmpty)
    #expect(ended.told == ["x"])
  }

  @Test(arguments: [nil, 6, 9] as [Int64?])
  func aReplyToAnEventOfALaterStageWaitsForTheTopic(offset: Int64?) throws {
    let (id, caller) = call(at: offset)
    #expect(!table.take(ahead: try replies([(id, "a", true)]), of: LogRange(input, 7..<9)))
    #expect(!table.take(ahead: try replies([(id, "a", true)]), of: LogRange(TopicPartition("app.events", 1), 0..<100)))
    #expect(caller.told.isEmpty)
  }

  @Test func whatIsForOthersIsNotToldAndHasNobodyWaitingHereOnlyIfItIsThisNodesTopic() throws {
    let (id, caller) = call(at: 7)
    #expect(!table.take(ahead: try replies([(id, "a", true)], to: "others"), of: LogRange(input, 7..<8)))
    #expect(caller.told.isEmpty)
    let guessed = CorrelationID(high: id.high &+ 1, low: id.low)
    #expect(table.take(ahead: try replies([(guessed, "a", true)]), of: LogRange(input, 7..<8)))
    #expect(caller.told.isEmpty)
    table.forget(id)
    #expect(table.take(ahead: try replies([(id, "a", true)]), of: LogRange(input, 7..<8)))
    #expect(caller.told.isEmpty)
  }
}
