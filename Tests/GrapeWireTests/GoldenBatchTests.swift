import Foundation
import GrapeWire
import Testing

/// Batches made by kafka-python: see Golden/README.md.
struct GoldenCase: Decodable, Sendable, CustomTestStringConvertible {
  struct File: Decodable, Sendable {
    var file: String
    var codec: String
  }

  struct Header: Decodable, Sendable {
    var name: String
    var value: [UInt8]?

    init(from decoder: any Decoder) throws {
      var list = try decoder.unkeyedContainer()
      name = try list.decode(String.self)
      value = try list.decodeIfPresent(String.self).map { decode(hexadecimal: $0) }
    }
  }

  struct Content: Decodable, Sendable {
    var offset: Int64
    var timestamp: Int64
    var key: String?
    var value: String?
    var headers: [Header]
  }

  var name: String
  var files: [File]
  var baseOffset: Int64
  var baseTimestamp: Int64
  var maxTimestamp: Int64
  var records: [Content]

  var testDescription: String { name }

  static let all: [GoldenCase] = {
    struct List: Decodable { var cases: [GoldenCase] }
    do {
      let json = try Data(contentsOf: folder.appendingPathComponent("golden.json"))
      return try JSONDecoder().decode(List.self, from: json).cases
    } catch {
      preconditionFailure("golden.json: \(error)")
    }
  }()

  static let folder = Bundle.module.resourceURL!.appendingPathComponent("Golden")

  func bytes(codec: String) throws -> ByteSlice? {
    guard let file = files.first(where: { $0.codec == codec }) else { return nil }
    return ByteSlice([UInt8](try Data(contentsOf: Self.folder.appendingPathComponent(file.file))))
  }
}

private func decode(hexadecimal text: String) -> [UInt8] {
  let digits = Array(text.utf8).map { UInt8(Character(Unicode.Scalar($0)).hexDigitValue!) }
  return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
}

@Suite struct GoldenBatchTests {
  @Test func thereAreCasesOfBothCodecs() throws {
    #expect(GoldenCase.all.count >= 15)
    #expect(try GoldenCase.all.contains { try $0.bytes(codec: "zstd") != nil })
  }

  @Test(arguments: GoldenCase.all) func everyRecordIsRead(_ golden: GoldenCase) throws {
    for codec in ["none", "zstd"] {
      guard let batch = try golden.bytes(codec: codec) else { continue }
      let unpacked = try RecordBatch.unpack(batch, checkingCRC: true, limit: 64 << 20)
      #expect(unpacked.header.baseOffset == golden.baseOffset)
      #expect(unpacked.header.baseTimestamp == golden.baseTimestamp)
      #expect(unpacked.header.maxTimestamp == golden.maxTimestamp)
      #expect(unpacked.header.recordCount == Int32(golden.records.count))
      var reader = unpacked.reader()
      for expected in golden.records {
        let record = try #require(try reader.next())
        #expect(unpacked.header.baseOffset + Int64(record.offsetDelta) == expected.offset)
        #expect(unpacked.header.baseTimestamp + record.timestampDelta == expected.timestamp)
        #expect(record.key.map { [UInt8]($0) } == expected.key.map { decode(hexadecimal: $0) })
        #expect(record.value.map { [UInt8]($0) } == expected.value.map { decode(hexadecimal: $0) })
        var headers = record.headers
        for header in expected.headers {
          let found = try #require(try headers.next())
          #expect(String(decoding: found.name, as: UTF8.self) == header.name)
          #expect(found.value.map { [UInt8]($0) } == header.value)
        }
        #expect(try headers.next() == nil)
      }
      #expect(try reader.next() == nil)
      withExtendedLifetime(unpacked) {}
    }
  }

  @Test(arguments: GoldenCase.all) func theSameRecordsGiveTheSameBytes(_ golden: GoldenCase) throws {
    guard let expected = try golden.bytes(codec: "none") else { return }
    let mine = try build(golden, compressor: nil)
    mine.withUnsafeBytes {
      RecordBatch.setBaseOffset(golden.baseOffset, in: UnsafeMutableRawBufferPointer(mutating: $0))
    }
    #expect(mine.array == expected.array)
  }

  @Test(arguments: GoldenCase.all) func whatIsCompressedUnpacksToTheSameBytes(_ golden: GoldenCase) throws {
    let plain = try build(golden, compressor: nil)
    let packed = try build(golden, compressor: ZstdCompressor(level: 3))
    #expect(try RecordBatch.uncompressed(packed, limit: 64 << 20).array == plain.array)
    if let theirs = try golden.bytes(codec: "zstd") {
      theirs.withUnsafeBytes { RecordBatch.setBaseOffset(0, in: UnsafeMutableRawBufferPointer(mutating: $0)) }
      #expect(try RecordBatch.uncompressed(theirs, limit: 64 << 20).array == plain.array)
    }
  }

  /// What compaction may leave of a golden batch: kafka-python reads these files in `make test-golden`.
  ///
  /// With GRAPE_RECORD set the files are written anew.
  @Test(arguments: GoldenCase.all.filter { $0.records.count > 2 }, ["none", "zstd"])
  func filteredBatchesAreThoseThatAnIndependentReaderHasRead(_ golden: GoldenCase, codec: String) throws {
    guard let batch = try golden.bytes(codec: codec) else { return }
    guard
      case .batch(let filtered) = try RecordBatch.filtering(
        batch, checkingCRC: true, limit: 64 << 20, keeping: { $0.offsetDelta % 3 != 1 })
    else {
      Issue.record("nothing was left out, or everything")
      return
    }
    let name = "\(golden.name).\(codec).bin"
    if ProcessInfo.processInfo.environment["GRAPE_RECORD"] != nil {
      let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Golden/filtered")
      try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
      try Data(filtered.array).write(to: folder.appendingPathComponent(name))
    } else {
      let expected = ByteSlice(
        [UInt8](try Data(contentsOf: GoldenCase.folder.appendingPathComponent("filtered/" + name))))
      // Another version of zstd may pack otherwise.
      #expect(
        try RecordBatch.uncompressed(filtered, limit: 64 << 20)
          == RecordBatch.uncompressed(expected, limit: 64 << 20))
    }
  }

  private func build(_ golden: GoldenCase, compressor: ZstdCompressor?) throws -> ByteSlice {
    var builder = RecordBatchBuilder()
    for record in golden.records {
      var headers = HeaderSection()
      for header in record.headers {
        let (name, value) = (ByteSlice(header.name), header.value.map { ByteSlice($0) })
        name.withUnsafeBytes { headers.append($0, value?.unsafeBytes) }
        withExtendedLifetime(value) {}
      }
      let section = headers.finish()
      let key = record.key.map { ByteSlice(decode(hexadecimal: $0)) }
      let value = record.value.map { ByteSlice(decode(hexadecimal: $0)) }
      builder.append(
        key: key?.unsafeBytes, value: value?.unsafeBytes, headerSection: section.unsafeBytes,
        timestamp: record.timestamp)
      withExtendedLifetime((section, key, value)) {}
    }
    return try builder.take(compressor: compressor).bytes
  }
}
