internal import GrapeCore
internal import GrapeWire

/// The body of a RESULT frame (docs/protocol.md).
struct WorkerResult {
  struct Verdict {
    enum Kind: UInt8 { case rejected = 1, retry = 2, expired = 3, failed = 4 }
    var offset: Int64
    var kind: Kind
    var code: Int32
    var delayMilliseconds: UInt32
    var message: String
  }

  struct Tally {
    var slot: Int
    var succeeded: Int
    var failed: Int
    var nanoseconds: UInt64
  }

  struct Output {
    var topic: String
    var partition: Int32
    var batch: ByteSlice
  }

  var processed: Int64
  var verdicts: [Verdict] = []
  var tallies: [Tally] = []
  var outputs: [Output] = []

  /// Reads the frame and holds it against the delivery it answers: offsets `first ..< end`, slots `0 ..< slots`.
  init(_ body: ByteSlice, first: Int64, end: Int64, slots: Int) throws(WireError) {
    var reader = ByteReader(body.unsafeBytes)
    processed = try reader.i64()
    guard processed >= first, processed <= end else {
      throw WireError(.malformed, "processed is \(processed), the delivery was \(first) up to \(end)")
    }
    let verdictCount = Int(try reader.u32())
    guard verdictCount <= reader.remaining / 22 else {
      throw WireError(.malformed, "\(verdictCount) verdicts in \(reader.remaining) bytes")
    }
    var previous = first - 1
    for _ in 0..<verdictCount {
      let offset = try reader.i64()
      let kindByte = try reader.u8()
      _ = try reader.bytes(3)
      guard let kind = Verdict.Kind(rawValue: kindByte) else {
        throw WireError(.malformed, "verdict \(kindByte): 1 to 4 is legal")
      }
      guard offset > previous, offset < end, offset <= processed else {
        throw WireError(.malformed, "a verdict on offset \(offset) behind one on \(previous), processed \(processed)")
      }
      previous = offset
      verdicts.append(
        Verdict(
          offset: offset, kind: kind, code: try reader.i32(), delayMilliseconds: try reader.u32(),
          message: try reader.string16()))
    }
    // Short of the end either at an event to be run again, or after some progress because the outputs have grown large.
    if processed < end {
      let stopsAtEvent =
        verdicts.last.map { $0.offset == processed && ($0.kind == .failed || $0.kind == .retry) } ?? false
      guard stopsAtEvent || processed > first else {
        throw WireError(
          .malformed, "nothing of \(first) up to \(end) is processed, without a verdict failed or retry on \(first)")
      }
    }
    let tallyCount = Int(try reader.u16())
    for _ in 0..<tallyCount {
      let slot = Int(try reader.u16())
      guard slot < slots else { throw WireError(.malformed, "tally for slot \(slot) of \(slots)") }
      tallies.append(
        Tally(
          slot: slot, succeeded: Int(try reader.u32()), failed: Int(try reader.u32()), nanoseconds: try reader.u64()))
    }
    let outputCount = Int(try reader.u32())
    guard outputCount <= reader.remaining / 10 else {
      throw WireError(.malformed, "\(outputCount) outputs in \(reader.remaining) bytes")
    }
    for _ in 0..<outputCount {
      let topic = try reader.string16()
      let partition = try reader.i32()
      let size = Int(try reader.u32())
      let start = reader.position
      _ = try reader.bytes(size)
      outputs.append(Output(topic: topic, partition: partition, batch: body[start..<start + size]))
    }
    guard reader.remaining == 0 else { throw WireError(.malformed, "\(reader.remaining) bytes behind the last output") }
  }

  /// The event that must be run again, if any.
  var unfinished: Verdict? { verdicts.last.flatMap { $0.offset == processed ? $0 : nil } }
}
