import GrapeCore
import GrapeWire

@testable import Grape
@testable import GrapeEngine
@testable import GrapeNode

extension FuzzTarget {
  /// The header of a frame, from either side.
  static let frame = FuzzTarget("frame") {
    [
      ClientFrame.hello(agent: "seed").array, ClientFrame.cancel(id: 7).array,
      ClientFrame.fetch(topic: "t", partition: 0, offset: -2, maxBytes: 1, waitMilliseconds: 0, id: 1).array,
    ]
  } body: { bytes in
    for limit in [FrameHeader.openingLimit, FrameHeader.defaultLimit] {
      guard let header = try taken({ try FrameHeader(bytes.unsafeBytes, limit: limit) }), let header else { continue }
      try promise(header.bodySize >= 0 && header.bodySize + FrameHeader.size <= limit, "\(header) beyond the limit")
      let again = Sample.written { header.write(to: &$0) }
      try promise(again.elementsEqual(bytes.unsafeBytes.prefix(FrameHeader.size)), "another header than was read")
    }
  }

  /// Bodies of what clients send. The first byte says which.
  static let clientRequests = FuzzTarget("client-requests") {
    let event = OutgoingEvent(
      "flights@raw", key: ByteSlice("k"), value: ByteSlice("v"),
      headers: [.init("own", ByteSlice("1")), .init("x", nil)])
    let append = ClientFrame.append(
      app: "flights", batches: [(0, try Sample.batch()), (-1, try Sample.batch(2))], durability: .disk, id: 1)
    return [
      [0]
        + Sample.body(
          ClientFrame.exec(event, id: 1, durability: .disk, blocking: true, timeoutMilliseconds: 1_000)),
      [1] + append.flatMap(\.array).dropFirst(FrameHeader.size),
      [2]
        + Sample.body(
          ClientFrame.fetch(topic: "t", partition: 1, offset: 5, maxBytes: 1 << 20, waitMilliseconds: 9, id: 1)),
      [3]
        + Sample.body(
          ClientFrame.request("log.offsets", [.init("topic", "t"), .init("timeMs", 5)], blob: ByteSlice("b"), id: 1)),
    ]
  } body: { bytes in
    guard let (choice, body) = headed(bytes) else { return }
    switch choice % 4 {
    case 0:
      guard let request = try taken({ try ExecRequest(body) }) else { return }
      touch(request.key)
      touch(request.value)
      for header in request.headers { touch(header.value) }
      try promise((0..<body.count).contains(request.eventBytes), "an event larger than its frame")
    case 1:
      guard let request = try taken({ try AppendRequest(body) }) else { return }
      for (_, batch) in request.batches { touch(batch.unsafeBytes) }
      try promise(!request.batches.isEmpty, "no batch")
      try promise(request.batches.reduce(0) { $0 + $1.batch.count } < body.count, "batches larger than their frame")
    case 2:
      guard let request = try taken({ try FetchRequest(body) }) else { return }
      try promise(request.offset >= -2 && request.maxBytes >= 0, "\(request)")
      try promise((0...600_000).contains(request.waitMilliseconds), "\(request)")
    default:
      guard let request = try taken({ try AdminRequest(body) }) else { return }
      touch(request.blob.unsafeBytes)
    }
  }

  /// Bodies of what a node answers. The first byte says which.
  static let clientAnswers = FuzzTarget("client-answers") {
    let types = FrameType.allCases
    func seed(_ type: FrameType, _ body: [UInt8]) -> [UInt8] { [UInt8(types.firstIndex(of: type)!)] + body }
    let batch = try Sample.batchWithGaps()
    return [
      seed(
        .ack,
        Sample.written {
          $0.u32(0x0300_0000); $0.i32(1); $0.i64(7); $0.string16("t")
        }),
      seed(
        .reply,
        Sample.written {
          $0.u16(0); $0.u16(0); $0.i32(1); $0.string16("m"); $0.bytes32(batch.unsafeBytes)
        }),
      seed(
        .appended,
        Sample.written {
          $0.u16(0x0300); $0.u16(2); $0.string16("t"); for n in 0..<2 { $0.i32(Int32(n)); $0.i64(5) }
        }),
      seed(
        .fetched,
        Sample.written {
          $0.i64(0); $0.i64(99); $0.i64(40); $0.bytes(batch.unsafeBytes)
        }),
      seed(
        .response,
        Sample.written {
          $0.u32(2); $0.bytes(Array("{}blob".utf8))
        }),
      seed(.error, Array(#"{"status": 3, "message": "no"}"#.utf8)),
    ]
  } body: { bytes in
    guard let (choice, body) = headed(bytes) else { return }
    let types = FrameType.allCases
    let frame = ReceivedFrame(type: types[Int(choice) % types.count], flags: choice, id: 1, body: body)
    _ = frame.failure
    _ = try taken(ClientError.self) { try frame.receipt() }
    _ = try taken(ClientError.self) { try frame.appendReceipt() }
    if let reply = try taken(ClientError.self, { try frame.reply() }) { touch(reply.value.unsafeBytes) }
    if let answer = try taken(ClientError.self, { try frame.adminResponse() }) { touch(answer.blob.unsafeBytes) }
    if let result = try taken(ClientError.self, { try frame.fetchResult() }) {
      for batch in result.batches { touch(batch.unsafeBytes) }
      try promise(result.batches.reduce(24) { $0 + $1.count } == body.count, "bytes of the frame are lost")
    }
  }

  /// WELCOME and DELIVER, which a worker takes, and RESULT, which it sends. The first byte says which.
  static let workerFrames = FuzzTarget("worker-frames") {
    let batch = try Sample.batchWithGaps()
    let welcome = """
      {"protocol": 1, "node": "n1", "app": "flights", "version": "4b", "worker": "flights-3", "heartbeatMs": 2000,
       "maxFrame": 67174400, "maxEvent": 8388608, "maxHops": 64, "credits": 4, "slots": ["raw"], "config": {},
       "routes": {"parsed": [{"topic": "flights.events", "event": "parsed", "partitions": 4}]}}
      """
    return [
      [0]
        + Sample.written {
          $0.i32(0); $0.u32(1); $0.i64(0); $0.i64(40); $0.u32(2); $0.i64(1); $0.i64(4); $0.bytes(batch.unsafeBytes)
        },
      [1]
        + Sample.written {
          $0.i64(150); $0.u32(1); $0.i64(150); $0.u32(0x0200_0000); $0.i32(0); $0.u32(9); $0.string16("later")
          $0.u16(1); $0.u16(0); $0.u32(40); $0.u32(1); $0.u64(5_000)
          $0.u32(1); $0.string16("stats.events"); $0.i32(0); $0.u32(UInt32(batch.count)); $0.bytes(batch.unsafeBytes)
        },
      [2] + Array(welcome.utf8),
    ]
  } body: { bytes in
    guard let (choice, body) = headed(bytes) else { return }
    switch choice % 3 {
    case 0:
      guard let delivery = try taken({ try Delivery(id: 1, body: body) }) else { return }
      try promise(delivery.first >= 0 && delivery.first <= delivery.end, "\(delivery.first) to \(delivery.end)")
      try promise(zip(delivery.skips, delivery.skips.dropFirst()).allSatisfy { $0 <= $1 }, "skips out of order")
      for batch in delivery.batches { touch(batch.unsafeBytes) }
    case 1:
      guard let result = try taken({ try WorkerResult(body, first: 100, end: 200, slots: 2) }) else { return }
      try promise((100...200).contains(result.processed), "processed \(result.processed)")
      try promise(
        result.verdicts.allSatisfy { (100..<200).contains($0.offset) && $0.offset <= result.processed }, "a verdict")
      try promise(result.tallies.allSatisfy { (0..<2).contains($0.slot) }, "a tally of a slot that there is not")
      for output in result.outputs { touch(output.batch.unsafeBytes) }
    default:
      guard let json = try taken(JSONError.self, { try JSONValue(parsing: body.unsafeBytes) }),
        let info = try taken(ProtocolError.self, { try WorkerInfo(welcome: json) })
      else { return }
      _ = try taken(ProtocolError.self) { try Session(info: info, application: Application(), log: LogQueue()) }
    }
  }

  /// The first byte, and the others.
  private static func headed(_ bytes: ByteSlice) -> (UInt8, ByteSlice)? {
    guard bytes.count > 0 else { return nil }
    // A copy, so that its memory begins and ends with it.
    return (bytes.unsafeBytes[0], ByteSlice(Array(bytes.array.dropFirst())))
  }
}
