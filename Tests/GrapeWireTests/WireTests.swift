import GrapeWire
import Testing

@Suite struct ChecksumTests {
  @Test func knownValues() {
    // RFC 3720, B.4, and the usual check value.
    #expect(checksum(Array("123456789".utf8)) == 0xe306_9283)
    #expect(checksum([UInt8](repeating: 0, count: 32)) == 0x8a91_36aa)
    #expect(checksum([UInt8](repeating: 0xff, count: 32)) == 0x62a8_ab43)
    #expect(checksum(Array(0..<32)) == 0x46dd_794e)
  }

  @Test func theInstructionAndTheTablesAgreeAtEverySizeAndAlignment() {
    var random = Seeded(seed: 11)
    let bytes = (0..<40_000).map { _ in UInt8.random(in: 0...255, using: &random) }
    bytes.withUnsafeBytes { bytes in
      for size in Array(0...300) + [767, 768, 769, 12_287, 12_288, 12_289, 30_000] {
        for start in 0..<9 {
          let part = UnsafeRawBufferPointer(rebasing: bytes[start..<start + size])
          #expect(CRC32C.checksum(part) == CRC32C.portableChecksum(part), "size \(size), start \(start)")
        }
      }
    }
  }

  @Test func aChecksumCanBeContinued() {
    let bytes = Array("the quick brown fox jumps over the lazy dog".utf8)
    for cut in 0...bytes.count {
      let first = checksum(Array(bytes[..<cut]))
      let whole = Array(bytes[cut...]).withUnsafeBytes { CRC32C.checksum($0, continuing: first) }
      #expect(whole == checksum(bytes))
    }
  }

  private func checksum(_ bytes: [UInt8]) -> UInt32 { bytes.withUnsafeBytes { CRC32C.checksum($0) } }
}

@Suite struct VarintTests {
  @Test func everyBoundaryComesBack() throws {
    var values: [Int64] = [0, -1, 1, .max, .min]
    for bits in 0..<63 { values += [1 << bits, (1 << bits) - 1, -(1 << bits), -(1 << bits) - 1] }
    for value in values {
      var writer = ByteWriter()
      writer.varint(value)
      #expect(writer.count == varintSize(value), "\(value)")
      let slice = writer.finish()
      var reader = ByteReader(slice.unsafeBytes)
      #expect(try reader.varint() == value)
      #expect(reader.remaining == 0)
      withExtendedLifetime(slice) {}
    }
  }

  @Test func anEndlessVarintIsRefused() {
    let bytes = [UInt8](repeating: 0xff, count: 20)
    let slice = ByteSlice(bytes)
    #expect(throws: WireError.self) {
      var reader = ByteReader(slice.unsafeBytes)
      _ = try reader.varint()
    }
  }
}

@Suite struct FrameTests {
  @Test func aHeaderComesBack() throws {
    var writer = ByteWriter()
    let start = writer.beginFrame(.deliver, flags: 3, id: 0x0102_0304_0506_0708)
    writer.string16("körper")
    writer.endFrame(start)
    #expect(Array(writer.unsafeBytes[0..<16]) == [0, 0, 0, 21, 0x30, 3, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
    let header = try #require(try FrameHeader(writer.unsafeBytes, limit: 100))
    #expect(header == FrameHeader(type: .deliver, flags: 3, id: 0x0102_0304_0506_0708, bodySize: 9))
  }

  @Test func lessThanAHeaderIsNotAnErrorYet() throws {
    for bytes: [UInt8] in [[], [0, 0, 0], [0, 0, 0, 12, 1, 0, 0]] {
      let slice = ByteSlice(bytes)
      let header = try FrameHeader(slice.unsafeBytes, limit: 100)
      #expect(header == nil)
      withExtendedLifetime(slice) {}
    }
  }

  @Test(arguments: [
    ([0, 0, 0, 11], WireError.Code.malformed),  // shorter than a header
    ([0, 0, 1, 0], .tooLarge),  // at the first four bytes already
    ([0, 0, 0, 12, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], .malformed),  // no such type
    ([0, 0, 0, 12, 1, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0], .malformed),  // reserved bytes
  ]) func badHeadersAreRefused(bytes: [UInt8], code: WireError.Code) {
    bytes.withUnsafeBytes { bytes in
      do throws(WireError) {
        _ = try FrameHeader(bytes, limit: 200)
        Issue.record("taken")
      } catch {
        #expect(error.code == code)
      }
    }
  }
}

@Suite struct RecordBatchTests {
  private func batch(values: [[UInt8]], compressor: ZstdCompressor? = nil) throws -> ByteSlice {
    var builder = RecordBatchBuilder()
    for (index, value) in values.enumerated() {
      let value = ByteSlice(value)
      builder.append(
        key: nil, value: value.unsafeBytes, headerSection: HeaderSection.empty.unsafeBytes,
        timestamp: 1000 + Int64(index))
      withExtendedLifetime(value) {}
    }
    return try builder.take(compressor: compressor).bytes
  }

  @Test func rollingBackForgetsRecordsAndNothingElse() throws {
    let (first, second) = (ByteSlice("first"), ByteSlice("second"))
    var builder = RecordBatchBuilder()
    builder.append(key: nil, value: first.unsafeBytes, headerSection: HeaderSection.empty.unsafeBytes, timestamp: 5)
    let mark = builder.mark
    builder.append(key: nil, value: second.unsafeBytes, headerSection: HeaderSection.empty.unsafeBytes, timestamp: 9)
    builder.rollBack(to: mark)
    let rolledBack = try builder.take()
    var plain = RecordBatchBuilder()
    plain.append(key: nil, value: first.unsafeBytes, headerSection: HeaderSection.empty.unsafeBytes, timestamp: 5)
    #expect(rolledBack.bytes == (try plain.take().bytes))
    #expect(rolledBack.maxTimestamp == 5)
    withExtendedLifetime((first, second)) {}
  }

  @Test func timestampsWhoseDifferenceCannotBeComputedAreRefused() throws {
    for (timestamps, isTaken) in [
      ([RecordBatch.timestamps.lowerBound, RecordBatch.timestamps.upperBound], true),
      ([RecordBatch.timestamps.lowerBound - 1], false), ([0, RecordBatch.timestamps.upperBound + 1], false),
      ([.min, .max], false), ([.max, .min], false), ([0, .max, .min], false),
    ] {
      var builder = RecordBatchBuilder()
      for timestamp in timestamps {
        builder.append(key: nil, value: nil, headerSection: HeaderSection.empty, timestamp: timestamp)
      }
      let batch = try builder.take().bytes
      let header = try? RecordBatch.validate(batch, checkingCRC: true, limit: 1000) { _ in }
      #expect((header != nil) == isTaken, "\(timestamps)")
    }
  }

  @Test func aBombIsRefusedBeforeItsMemoryIsTaken() throws {
    let bomb = try batch(values: [[UInt8](repeating: 0, count: 20 << 20)], compressor: ZstdCompressor())
    #expect(bomb.count < 10_000)
    do throws(WireError) {
      _ = try RecordBatch.unpack(bomb, checkingCRC: true, limit: 1 << 20)
      Issue.record("taken")
    } catch {
      #expect(error.code == .tooLarge)
    }
  }

  @Test func everyTruncationIsRefused() throws {
    for compressor in [nil, ZstdCompressor()] {
      let whole = try batch(values: [[UInt8](repeating: 7, count: 300), [1, 2]], compressor: compressor)
      for size in 0..<whole.count {
        #expect(throws: WireError.self, "\(size) bytes") {
          try RecordBatch.validate(whole[0..<size], checkingCRC: false, limit: 1 << 20) { _ in }
        }
      }
    }
  }

  @Test func aLengthThatLiesIsRefusedWithoutReadingBeyond() throws {
    for seed in UInt64(1)...3000 {
      var random = Seeded(seed: seed)
      var bytes = try batch(values: [[1, 2, 3], [], [UInt8](repeating: 9, count: 70)]).array
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        bytes[Int.random(in: RecordBatch.headerSize..<bytes.count, using: &random)] = UInt8.random(
          in: 0...255, using: &random)
      }
      // Whatever it is taken for, it must not trap or read outside.
      _ = try? RecordBatch.validate(ByteSlice(bytes), checkingCRC: false, limit: 1 << 20) { record in
        _ = record.value?.reduce(0) { $0 &+ Int($1) }
      }
    }
  }

  @Test func batchesOneAfterTheOtherAreSplit() throws {
    let (first, second) = (try batch(values: [[1]]), try batch(values: [[2], [3]]))
    let both = ByteSlice(first.array + second.array)
    #expect(try RecordBatch.split(both) == [first, second])
    #expect(throws: WireError.self) { try RecordBatch.split(both[0..<both.count - 1]) }
  }

  @Test(arguments: [Int32(-7), -1, 1, 2, 19])
  func aBuilderThatPacksGivesTheRecordsOfOneThatDoesNot(level: Int32) throws {
    let compressor = ZstdCompressor(level: level)
    #expect(compressor.level == level)
    var random = Seeded(seed: UInt64(bitPattern: Int64(level)))
    // One builder and one compressor for batches of all sizes: what is left of one must not show in the next.
    var builder = RecordBatchBuilder()
    for count in [1, 3000, 2, 100_000, 1, 40, 5000, 7] {
      var plain = RecordBatchBuilder()
      for number in 0..<count {
        let text = "{\"number\":\(number),\"kind\":\"kind-\(random.next() % 5)\"}"
        let value = ByteSlice(text)
        builder.append(key: nil, value: value, headerSection: HeaderSection.empty, timestamp: Int64(number))
        plain.append(key: nil, value: value, headerSection: HeaderSection.empty, timestamp: Int64(number))
      }
      let packed = try builder.take(compressor: compressor)
      let expected = try plain.take()
      #expect(builder.isEmpty && packed.recordCount == expected.recordCount)
      #expect(packed.maxTimestamp == expected.maxTimestamp)
      #expect(packed.bytes.count < expected.bytes.count || count < 3)
      let unpacked = try RecordBatch.uncompressed(packed.bytes, limit: 100 << 20)
      #expect(unpacked == expected.bytes, "\(count) records, level \(level)")
    }
  }

  @Test func whatABuilderHandsOutStaysAsItWas() throws {
    let compressor = ZstdCompressor()
    var builder = RecordBatchBuilder()
    var kept: [(bytes: ByteSlice, copy: [UInt8])] = []
    for round in UInt8(0)..<20 {
      for _ in 0..<50 {
        let value = ByteSlice([UInt8](repeating: round, count: 200))
        builder.append(key: nil, value: value, headerSection: HeaderSection.empty, timestamp: 1)
      }
      // Every third is not packed.
      let batch = try builder.take(compressor: round % 3 == 0 ? nil : compressor, nextCapacity: 12_000).bytes
      kept.append((batch, batch.array))
    }
    for batch in kept { #expect(batch.bytes.array == batch.copy) }
  }

  @Test func aLevelThatDoesNotExistIsTakenForTheNearest() {
    for (given, taken) in [(Int32(0), Int32(1)), (20, 19), (.max, 19), (-8, -7), (.min, -7), (-3, -3)] {
      #expect(ZstdCompressor(level: given).level == taken)
    }
  }

  @Test func streamedZstdOfUnknownSizeIsUnpacked() throws {
    // Two frames, one after the other: what a streaming producer may send.
    let compressor = ZstdCompressor()
    let parts = [[UInt8](repeating: 3, count: 5000), [UInt8](repeating: 4, count: 100)]
    var packed: [UInt8] = []
    for part in parts { packed += try part.withUnsafeBytes { try compressor.compress($0).array } }
    let unpacked = try packed.withUnsafeBytes { try Zstd.decompress($0, limit: 10_000) }
    #expect(unpacked.array == parts.flatMap { $0 })
    #expect(throws: WireError.self) { try packed.withUnsafeBytes { try Zstd.decompress($0, limit: 5050) } }
  }
}

/// SplitMix64: repeatable from its seed.
struct Seeded: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var value = state
    value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
    return value ^ (value >> 31)
  }
}
