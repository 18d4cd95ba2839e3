import Glibc
import GrapeLog
import GrapeWire

/// What is appended.
enum Batches {
  /// The record batches that `Benchmarks/limits/append` has written to a file: the same bytes as that program appends.
  static func load(_ path: String) -> [FinishedBatch] {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { fail("\(path): \(String(cString: strerror(errno)))") }
    defer { close(file) }
    let size = Int(lseek(file, 0, SEEK_END))
    let storage = ByteStorage(capacity: size)
    guard size > 0, pread(file, storage.base, size, 0) == size else { fail("\(path) cannot be read") }
    do {
      return try RecordBatch.split(ByteSlice(storage: storage, offset: 0, count: size)).map { bytes in
        let header = try RecordBatch.validate(bytes, checkingCRC: true, limit: size) { _ in }
        return FinishedBatch(bytes: bytes, recordCount: header.recordCount, maxTimestamp: header.maxTimestamp)
      }
    } catch {
      fail("\(path): \(error)")
    }
  }

  /// One record in a batch of exactly 256 bytes.
  static func small() -> FinishedBatch {
    var value = [UInt8](repeating: 120, count: 100)
    while true {
      var builder = RecordBatchBuilder(capacity: 512)
      builder.append(key: nil, value: ByteSlice(value), headerSection: HeaderSection.empty, timestamp: 1)
      if builder.byteCount >= 256 { return finish(&builder) }
      value.append(120)
    }
  }

  static func finish(_ builder: inout RecordBatchBuilder, _ compressor: ZstdCompressor? = nil) -> FinishedBatch {
    do throws(WireError) {
      return try builder.take(compressor: compressor, nextCapacity: builder.byteCount)
    } catch {
      fail("\(error)")
    }
  }
}

/// Events as shops send them: about 200 bytes of JSON with identifiers, times and prices that do not repeat, and names
/// that do.
struct OrderEvents {
  private var random: UInt64
  private var milliseconds: Int64 = 1_700_000_000_000
  private static let cities = [
    "Berlin", "Bremen", "Dresden", "Erfurt", "Essen", "Hamburg", "Hannover", "Kiel", "Leipzig", "Mainz", "Rostock",
    "Stuttgart",
  ]
  private static let kinds = ["order.created", "order.paid", "order.packed", "order.shipped", "order.returned"]
  private static let digits = Array("0123456789abcdef".utf8)

  init(seed: UInt64) { random = seed }

  /// SplitMix64.
  private mutating func draw() -> UInt64 {
    random &+= 0x9e37_79b9_7f4a_7c15
    var value = random
    value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
    return value ^ (value >> 31)
  }

  private mutating func hexadecimal() -> String {
    var value = draw()
    var text: [UInt8] = []
    for _ in 0..<16 {
      text.append(Self.digits[Int(value & 15)])
      value >>= 4
    }
    return String(decoding: text, as: UTF8.self)
  }

  mutating func next() -> [UInt8] {
    milliseconds += Int64(draw() % 40)
    let kind = Self.kinds[Int(draw() % UInt64(Self.kinds.count))]
    let city = Self.cities[Int(draw() % UInt64(Self.cities.count))]
    let price = draw() % 50_000
    return Array(
      """
      {"id":"\(hexadecimal())","type":"\(kind)","time":\(milliseconds),"customer":\(draw() % 200_000),\
      "item":{"sku":"SKU-\(draw() % 30_000)","count":\(draw() % 5 + 1),"price":\(price / 100).\(price % 100)},\
      "city":"\(city)","currency":"EUR","express":\(draw() % 8 == 0)}
      """.utf8)
  }
}
