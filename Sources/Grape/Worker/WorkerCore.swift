package import GrapeCore
internal import GrapeState
package import GrapeWire

/// A worker without its connection and threads: what it makes of WELCOME and DELIVER, one frame after the other.
///
/// Handlers must not suspend. Used by one thread at a time.
package final class WorkerCore {
  private let run: DeliveryRun
  private let session: Session

  /// - Parameters:
  ///   - welcome: body of the frame.
  ///   - now: time of day in milliseconds since 1970 UTC.
  ///   - base: what a partition's state is without the worker's own writes.
  package init(
    _ application: Application, welcome: JSONValue, now: @escaping @Sendable () -> Int64,
    base: @escaping (_ partition: Int32) -> any StateBase
  ) throws {
    let log = LogQueue()
    let info = try WorkerInfo(welcome: welcome)
    let state = info.state.map { StateSpace(info: $0, log: log) { (base($0), nil) } }
    session = try Session(info: info, application: application, log: log, state: state, now: now)
    run = DeliveryRun(session: session)
  }

  /// Runs the events of a DELIVER frame. The body of its RESULT.
  package func result(of id: UInt64, _ delivery: ByteSlice) throws -> ByteSlice {
    run.begin(try Delivery(id: id, body: delivery))
    defer { run.clear() }
    guard case .finished = try run.advance() else {
      throw ProtocolError(message: "a handler wants to suspend, and nobody is there to wait for it")
    }
    var body = ByteWriter(capacity: 1024)
    run.writeResult(to: &body)
    let countAt = body.count
    body.u32(0)
    var count: UInt32 = 0
    for output in run.context.outputs.active {
      output.forEachBatch { batch in
        count += 1
        body.string16(output.topic)
        body.i32(output.partition)
        body.u32(UInt32(batch.count))
        body.bytes(batch)
      }
    }
    body.patch(count, at: countAt)
    return body.finish()
  }
}
