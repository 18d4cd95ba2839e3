import GrapeWire
import Testing

@testable import GrapeEngine

@Suite struct WorkerResultTests {
  private func frame(
    processed: Int64, verdicts: [(Int64, UInt8)] = [], tallies: [(UInt16, UInt32)] = [],
    outputs: [(String, [UInt8])] = []
  ) -> ByteSlice {
    var writer = ByteWriter()
    writer.i64(processed)
    writer.u32(UInt32(verdicts.count))
    for (offset, kind) in verdicts {
      writer.i64(offset)
      writer.u8(kind)
      writer.bytes([0, 0, 0])
      writer.i32(7)
      writer.u32(0)
      writer.string16("why")
    }
    writer.u16(UInt16(tallies.count))
    for (slot, succeeded) in tallies {
      writer.u16(slot)
      writer.u32(succeeded)
      writer.u32(0)
      writer.u64(1)
    }
    writer.u32(UInt32(outputs.count))
    for (topic, batch) in outputs {
      writer.string16(topic)
      writer.i32(0)
      writer.u32(UInt32(batch.count))
      writer.bytes(batch)
    }
    return writer.finish()
  }

  private func parse(_ body: ByteSlice) throws -> WorkerResult { try WorkerResult(body, first: 10, end: 20, slots: 2) }

  @Test func aWholeResultIsRead() throws {
    let result = try parse(
      frame(processed: 20, verdicts: [(12, 1), (15, 3)], tallies: [(1, 8)], outputs: [("t.events", [1, 2, 3])]))
    #expect(result.processed == 20)
    #expect(result.verdicts.map(\.offset) == [12, 15])
    #expect(result.unfinished == nil)
    #expect(result.tallies.first?.succeeded == 8)
    #expect(result.outputs.first?.batch.array == [1, 2, 3])
  }

  @Test func anEventToBeRunAgainEndsTheResult() throws {
    #expect(try parse(frame(processed: 13, verdicts: [(13, 4)])).unfinished?.code == 7)
    #expect(try parse(frame(processed: 10, verdicts: [(10, 2)])).unfinished?.offset == 10)
  }

  @Test func anEarlyEndAfterProgressNeedsNoVerdict() throws {
    #expect(try parse(frame(processed: 15)).unfinished == nil)
  }

  private struct Case: Sendable {
    var why: String
    var processed: Int64
    var verdicts: [(Int64, UInt8)]
  }

  @Test func whatBreaksTheRulesIsRefused() {
    let cases = [
      Case(why: "nothing done, no reason given", processed: 10, verdicts: []),
      Case(why: "beyond the delivery", processed: 21, verdicts: []),
      Case(why: "before the delivery", processed: 9, verdicts: []),
      Case(why: "no such verdict", processed: 20, verdicts: [(12, 9)]),
      Case(why: "out of order", processed: 20, verdicts: [(15, 1), (12, 1)]),
      Case(why: "beyond what was processed", processed: 15, verdicts: [(17, 1)]),
    ]
    for broken in cases {
      #expect(throws: WireError.self, "\(broken.why)") {
        try parse(frame(processed: broken.processed, verdicts: broken.verdicts))
      }
    }
  }

  @Test func unknownSlotsAreRefused() {
    #expect(throws: WireError.self) { try parse(frame(processed: 20, tallies: [(2, 1)])) }
  }

  @Test func everyTruncationIsRefused() {
    let whole = frame(processed: 20, verdicts: [(12, 1)], tallies: [(0, 1)], outputs: [("t", [1, 2, 3])])
    for size in 0..<whole.count { #expect(throws: WireError.self) { try parse(whole[0..<size]) } }
  }
}
