internal import GrapeWire

/// The body of a DELIVER frame.
struct Delivery {
  var id: UInt64
  var partition: Int32
  var attempt: UInt32
  /// Records below it are not run.
  var first: Int64
  /// Records at or above it are not run.
  var end: Int64
  /// Offsets in between that are not run either, ascending.
  var skips: [Int64]
  var batches: [ByteSlice]
}

extension Delivery {
  /// Reads the frame.
  init(id: UInt64, body: ByteSlice) throws(WireError) {
    var reader = ByteReader(body.unsafeBytes)
    let partition = try reader.i32()
    let attempt = try reader.u32()
    let first = try reader.i64()
    let end = try reader.i64()
    guard partition >= 0, first >= 0, end >= first else {
      throw WireError(.malformed, "a delivery of partition \(partition), offsets \(first) to \(end)")
    }
    let count = Int(try reader.u32())
    guard count <= reader.remaining / 8 else {
      throw WireError(.truncated, "\(count) offsets to skip, \(reader.remaining) bytes are left")
    }
    var skips: [Int64] = []
    skips.reserveCapacity(count)
    for _ in 0..<count { skips.append(try reader.i64()) }
    if !zip(skips, skips.dropFirst()).allSatisfy({ $0 < $1 }) { skips.sort() }
    self.init(
      id: id, partition: partition, attempt: attempt, first: first, end: end, skips: skips,
      batches: try RecordBatch.split(body[reader.position..<body.count]))
  }
}
