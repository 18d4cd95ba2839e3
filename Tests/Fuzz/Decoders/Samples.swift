import GrapeCore
import GrapeWire

/// Good values, from which seeds are made.
enum Sample {
  /// A batch of events for the slots `a` and `b`, with the headers that events may have.
  static func batch(_ count: Int = 5, zstd: Bool = false) throws -> ByteSlice {
    var builder = RecordBatchBuilder()
    for number in 0..<count {
      var headers = HeaderSection()
      headers.append(HeaderName.event, Array((number % 2 == 0 ? "a" : "b").utf8))
      if number % 3 == 1 { headers.append(deadline: Int64.max) }
      if number % 3 == 2 {
        headers.append(HeaderName.hops, [3])
        headers.append("own", Array("value".utf8))
      }
      builder.append(
        key: number % 2 == 0 ? ByteSlice("k\(number)") : nil,
        value: number % 4 == 3 ? nil : ByteSlice("value \(number)"),
        headerSection: headers.finish(), timestamp: 1_000 + Int64(number) * 7)
    }
    return try builder.take(compressor: zstd ? ZstdCompressor() : nil).bytes
  }

  /// A batch from which compaction has taken something.
  static func batchWithGaps() throws -> ByteSlice {
    let batch = try batch(40)
    guard
      case .batch(let filtered) = try RecordBatch.filtering(
        batch, checkingCRC: true, limit: 1 << 20, keeping: { $0.offsetDelta % 3 == 1 })
    else { throw BrokenPromise(description: "the sample is not filtered") }
    return filtered
  }

  /// A frame's bytes without its header.
  static func body(_ frame: ByteSlice) -> [UInt8] { Array(frame.array.dropFirst(FrameHeader.size)) }

  static func written(_ body: (inout ByteWriter) throws -> Void) rethrows -> [UInt8] {
    var writer = ByteWriter()
    try body(&writer)
    return writer.finish().array
  }
}
