import GrapeWire
import Testing

@Suite struct FilteringTests {
  private struct Item: Equatable {
    var offset: Int64
    var key: [UInt8]?
    var value: [UInt8]?
    var timestamp: Int64
    var headers: [UInt8]
  }

  private static let limit = 1 << 20

  private func build(_ items: [Item], base: Int64 = 0, compressor: ZstdCompressor? = nil) throws -> ByteSlice {
    var builder = RecordBatchBuilder()
    for item in items {
      builder.append(
        key: item.key.map { ByteSlice($0) }, value: item.value.map { ByteSlice($0) },
        headerSection: ByteSlice(item.headers), timestamp: item.timestamp)
    }
    let batch = try builder.take(compressor: compressor).bytes
    batch.withUnsafeBytes { RecordBatch.setBaseOffset(base, in: UnsafeMutableRawBufferPointer(mutating: $0)) }
    return batch
  }

  private func items(_ count: Int, base: Int64, using random: inout Seeded) -> [Item] {
    (0..<count).map { index in
      let bytes = { (limit: Int, random: inout Seeded) in
        (0..<Int.random(in: 0...limit, using: &random)).map { _ in UInt8.random(in: 97...102, using: &random) }
      }
      let hasHeader = Bool.random(using: &random)
      return Item(
        offset: base + Int64(index), key: Int.random(in: 0..<4, using: &random) == 0 ? nil : bytes(3, &random),
        value: Int.random(in: 0..<4, using: &random) == 0 ? nil : bytes(200, &random),
        timestamp: Int64.random(in: -100...1_000_000, using: &random), headers: hasHeader ? [2, 2, 0x78, 1] : [0])
    }
  }

  private func read(_ batch: ByteSlice) throws -> [Item] {
    let unpacked = try RecordBatch.unpack(batch, checkingCRC: true, limit: Self.limit)
    defer { withExtendedLifetime(unpacked) {} }
    var reader = unpacked.reader()
    var found: [Item] = []
    while let record = try reader.next() {
      found.append(
        Item(
          offset: unpacked.header.baseOffset + Int64(record.offsetDelta), key: record.key.map { [UInt8]($0) },
          value: record.value.map { [UInt8]($0) }, timestamp: unpacked.header.baseTimestamp + record.timestampDelta,
          headers: [UInt8](record.headerSection)))
    }
    return found
  }

  private func header(_ batch: ByteSlice) throws -> RecordBatchHeader {
    try RecordBatch.unpack(batch, checkingCRC: true, limit: Self.limit).header
  }

  @Test func whatIsKeptKeepsItsOffsetTimestampAndBytesAndTheBatchItsOffsets() throws {
    for seed in UInt64(1)...400 {
      var random = Seeded(seed: seed)
      let base = Int64.random(in: 0...(1 << 40), using: &random)
      let all = items(Int.random(in: 1...150, using: &random), base: base, using: &random)
      let packs = Bool.random(using: &random)
      let batch = try build(all, base: base, compressor: packs ? ZstdCompressor() : nil)
      let old = try header(batch)
      // From nothing to everything, often in runs.
      let rate = Double.random(in: -0.2...1.2, using: &random)
      var keeps = all.map { _ in Double.random(in: 0..<1, using: &random) < rate }
      if Bool.random(using: &random) { keeps = keeps.indices.map { keeps[$0 / 5 * 5] } }
      var visited = 0
      let result = try RecordBatch.filtering(batch, checkingCRC: true, limit: Self.limit) { record in
        let item = all[visited]
        #expect(record.offset == item.offset && record.offsetDelta == Int32(visited), "seed \(seed)")
        #expect(record.key.map { [UInt8]($0) } == item.key, "seed \(seed)")
        #expect(record.isTombstone == (item.value == nil) && record.timestamp == item.timestamp, "seed \(seed)")
        visited += 1
        return keeps[visited - 1]
      }
      #expect(visited == all.count, "seed \(seed)")
      let expected = zip(all, keeps).filter(\.1).map(\.0)
      switch result {
      case .unchanged: #expect(expected == all, "seed \(seed)")
      case .empty: #expect(expected.isEmpty, "seed \(seed)")
      case .batch(let filtered):
        #expect(!expected.isEmpty && expected.count < all.count, "seed \(seed)")
        #expect(try read(filtered) == expected, "seed \(seed)")
        var wanted = old
        wanted.recordCount = Int32(expected.count)
        wanted.maxTimestamp = expected.map(\.timestamp).max()!
        let new = try header(filtered)
        wanted.size = filtered.count
        wanted.crc = new.crc
        #expect(new == wanted, "seed \(seed)")
        if old.codec == 0 { #expect(filtered.count < batch.count, "seed \(seed)") }
      }
    }
  }

  @Test func aBatchCanBeFilteredAgainAndAgain() throws {
    for seed in UInt64(1)...100 {
      var random = Seeded(seed: seed)
      var left = items(60, base: 1000, using: &random)
      var batch = try build(left, base: 1000, compressor: seed % 2 == 0 ? ZstdCompressor() : nil)
      while !left.isEmpty {
        let gone = Set(left.filter { _ in Int.random(in: 0..<3, using: &random) == 0 }.map(\.offset))
        left.removeAll { gone.contains($0.offset) }
        switch try RecordBatch.filtering(
          batch, checkingCRC: true, limit: Self.limit, keeping: { !gone.contains($0.offset) })
        {
        case .unchanged: #expect(gone.isEmpty, "seed \(seed)")
        case .empty: #expect(left.isEmpty, "seed \(seed)")
        case .batch(let next):
          batch = next
          #expect(try read(batch) == left, "seed \(seed)")
          #expect(try header(batch).lastOffset == 1059, "seed \(seed)")
        }
      }
    }
  }

  @Test func anUncompressedBatchIsMadeOfTheBytesThatWereThere() throws {
    var random = Seeded(seed: 5)
    let all = items(9, base: 0, using: &random)
    let batch = try build(all)
    guard
      case .batch(let filtered) = try RecordBatch.filtering(
        batch, checkingCRC: true, limit: Self.limit, keeping: { $0.offset != 0 && $0.offset != 4 })
    else {
      Issue.record("not filtered")
      return
    }
    // Records differ in length only by what is in front: the first and the fifth are cut out of the old bytes.
    let first = try recordBytes(batch, 0)
    let fifth = try recordBytes(batch, 4)
    let bytes = batch.array
    let expected = bytes[first.upperBound..<fifth.lowerBound] + bytes[fifth.upperBound...]
    #expect(filtered.array[RecordBatch.headerSize...] == expected[...])
  }

  private func recordBytes(_ batch: ByteSlice, _ index: Int) throws -> Range<Int> {
    var reader = ByteReader(batch.unsafeBytes)
    _ = try reader.bytes(RecordBatch.headerSize)
    for _ in 0..<index { _ = try reader.bytes(Int(try reader.varint())) }
    let start = reader.position
    _ = try reader.bytes(Int(try reader.varint()))
    withExtendedLifetime(batch) {}
    return start..<reader.position
  }

  @Test func aPredicateMayRefuseTheBatch() throws {
    var random = Seeded(seed: 6)
    let batch = try build(items(3, base: 0, using: &random))
    #expect(throws: WireError.self) {
      try RecordBatch.filtering(batch, checkingCRC: true, limit: Self.limit) { record throws(WireError) in
        throw WireError(.unsupported, "\(record.offset)")
      }
    }
  }

  @Test func recordsThatDoNotAscendWithinTheBatchAreRefused() throws {
    var random = Seeded(seed: 7)
    let good = try build(items(3, base: 0, using: &random)).array
    // Last offset delta, big-endian, at byte 23: the third record lies behind it.
    var short = good
    short[26] = 1
    #expect(throws: WireError.self) {
      try RecordBatch.forEachKey(ByteSlice(short), checkingCRC: false, limit: Self.limit) { _ in }
    }
    // The second record's offset delta is that of the first.
    var twice = good
    let second = try recordBytes(ByteSlice(good), 1)
    let one = try #require(
      (second.lowerBound..<second.upperBound).first { place in
        var bytes = good
        bytes[place] = 0
        return (try? read(recomputed(bytes)).map(\.offset)) == [0, 0, 2]
      })
    twice[one] = 0
    #expect(throws: WireError.self) {
      try RecordBatch.forEachKey(ByteSlice(twice), checkingCRC: false, limit: Self.limit) { _ in }
    }
    #expect(throws: WireError.self) {
      try RecordBatch.filtering(ByteSlice(good), checkingCRC: true, limit: 3, keeping: { _ in true })
    }
  }

  private func recomputed(_ bytes: [UInt8]) -> ByteSlice {
    let batch = ByteSlice(bytes)
    RecordBatch.fillChecksum(UnsafeMutableRawBufferPointer(mutating: batch.unsafeBytes))
    return batch
  }

  @Test func offsetsWhoseSuccessorDoesNotExistAreRefused() throws {
    var random = Seeded(seed: 8)
    let all = items(3, base: 0, using: &random)
    let last = try build(all, base: Int64.max - 3)
    #expect(try header(last).lastOffset == Int64.max - 1)
    for base in [Int64.max - 2, Int64.max, -1, Int64.min] {
      let batch = try build(all, base: base)
      #expect(throws: WireError.self) { try RecordBatchHeader(batch.unsafeBytes) }
    }
  }
}
