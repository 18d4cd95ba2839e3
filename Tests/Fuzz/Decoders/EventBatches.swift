import GrapeCore
import GrapeWire

@testable import Grape
@testable import GrapeEngine

extension FuzzTarget {
  /// Batches of events on their way through the node: checked at the door, run by a worker, whose result the node takes.
  static let eventBatch = FuzzTarget("event-batch") {
    [try Sample.batch().array, try Sample.batch(30, zstd: true).array, try Sample.batchWithGaps().array]
  } body: { bytes in
    guard let batch = repaired(bytes) else { return }
    let scanner = EventScanner(app: "app", slots: ["a", "b"], eventLimit: 4096, batchLimit: 1 << 16)
    for origin in [EventScanner.Origin.client, .worker] {
      var counts = [0, 0]
      let header = try taken(StatusError.self) {
        try scanner.scan(batch, from: origin, checkingCRC: true, counts: &counts)
      }
      try promise(counts.reduce(0, +) == Int(header?.recordCount ?? 0), "\(counts) counted of \(header as Any)")
    }
    // A worker trusts its node, but not so far that it reads outside the frame.
    try run(batch)
  }

  private static func run(_ batch: ByteSlice) throws {
    guard let header = try taken({ try RecordBatchHeader(batch.unsafeBytes) }) else { return }
    let application = Application()
    application.on("a") { event, context in
      try context.emit("out", event.value, key: event.key)
      if event.offset % 5 == 4 { throw Retry() }
      if event.offset % 5 == 3 { throw Reject(code: 1) }
    }
    application.on("b") { event, context in try context.reply(event.value) }
    let info = WorkerInfo(
      worker: "test-1", app: "test", version: "v", node: "n", config: .object([]), routes: [:], slots: ["a", "b"],
      limits: WorkerInfo.Limits())
    let session = try Session(info: info, application: application, log: LogQueue(), hasOpenRoutes: true)
    let run = DeliveryRun(session: session)
    let (first, end) = (header.baseOffset, header.lastOffset + 1)
    run.begin(
      Delivery(id: 1, partition: 0, attempt: 1, first: first, end: end, skips: [first + 1], batches: [batch]))
    guard let step = try taken({ try run.advance() }) else { return }
    guard case .finished = step else { throw BrokenPromise(description: "a handler that does not wait is awaited") }
    var body = ByteWriter()
    run.writeResult(to: &body)
    var outputs: [(Output, ByteSlice)] = []
    for output in run.context.outputs.active {
      output.forEachBatch { outputs.append((output, ByteSlice(copying: $0))) }
    }
    body.u32(UInt32(outputs.count))
    for (output, batch) in outputs {
      body.string16(output.topic)
      body.i32(output.partition)
      body.u32(UInt32(batch.count))
      body.bytes(batch.unsafeBytes)
      _ = try RecordBatch.validate(batch, checkingCRC: true, limit: 1 << 20) { _ in }
    }
    let bytes = body.finish()
    let result = try taken { try WorkerResult(bytes, first: first, end: end, slots: 2) }
    // Events out of order give verdicts out of order, which the node refuses; the log holds no such batch.
    let isSound = try taken { try RecordBatch.forEachKey(batch, checkingCRC: true, limit: 1 << 20) { _ in } } != nil
    try promise(result != nil || !isSound, "the node refuses what the worker made of a sound batch")
  }
}
