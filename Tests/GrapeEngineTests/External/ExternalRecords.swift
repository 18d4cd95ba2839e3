import GrapeCore
import GrapeLog
import GrapeWire

@testable import GrapeEngine

/// A record as a test writes it or finds it.
struct TestRecord: Equatable {
  var key: [UInt8]?
  var value: [UInt8]?
  var headers: [TestHeader] = []
  var timestamp: Int64 = 1_700_000_000_000

  init(_ value: String?, key: String? = nil, _ headers: [TestHeader] = [], timestamp: Int64 = 1_700_000_000_000) {
    self.key = key.map { Array($0.utf8) }
    self.value = value.map { Array($0.utf8) }
    self.headers = headers
    self.timestamp = timestamp
  }

  func header(_ name: String) -> [UInt8]? { headers.first { $0.name == Array(name.utf8) }?.value }
  func text(_ name: String) -> String? { header(name).map { String(decoding: $0, as: UTF8.self) } }
  var valueText: String? { value.map { String(decoding: $0, as: UTF8.self) } }
}

struct TestHeader: Equatable {
  var name: [UInt8]
  var value: [UInt8]?

  init(_ name: String, _ value: String?) {
    self.name = Array(name.utf8)
    self.value = value.map { Array($0.utf8) }
  }

  init(name: [UInt8], value: [UInt8]?) {
    self.name = name
    self.value = value
  }
}

enum TestBatches {
  /// One batch of these records; `sections` takes the place of a record's headers by its number.
  static func pack(_ records: [TestRecord], sections: [Int: [UInt8]] = [:], level: Int32? = nil) throws -> FinishedBatch
  {
    var builder = RecordBatchBuilder()
    for (number, record) in records.enumerated() {
      var headers = HeaderSection()
      for header in record.headers {
        header.name.withUnsafeBytes { name in
          if let value = header.value {
            value.withUnsafeBytes { headers.append(name, $0) }
          } else {
            headers.append(name, nil)
          }
        }
      }
      let section = headers.finish()
      builder.append(
        key: record.key.map { ByteSlice($0) }, value: record.value.map { ByteSlice($0) },
        headerSection: sections[number].map { ByteSlice($0) } ?? section, timestamp: record.timestamp)
    }
    return try builder.take(compressor: level.map { ZstdCompressor(level: $0) })
  }

  /// The batch as a log hands it out.
  static func placed(_ batch: FinishedBatch, at base: Int64) -> LogBatch {
    let copy = ByteSlice(copying: batch.bytes.unsafeBytes)
    RecordBatch.setBaseOffset(
      base, in: UnsafeMutableRawBufferPointer(start: copy.storage.base + copy.offset, count: copy.count))
    return LogBatch(
      bytes: copy, baseOffset: base, lastOffset: base + Int64(batch.recordCount) - 1, maxTimestamp: batch.maxTimestamp)
  }

  static func unpack(_ batch: ByteSlice) throws -> [TestRecord] {
    let unpacked = try RecordBatch.unpack(batch, checkingCRC: true, limit: 1 << 26)
    var reader = unpacked.reader()
    var records: [TestRecord] = []
    while let record = try reader.next() {
      var found = TestRecord(nil, timestamp: unpacked.header.baseTimestamp + record.timestampDelta)
      found.key = record.key.map { [UInt8]($0) }
      found.value = record.value.map { [UInt8]($0) }
      var headers = record.headers
      while let (name, value) = try headers.next() {
        found.headers.append(TestHeader(name: [UInt8](name), value: value.map { [UInt8]($0) }))
      }
      records.append(found)
    }
    withExtendedLifetime(unpacked) {}
    return records
  }
}

extension SourceRules {
  static func test(
    key: [UInt8]? = nil, partitions: Int32 = 3, eventLimit: Int = 100_000, compression: BatchCompression = .none
  ) -> SourceRules {
    SourceRules(
      place: TopicPartition("orders", 2), slot: Array("order".utf8), keyHeader: key, eventsTopic: "shop.events",
      partitions: partitions, deadLettersTopic: "shop.dead", version: "v1", eventLimit: eventLimit,
      batchLimit: 1 << 26, compression: compression)
  }
}
