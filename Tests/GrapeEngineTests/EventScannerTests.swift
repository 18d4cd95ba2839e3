import GrapeCore
import GrapeWire
import Testing

@testable import GrapeEngine

@Suite struct EventScannerTests {
  private let scanner = EventScanner(app: "shop", slots: ["order", "refund"], eventLimit: 1000, batchLimit: 100_000)

  private func batch(_ events: [(name: String?, value: Int)], extra: [(String, [UInt8])] = [], zstd: Bool = false)
    throws -> ByteSlice
  {
    var builder = RecordBatchBuilder()
    for event in events {
      var headers = HeaderSection()
      if let name = event.name { headers.append("g.e", Array(name.utf8)) }
      for (name, value) in extra { headers.append(name, value) }
      let value = ByteSlice([UInt8](repeating: 65, count: event.value))
      builder.append(key: nil, value: value, headerSection: headers.finish(), timestamp: 5)
    }
    return try builder.take(compressor: zstd ? ZstdCompressor() : nil).bytes
  }

  @Test(arguments: [false, true]) func countsEventsBySlot(zstd: Bool) throws {
    var counts = [0, 0]
    let bytes = try batch([("order", 300), ("order", 300), ("refund", 300), ("order", 300)], zstd: zstd)
    let header = try scanner.scan(bytes, from: .client, checkingCRC: true, counts: &counts)
    #expect(counts == [3, 1])
    #expect(header.recordCount == 4)
  }

  private func failure(_ bytes: ByteSlice, _ origin: EventScanner.Origin = .client) -> StatusError? {
    var counts = [0, 0]
    do throws(StatusError) {
      _ = try scanner.scan(bytes, from: origin, checkingCRC: true, counts: &counts)
      return nil
    } catch {
      #expect(counts == [0, 0], "a refused batch is not counted")
      return error
    }
  }

  @Test func refusesWhatNoSlotHandles() throws {
    let error = failure(try batch([("order", 1), ("return", 1)]))
    #expect(error?.status == .noSuchSlot)
    #expect(error?.message == "shop has no slot for event \"return\"; its slots are order, refund")
  }

  @Test func refusesEventsWithoutAName() throws { #expect(failure(try batch([(nil, 1)]))?.status == .badRequest) }

  @Test func refusesEventsThatAreTooLarge() throws {
    #expect(failure(try batch([("order", 1001)]))?.status == .tooLarge)
  }

  @Test func clientsMayNotSetTheNodesHeaders() throws {
    let address = ReplyAddress(correlation: CorrelationID(high: 1, low: 2), partition: 0, topic: "t").encoded
    let bytes = try batch([("order", 1)], extra: [("g.r", address)])
    #expect(failure(bytes)?.status == .badRequest)
    #expect(failure(bytes, .worker) == nil)
  }

  @Test func everySingleFlippedBitIsNoticed() throws {
    let good = try batch([("order", 20), ("refund", 20)]).array
    for bit in 0..<good.count * 8 where !(12 * 8..<16 * 8).contains(bit) {
      var bytes = good
      bytes[bit / 8] ^= 1 << UInt8(bit % 8)
      // The partition leader epoch (bytes 12 to 15) is nobody's before the batch is in a log.
      #expect(failure(ByteSlice(bytes)) != nil, "bit \(bit)")
    }
  }

  @Test func randomBytesNeverTrap() {
    for seed in UInt64(1)...2000 {
      var random = SeededGenerator(seed: seed)
      var bytes = (0..<Int.random(in: 0...200, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
      if bytes.count > 61 {
        // Past the length and magic, so that the records are reached.
        withUnsafeBytes(of: Int32(bytes.count - 12).bigEndian) { bytes.replaceSubrange(8..<12, with: $0) }
        bytes.replaceSubrange(0..<8, with: repeatElement(0, count: 8))
        bytes[16] = 2
        bytes.replaceSubrange(21..<23, with: [0, 0])
      }
      var counts = [0, 0]
      _ = try? scanner.scan(ByteSlice(bytes), from: .worker, checkingCRC: false, counts: &counts)
    }
  }
}
